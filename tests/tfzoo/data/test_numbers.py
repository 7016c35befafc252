"""The numbers of a worker's examples; tests/tfzoo/training/_fit.py has them in several processes."""

from itertools import islice

import pytest

from tfzoo.data import numbers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_number_belongs_to_one_worker(workers, monkeypatch):
    steps = []
    for worker in range(workers):
        monkeypatch.setattr(numbers, "place", lambda strategy, worker=worker: (worker, workers))
        steps.append(list(numbers.endless(6, start=5).batch(6 // workers).take(4).as_numpy_iterator()))
    for step, parts in enumerate(zip(*steps, strict=True)):
        assert [int(n) for part in parts for n in part] == list(range(6 * (5 + step), 6 * (6 + step)))


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_tuned(workers, monkeypatch):
    monkeypatch.setattr(numbers, "place", lambda strategy: (0, workers))
    for dataset in (numbers.endless(4).map(lambda n: n).batch(2), numbers.count(0, 3)):
        assert dataset.options().autotune.enabled is False


def test_the_stream_does_not_end():
    assert list(islice(numbers.endless(4, start=2**40).as_numpy_iterator(), 2)) == [2**42, 2**42 + 1]
