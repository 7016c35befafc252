"""How fast a training goes, and when it will be done: from what it took so far, nothing assumed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras


class Speed(keras.callbacks.Callback):
    """Measure the steps of a run, and apart from them what lies between two epochs: validation, saving, pictures.

    The first step is left out of every figure where there are others: Keras compiles in it.

    Args:
        batch_size: Examples in a step, over all devices.
        steps_per_epoch: As `fit` has it.
        epochs: Of the whole run.
        start: Steps of the run before `fit` begins.
        clock: Gives the seconds now.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        steps_per_epoch: int,
        epochs: int,
        start: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self.batch_size, self.steps_per_epoch, self.epochs, self.clock = batch_size, steps_per_epoch, epochs, clock
        self.steps = start  # of the whole run
        self.all, self.epoch = Stretch(), Stretch()  # the steps since `fit` began, and of this epoch
        self.between = Stretch()  # from an epoch's last step to the first of the next
        self.first: float | None = None  # seconds of the first step
        self.row = self.mark = self.ended = 0.0  # when the latest `seconds`, step or epoch of steps was over

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begin to measure."""
        self.row = self.mark = self.clock()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Begin an epoch; what lay before it is over."""
        self.mark, self.epoch = self.clock(), Stretch()
        if self.ended:
            self.between.add(self.mark - self.ended)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measure a step, and what was done since the one before it, such as a checkpoint."""
        now = self.clock()
        self.steps += 1
        if self.first is None:
            self.first = now - self.mark
        else:
            self.all.add(now - self.mark)
            self.epoch.add(now - self.mark)
        self.mark = self.ended = now

    def seconds(self) -> float:
        """Give the seconds since the last time that this was asked, or since the beginning."""
        before, self.row = self.row, self.clock()
        return self.row - before

    def examples_per_second(self) -> float | None:
        """Give the examples of a second in this epoch's steps; None before the first."""
        step = self.epoch.mean() or self.first
        return self.batch_size / step if step else None

    def left(self) -> float | None:
        """Give the seconds to the end of the run; None before the first step.

        What lies between two epochs counts once it was seen, so the first epoch's answers leave it out.
        """
        step = self.all.mean() or self.first
        if step is None:
            return None
        done, within = divmod(self.steps, self.steps_per_epoch)
        between = replace(self.between)
        if not within:
            between.add(self.clock() - self.ended)  # this epoch's own, so far
        return (self.epochs * self.steps_per_epoch - self.steps) * step + (self.epochs - done) * (between.mean() or 0)


@dataclass
class Stretch:
    """Seconds that add up, of something that happened so many times."""

    total: float = 0.0
    count: int = 0

    def add(self, seconds: float) -> None:
        """Count once more."""
        self.total += seconds
        self.count += 1

    def mean(self) -> float | None:
        """Give the mean, None of nothing."""
        return self.total / self.count if self.count else None
