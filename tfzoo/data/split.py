"""Which examples go where, and in what order: functions of the seed alone."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def cut(
    count: int, share: float, seed: int | Sequence[int], labels: Sequence | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a part off, with the same share of every class.

    Args:
        count: How many examples there are, 2 or more.
        share: Part to be cut off, in (0, 1); at least one example, and at most all but one.
        seed: Any integer from 0, or several.
        labels: The class of each; None where there are none. The rest keeps an example of each, and the part has one
            of each that has two, if need be more than its share.

    Returns:
        The numbers of the rest and those of the part, each in ascending order.
    """
    order = np.random.default_rng([*b"cut", *np.atleast_1d(seed)]).permutation(count)
    free, kinds = order[1:], None
    if labels is not None:
        classes = np.unique(np.asarray(labels), return_inverse=True)[1][order]
        by_class = np.argsort(classes, kind="stable")
        order, classes = order[by_class], classes[by_class]
        second = np.append(False, classes[1:] == classes[:-1])  # all but one of each class
        free, kinds = (order[second], classes[second]) if second.any() else (order[1:], None)
    wanted = min(max(round(share * count), 1), len(free))
    places = ((np.arange(wanted) + 0.5) * len(free) / wanted).astype(int)  # evenly spaced, so of every large class
    part = free[places if kinds is None else of_every_kind(places, kinds)]
    return np.setdiff1d(np.arange(count), part), np.sort(part)


def of_every_kind(places: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Add a place of each kind that has none to `places`, for one of the most frequent kind where it has more."""
    for kind in np.setdiff1d(kinds, kinds[places]):
        counts = np.bincount(kinds[places])
        if counts.max() > 1:
            places = np.delete(places, np.flatnonzero(kinds[places] == counts.argmax())[-1])
        places = np.append(places, np.flatnonzero(kinds == kind)[0])
    return places


@lru_cache(4)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Shuffle the numbers of an epoch's examples.

    The word in the seed keeps draws apart: NumPy pads seeds with zeros, so [seed, epoch] is [seed, epoch, 0] too.
    With NumPy, as TensorFlow's `index_shuffle` knows few orders: of 7 examples, 244 of the 5,040 in 3,000 epochs.
    """
    return np.random.default_rng([*b"order", seed, epoch]).permutation(count)
