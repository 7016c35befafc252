"""Stacking, both ways."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_stack(check, axis):
    x, y = keras.Input((5, 4), name="x"), keras.Input((5, 4), name="y")
    model = keras.Model([x, y], layers.ReLU()(ops.stack([x, layers.Dense(4, name="fc")(y), x], axis=axis)))
    module = check.both_ways(model).module
    check.same_graph(model, module, (torch.randn(2, 5, 4), torch.randn(2, 5, 4)))


def test_between_convolutions(check):
    """A film of two images, whose frames are its depth."""
    x = keras.Input((7, 5, 3), name="x")
    a, b = layers.Conv2D(4, 3, name="a")(x), layers.Conv2D(4, 3, name="b")(x)
    check.both_ways(keras.Model(x, layers.Conv3D(2, (2, 3, 3), name="c")(ops.stack([a, b], axis=1))))


@pytest.mark.parametrize("dim", [1, 2, -1])
def test_from_torch(check, dim):
    class Module(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x, x * 2, x + 1], dim)

    x = torch.randn(2, 5, 4)
    model = bridge.to_keras(Module(), (x,))
    np.testing.assert_allclose(check.to_first(np.asarray(model(x.numpy()))), Module()(x).numpy(), rtol=1e-6)
    assert bridge.verify(model, Module()).passed


def test_a_weight():
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.row = torch.nn.Parameter(torch.randn(2, 4))

        def forward(self, x):
            return torch.stack([x, self.row], 1)

    module, x = Module(), torch.randn(2, 4)
    have = bridge.to_keras(module, (x,), [set()])(x.numpy())
    np.testing.assert_array_equal(have, module(x).detach())
