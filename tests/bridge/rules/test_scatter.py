"""Cells written to where an index says, both ways."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops
ROWS = np.array([[0], [2], [0]])
CELLS = np.array([[1, 0], [2, 1], [0, 1]])


def at(x):
    """Numbers of cells, none of them twice."""
    return ops.expand_dims(ops.cast(ops.argsort(x[:, 0], axis=-1), "int32"), -1)


@pytest.mark.parametrize("reduction", [None, "add"])
def test_examples(carried, reduction):
    """Whole examples of a batch, in an order that is computed."""

    def function(x, y):
        order = ops.expand_dims(ops.cast(ops.argsort(x[:, 0, 0]), "int32"), -1)
        return ops.scatter_update(x, order, y, reduction=reduction)

    carried(function, (5, 4), (5, 4))


@pytest.mark.parametrize("index, reduction", [(ROWS[:2], None), (ROWS, "add"), (CELLS, "add"), (CELLS, None)])
def test_constant_places(index, reduction):
    """Of a tensor without a batch, some places twice."""
    x, y = keras.Input(batch_shape=(3, 2)), keras.Input(batch_shape=(len(index), *[2] * (index.shape[1] == 1)))
    model = keras.Model([x, y], ops.scatter_update(x, index, y, reduction=reduction))
    module = bridge.to_torch(model)
    arrays = [np.random.default_rng(0).normal(size=t.shape).astype("float32") for t in (x, y)]
    tensors = tuple(map(torch.from_numpy, arrays))
    np.testing.assert_allclose(module(*tensors), model(arrays), rtol=1e-6)
    again = bridge.to_keras(module, tensors, [set(), set()])
    np.testing.assert_allclose(again(arrays), model(arrays), rtol=1e-6)


def test_into_zeros():
    y = keras.Input(batch_shape=(3, 2))
    model = keras.Model(y, ops.scatter(ROWS, y, (4, 2)))
    array = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    np.testing.assert_allclose(bridge.to_torch(model)(torch.from_numpy(array)), model(array), rtol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: x.index_put((i,), x[:2] * 2, accumulate=True),
        lambda x, i: x.index_add(1, i, x[:, :2] * 3),
        lambda x, i: x.index_add(2, i, x[:, :, 1:3], alpha=2),
        lambda x, i: x.index_copy(0, i, x[1:3]),
    ],
)
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 6)])
def test_from_torch(check, function, shape):
    module, x = check.Function(function), torch.randn(shape, dtype=torch.float64)
    tensors = (x, torch.tensor([0, 2]))
    model = bridge.to_keras(module, tensors, [set(), set()])
    have = check.to_first(np.asarray(model([check.to_last(x.numpy()), tensors[1].numpy()])))
    np.testing.assert_allclose(have, module(*tensors), rtol=1e-12)
    np.testing.assert_allclose(bridge.to_torch(model)(*tensors), module(*tensors), rtol=1e-12)


def test_refused(check):
    x, row = keras.Input((4,)), keras.Input(batch_shape=(1, 4))
    with pytest.raises(
        bridge.BridgeError, match=r"\(ScatterUpdate\): reduction='max'; give None or 'add', or use keras"
    ):
        bridge.to_torch(keras.Model([x, row], ops.scatter_update(x, np.array([[0]]), row, reduction="max")))
    with pytest.raises(bridge.BridgeError, match="it writes where a mask says; use torch.where with the mask"):
        module = check.Function(lambda x: x.index_put((x > 0,), x[0, 0]))
        bridge.to_keras(module, (torch.randn(3, 4),), [set()])
