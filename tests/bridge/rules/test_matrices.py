"""Triangles, diagonals and traces, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops
CASES = {
    "diagonal": (lambda x: ops.diagonal(x, 1, 1, 2), (5, 4)),
    "diagonal of an image": (lambda x: ops.diagonal(x, -1, -1, 1) * 2, (5, 3, 4)),
    "trace": (lambda x: ops.trace(x, 0, 1, 2), (5, 4)),
    "trace of an image": (lambda x: ops.trace(x, 0, 1, 2), (5, 3, 4)),
    "tril": (lambda x: ops.tril(x), (5, 4)),
    "tril of an image": (lambda x: ops.tril(x, k=-1) * x, (3, 5, 4)),
    "triu": (lambda x: ops.triu(x, k=1), (5, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    module = carried(function, *shapes).module
    assert f"torch.{'diagonal' if name[:2] != 'tr' or 'trace' in name else name[:4]}(" in inspect.getsource(
        type(module)
    )


@pytest.mark.parametrize("name, k", [("diag", 0), ("diag", 2), ("diag", -1), ("diagflat", 1)])
def test_of_a_diagonal(carried, name, k):
    carried(lambda x: ops.expand_dims(getattr(ops, name)(ops.sum(x, axis=0), k=k), 0) * x[:, :1, None], (4,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.tril(),
        lambda x: torch.triu(x, -2),
        lambda x: x.diagonal(1, 2, 3),
        lambda x: torch.diagonal(x, -1, -1, 1) * 2,
        lambda x: torch.diagonal(x, dim1=0, dim2=2),
        lambda x: x * torch.trace(x[:, 0, 0]),
        lambda x: x.sum((0, 1, 3)).diag(1).sum(0)[:4, None] * x,
        lambda x: torch.diag_embed(x[:, 0], -1),
        lambda x: torch.diag_embed(x[:, 0, 0], 1, 0, 2),
    ],
)
def test_from_torch(check, function):
    check.from_torch(check.Function(function), torch.randn(2, 3, 4, 5))


def test_refused():
    x = keras.Input(())
    with pytest.raises(bridge.BridgeError, match="it makes a matrix of a vector of an open size; fix that size"):
        bridge.to_torch(keras.Model(x, ops.diag(x)))


def test_a_band_of_an_open_size():
    x = keras.Input((None, 4))
    model = keras.Model(x, ops.triu(x, 1))
    array = np.random.default_rng(0).normal(size=(2, 7, 4)).astype("float32")
    np.testing.assert_array_equal(bridge.to_torch(model)(torch.from_numpy(array)), model(array))
