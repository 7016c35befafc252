import pytest

from tfzoo.training.speed import Speed


class Clock:
    """A clock that is put forward by hand."""

    now = 1000.0

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def steps(speed, clock, seconds, count, first=None):
    """Take `count` steps of so many seconds each, the first of another length."""
    for batch in range(count):
        clock.forward(first if first is not None and batch == 0 else seconds)
        speed.on_train_batch_end(batch)


def test_a_whole_run(clock):
    speed = Speed(8, steps_per_epoch=5, epochs=4, clock=clock)
    clock.forward(50)  # what is before the training is no part of it
    speed.on_train_begin()
    assert speed.left() is None and speed.examples_per_second() is None
    speed.on_epoch_begin(0)
    steps(speed, clock, 2.0, 3, first=30.0)
    assert speed.examples_per_second() == 4.0  # 8 examples in 2 s, the first step left out
    assert speed.left() == 17 * 2.0
    steps(speed, clock, 2.0, 2)
    clock.forward(3.0)  # validation
    assert speed.left() == 15 * 2.0 + 3 * 3.0  # three epochs are still to be judged
    assert speed.seconds() == 30 + 4 * 2 + 3
    clock.forward(1.0)  # a checkpoint behind the row
    speed.on_epoch_begin(1)
    steps(speed, clock, 4.0, 5)
    assert speed.examples_per_second() == 2.0  # of this epoch
    mean = (4 * 2.0 + 5 * 4.0) / 9
    clock.forward(6.0)
    assert speed.left() == pytest.approx(10 * mean + 2 * (4.0 + 6.0) / 2)
    assert speed.seconds() == 1 + 5 * 4 + 6


def test_a_run_that_goes_on_in_the_middle_of_an_epoch(clock):
    speed = Speed(8, steps_per_epoch=5, epochs=4, start=7, clock=clock)
    speed.on_train_begin()
    speed.on_epoch_begin(1)
    steps(speed, clock, 2.0, 2, first=9.0)
    assert speed.steps == 9 and speed.left() == 11 * 2.0 and speed.examples_per_second() == 4.0


def test_the_first_step_counts_where_it_is_the_only_one(clock):
    speed = Speed(6, steps_per_epoch=1, epochs=3, clock=clock)
    speed.on_train_begin()
    speed.on_epoch_begin(0)
    steps(speed, clock, 3.0, 1)
    assert speed.examples_per_second() == 2.0 and speed.left() == 2 * 3.0
    speed.on_epoch_begin(1)
    steps(speed, clock, 1.0, 1)
    assert speed.examples_per_second() == 6.0 and speed.left() == 1.0


def test_the_end_is_the_end(clock):
    speed = Speed(6, steps_per_epoch=2, epochs=1, clock=clock)
    speed.on_train_begin()
    speed.on_epoch_begin(0)
    steps(speed, clock, 3.0, 2)
    clock.forward(5.0)
    assert speed.left() == 0
