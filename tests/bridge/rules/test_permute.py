"""Permuting axes, both ways; permutations that cancel are not written."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers


@pytest.mark.parametrize("dims", [*itertools.permutations((1, 2)), *itertools.permutations((1, 2, 3)), (4, 2, 1, 3)])
def test_layers(check, dims):
    x = keras.Input((4, 5, 6, 3)[: len(dims)], name="x")
    check.both_ways(keras.Model(x, layers.Permute(dims)(x)))


@pytest.mark.parametrize("dims", [(1, 3, 2), (3, 1, 2)])
def test_between_convolutions(check, dims):
    x = keras.Input((6, 6, 6), name="x")
    y = layers.Permute(dims)(layers.Conv2D(6, 2, padding="same", name="a")(x))
    check.both_ways(keras.Model(x, layers.Conv2D(3, 2, name="b")(y)))


def test_inverse_pairs_vanish(check):
    x = keras.Input((6, 5, 4), name="x")
    y = layers.Permute((3, 1, 2))(layers.Conv2D(6, 2, name="a")(x))
    y = layers.Permute((2, 3, 1))(layers.ReLU()(y))
    module, again = check.both_ways(keras.Model(x, layers.Conv2D(3, 2, name="b")(y)))
    assert "permute" not in inspect.getsource(type(module))
    assert not any(isinstance(x, layers.Permute) for x in again.layers)


@pytest.mark.parametrize("axes", [None, (0, 2, 1, 3), (0, -1, 1, 2), (1, 0, 2, 3)])
def test_functions(check, axes):
    x = keras.Input(batch_shape=(2, 5, 6, 3) if axes is None or axes[0] else (None, 5, 6, 3), name="x")
    y = keras.ops.transpose(x, axes)
    if axes is None or axes[0]:
        y = keras.ops.transpose(y * 2, axes)
    check.both_ways(keras.Model(x, y))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.permute(0, 2, 3, 1),
        lambda x: x.permute(0, -1, 1, 2),
        lambda x: x.transpose(1, 2),
        lambda x: x.transpose(-1, -3),
        lambda x: x.transpose(2, 3).transpose(3, 2),
        lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 3, 1, 2),
        lambda x: torch.movedim(x, 1, 3),
        lambda x: x.swapaxes(1, 3),
        lambda x: x.swapdims(-1, 1),
        lambda x: x.mT,
        lambda x: x.mH + x.adjoint(),
        lambda x: torch.moveaxis(x, (3, 1), (1, -1)),
    ],
)
def test_from_torch_and_back(check, function):
    module = type("Module", (torch.nn.Module,), {"forward": lambda self, x: function(x)})()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    want = module(x).numpy()
    model = bridge.to_keras(module, (x,))
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) == 0
    assert check.relative(bridge.to_torch(model)(x).numpy(), want) == 0


class Product(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(5, 4))

    def forward(self, x):
        return (x @ self.weight.T).T.softmax(0).T


def test_all_axes_backwards(check):
    check.from_torch(Product(), torch.randn(3, 4))


MOVES = [
    lambda x: keras.ops.swapaxes(x, 1, -1),
    lambda x: keras.ops.moveaxis(x, -1, 1),
    lambda x: keras.ops.moveaxis(x, [1, 2], [3, 1]),
]


@pytest.mark.parametrize("move", MOVES)
def test_other_functions_of_keras(check, move):
    x = keras.Input((5, 4, 3), name="x")
    check.both_ways(keras.Model(x, keras.layers.Dense(2)(move(keras.layers.Conv2D(3, 2)(x)))), same_layers=False)
