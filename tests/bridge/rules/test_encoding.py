"""Classes, bins and segments by comparisons with their numbers."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops


def whole(x):
    return ops.cast(ops.floor(x * 2), "int32")


def winner(x):
    return ops.cast(ops.argmax(x, axis=-1), "int32")


BOUNDS = np.array([-0.3, 0.1, 0.7])
CASES = {
    "cdist": (lambda x, y: ops.cdist(x, y), (5, 4), (3, 4)),
    "digitize": (lambda x: ops.digitize(x, BOUNDS), (5, 4)),
    "isin": (lambda x: ops.isin(whole(x), [0, 2]), (5, 4)),
    "isin inverted": (lambda x: ops.isin(whole(x), np.array([[0], [2]]), invert=True), (5, 4)),
    "isin a tensor": (lambda x, y: ops.isin(whole(x), whole(y)), (5, 4), (2,)),
    "multi_hot": (lambda x: ops.multi_hot(whole(x), 3), (4,)),
    "multi_hot of booleans": (lambda x: ops.multi_hot(whole(x), 3, dtype="bool"), (4,)),
    "one_hot": (lambda x: ops.one_hot(whole(x), 5), (5, 4)),
    "one_hot along an axis": (lambda x: ops.one_hot(whole(x), 3, axis=1), (5, 4)),
    "one_hot of booleans": (lambda x: ops.one_hot(whole(x), 3, dtype="bool"), (4,)),
    **{
        f"segment_{name}": (
            lambda x, name=name: ops.take(
                getattr(ops, f"segment_{name}")(x, winner(x[:, 0]), num_segments=5), winner(x[:, 0]), axis=0
            ),
            (5, 4),
        )
        for name in ("sum", "max", "min")
    },
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    carried(function, *shapes)


@pytest.mark.parametrize("name", ["segment_sum", "segment_max", "segment_min", "segment_prod"])
def test_segments_without_members(name):
    x, ids = keras.Input((3,)), keras.Input((), dtype="int32")
    model = keras.Model([x, ids], getattr(ops, name)(x, ids, num_segments=4))
    arrays = np.random.default_rng(0).normal(size=(5, 3)).astype("float32"), np.array([3, 0, 0, -1, 3], "int32")
    have = bridge.to_torch(model)(*map(torch.from_numpy, arrays))
    np.testing.assert_allclose(have, model(arrays), rtol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_places_in_a_row(side):
    """At the bounds themselves, and of what is no number."""
    x = keras.Input((), dtype="float64")
    model = keras.Model(x, ops.searchsorted(np.array([-0.5, 0.25, 0.25, 0.7]), x, side=side))
    values = np.array([-1, -0.5, 0.25, 0.3, 0.7, 0.9, np.nan, np.inf, -np.inf])
    np.testing.assert_array_equal(bridge.to_torch(model)(torch.from_numpy(values)), model(values))


def test_bins():
    x = keras.Input((9,))
    model = keras.Model(x, ops.digitize(x, np.array([-0.5, 0.25, 0.7])))
    values = np.array([[-1, -0.5, 0.25, 0.3, 0.7, 0.9, np.nan, np.inf, -np.inf]], "float32")
    np.testing.assert_array_equal(bridge.to_torch(model)(torch.from_numpy(values)), model(values))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_in_top_k(k):
    """With equal predictions, infinities and what is no number."""
    x, targets = keras.Input((4,)), keras.Input((), dtype="int32")
    model = keras.Model([x, targets], ops.in_top_k(targets, x, k))
    rows = [[0, 1, 1, 2], [3, 1, 1, 0], [0, np.inf, 1, 2], [np.nan, 1, 0, 0], [0, 0, 0, 0]]
    arrays = np.array(rows, "float32"), np.array([1, 1, 3, 1, 2], "int32")
    np.testing.assert_array_equal(bridge.to_torch(model)(*map(torch.from_numpy, arrays)), model(arrays))


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.one_hot(x, 3), r"\(OneHot\): numbers of classes that are float32; cast them to int32 before"),
        (lambda x: ops.digitize(x, ops.mean(x, axis=0)), "its bounds are a tensor that flows; give them as numbers"),
        (
            lambda x: ops.segment_sum(x, winner(x)),
            "num_segments=None, so that the data say how many segments there are",
        ),
    ],
)
def test_refused(function, text):
    x = keras.Input((4,))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
