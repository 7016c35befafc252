"""Parts share nothing and have their share of every class; every epoch has an order of its own."""

import itertools
from collections import Counter

import numpy as np
import pytest

from tfzoo.data import split


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("sizes", "share"), [((40, 40, 20), 0.15), ((7, 200, 13), 0.1), ((100,), 0.3)])
def test_a_part_has_its_share_of_every_class(sizes, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rest, part = split.cut(len(labels), share, seed, labels)
    assert sorted([*rest, *part]) == list(range(sum(sizes))) and len(part) == round(share * sum(sizes))
    for label, size in enumerate(sizes):
        assert abs((labels[part] == label).sum() - share * size) <= 1


def test_no_class_is_lost_to_the_rest():
    labels = ["rare", *["common"] * 9, "rarer"]
    for seed in range(50):
        rest, part = split.cut(len(labels), 0.5, seed, labels)
        assert {labels[i] for i in part} == {"common"} and len(part) == 6
        assert {labels[i] for i in rest} == set(labels)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("sizes", "share", "count"), [((2, 200, 2), 0.1, 20), ((4, 4), 0.15, 2), ((2,) * 7, 0.15, 7), ((1, 2, 60), 0.1, 6)]
)
def test_a_part_has_one_of_every_class_that_has_two(sizes, share, count, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rest, part = split.cut(len(labels), share, seed, labels)
    assert sorted([*rest, *part]) == list(range(len(labels))) and len(part) == count
    assert set(labels[rest]) == set(range(len(sizes))) and set(labels[part]) == set(np.flatnonzero(np.array(sizes) > 1))


def test_a_part_is_a_function_of_the_seed_and_every_example_may_be_in_it():
    first, again = (split.cut(20, 0.2, 3) for _ in range(2))
    np.testing.assert_array_equal(first[1], again[1])
    met = Counter(int(i) for seed in range(400) for i in split.cut(20, 0.2, seed)[1])
    assert len(met) == 20 and max(abs(met[i] - 80) for i in met) < 5 * np.sqrt(400 * 0.2 * 0.8)


def test_what_is_drawn_for_one_purpose_says_nothing_of_another():
    """NumPy pads seeds with zeros: without words before them, the seeds 3, [3, 0] and [3, 0, 0] are one."""
    order = split.order(3, 0, 50)
    cuts = [split.cut(50, 0.02, seed)[1] for seed in (3, [3, 0])]  # one example, in the middle of an order
    for plain in (np.random.default_rng(seed).permutation(50) for seed in (3, [3, 0], [3, 0, 0])):
        assert not np.array_equal(order, plain)
        assert all(part[0] not in (plain[25], order[25]) for part in cuts)


def test_small_collections():
    for count, share, expected in [(2, 0.15, 1), (2, 0.9, 1), (3, 0.9, 2), (10, 0.15, 2)]:
        rest, part = split.cut(count, share, 0)
        assert len(part) == expected and len(rest) == count - expected


def test_every_order_comes_up_as_often_as_any():
    orders = Counter(tuple(split.order(5, epoch, 4)) for epoch in range(2400))
    assert set(orders) == set(itertools.permutations(range(4)))
    expected = 2400 / 24  # chi-square of 23 degrees of freedom: below 49.7 in 99.9% of all cases
    assert sum((met - expected) ** 2 / expected for met in orders.values()) < 49.7
    assert not np.array_equal(split.order(5, 0, 50), split.order(6, 0, 50))
