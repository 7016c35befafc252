"""Repeating tensors and their elements, in any layout, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops


def test_repeat_vector(check):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(4, name="fc")(layers.RepeatVector(3, name="r")(x)))
    module = check.both_ways(model).module
    assert "expand(-1, 3, -1)" in inspect.getsource(type(module))
    check.same_graph(model, module, (torch.randn(2, 6),))


@pytest.mark.parametrize("times", [(1, 2, 1, 1), (1, 1, 2, 3), (1, 1, 1, 2), (2,), (3, 1, 1)])
def test_tile(check, times):
    x = keras.Input((3, 5, 4), name="x")
    model = keras.Model(x, layers.Conv2D(2, 1, name="c")(ops.tile(layers.Conv2D(4, 1, name="d")(x), times)))
    module = check.both_ways(model).module
    assert "permute" not in inspect.getsource(type(module))


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_repeat(check, axis):
    x = keras.Input((3, 5, 4), name="x")
    model = keras.Model(x, layers.ReLU()(ops.repeat(x, 2, axis=axis)))
    module = check.both_ways(model).module
    check.same_graph(model, module, (torch.randn(2, 4, 3, 5),))


class Repeats(torch.nn.Module):
    """Every way that torch has to repeat."""

    def forward(self, x):  # (B, 4, 1, 3)
        y = x.expand(-1, -1, 5, -1) + x.expand(x.shape[0], 4, 5, 3)
        return y * x.repeat(1, 1, 5, 1), torch.tile(x, (2, 2)), x.repeat_interleave(2, 1), x.expand_as(y) + y


def test_the_ways_of_torch(check):
    check.from_torch(Repeats(), torch.randn(2, 4, 1, 3))


def test_to_the_open_size_of_another(check):
    class Open(torch.nn.Module):
        def forward(self, x, y):
            return x.expand(-1, -1, y.shape[2]) + y.mean()

    module, x, y = Open(), torch.randn(2, 4, 1), torch.randn(2, 4, 7)
    model = bridge.to_keras(module, (x, y), [{0}, {0, 2}])
    y = torch.randn(2, 4, 5)
    have, want = model([x.numpy(), y.numpy()]), module(x, y)
    assert check.relative(have, want) < 1e-6 and check.relative(bridge.to_torch(model)(x, y), want) < 1e-6


def test_as_often_as_an_open_size_says(check):
    class Module(torch.nn.Module):
        def forward(self, x):
            return x + x.mean((2, 3), keepdim=True).repeat(1, 1, x.shape[2], x.shape[3]) + x[:, :1].tile(1, 3, 1, 1)

    module, x = Module(), torch.randn(2, 3, 4, 5).double()
    model = bridge.to_keras(module, (x,), [{2, 3}])
    check.same_graph(model, module, (x,), [{2, 3}])
    x = torch.randn(2, 3, 7, 2).double()
    for y in (check.to_first(np.asarray(model(check.to_last(x.numpy())))), bridge.to_torch(model)(x)):
        np.testing.assert_allclose(y, module(x), rtol=1e-12)
