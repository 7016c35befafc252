"""Joined, cut and turned tensors: what Keras does, torch does with concatenations, slices and permutations."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops

CASES = {
    "append": (lambda x, y: ops.append(x, y, axis=1), (5, 4), (3, 4)),
    "append an image": (lambda x, y: ops.append(x, y, axis=-1), (5, 6, 4), (5, 6, 3)),
    "array_split": (lambda x: ops.array_split(x, 3, axis=1), (5, 4)),
    "diff": (lambda x: ops.diff(x, n=2, axis=1), (5, 4)),
    "diff of an image": (lambda x: ops.diff(x, axis=-1), (5, 3, 4)),
    "diff of booleans": (lambda x: ops.diff(x > 0, axis=1), (5, 3, 4)),
    "dsplit": (lambda x: ops.dsplit(x, 2), (5, 4)),
    "dstack": (lambda x, y: ops.dstack([x, y]), (5, 4), (5, 3)),
    "dstack of rows": (lambda x, y: ops.dstack([x, y]), (4,), (4,)),
    "hsplit": (lambda x: ops.hsplit(x, [2, 3]), (5, 4)),
    "hstack": (lambda x, y: ops.hstack([x, y]), (5, 4), (3, 4)),
    "rot90 by negative axes": (lambda x: ops.rot90(x, axes=(-1, 1)), (5, 4)),
    "rot90 of a square": (lambda x: ops.rot90(x, 2, axes=(1, 2)), (4, 4, 2)),
    **{f"rot90 {k}": (lambda x, k=k: ops.rot90(x, k=k, axes=(1, 2)), (5, 6, 4)) for k in (0, 1, 3, -1)},
    "slice_update": (lambda x, y: ops.slice_update(x, [0, 1, 2], y), (5, 4), (3, 2)),
    "slice_update of an image": (lambda x, y: ops.slice_update(x, [0, 1, 0, 1], y), (5, 4, 3), (2, 4, 2)),
    "vstack": (lambda x, y: ops.vstack([x, y]), (5, 4), (5, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    carried(function, *shapes, verified="slice_update" not in name)  # which TensorFlow does not train


def test_fixed_sizes(check):
    """What a batch of a known size allows."""
    x, y = keras.Input(batch_shape=(2, 5, 4)), keras.Input(batch_shape=(3,))
    check.both_ways(keras.Model(x, ops.slice(x, [0, 1, 2], [2, 3, 2]) * 2))
    module = bridge.to_torch(keras.Model([x, y], ops.meshgrid(x[0, 0], y)))
    arrays = [np.random.default_rng(0).normal(size=t.shape).astype("float32") for t in (x, y)]
    grids = np.meshgrid(arrays[0][0, 0], arrays[1])
    for have, want in zip(module(*map(torch.from_numpy, arrays)), grids, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.append(x, x), r"\(Append\): it joins the flattened tensors, the batch along; give it an axis"),
        (lambda x: ops.rot90(x, 2, axes=(1, 2)), "Keras on TensorFlow mixes up what is not square by k=2"),
        (lambda x: ops.vsplit(x, 2), "it splits an axis of an open size; fix that size"),
        (
            lambda x: ops.slice_update(x, [0, 1, 3], x[:, :2, :2]),
            r"writes a tensor of shape \(None, 2, 2\) to \[0, 1, 3",
        ),
        (lambda x: ops.meshgrid(x, x[0, 0]), "it makes grids of tensors of sizes"),
    ],
)
def test_refused(function, text):
    x = keras.Input((5, 4))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
