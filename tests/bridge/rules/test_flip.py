"""Reversed axes, both ways."""

import keras
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops
SHAPES = [(5,), (4, 3), (3, 5, 4), (3, 4, 2, 5)]


class Flip(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x) * 2


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("axis", [1, -1, (1, -1), (-1, 1), 0], ids=str)
def test_axes(check, shape, axis):
    axis = tuple({a % (len(shape) + 1) for a in axis}) if isinstance(axis, tuple) else axis
    x = keras.Input(shape, name="x")
    check.both_ways(keras.Model(x, layers.ReLU()(ops.flip(x, axis))))
    check.from_torch(Flip(lambda x: torch.flip(x, axis if isinstance(axis, tuple) else [axis])), torch.randn(2, *shape))


@pytest.mark.parametrize("name", ["fliplr", "flipud"])
def test_by_name(check, name):
    x = keras.Input((5, 4), name="x")
    check.both_ways(keras.Model(x, layers.ReLU()(getattr(ops, name)(x))))
    check.from_torch(Flip(getattr(torch, name)), torch.randn(2, 5, 4))


def test_all_axes_and_none(check):
    x = keras.Input((5, None, 4), name="x")
    check.both_ways(keras.Model(x, ops.flip(x)))
    check.from_torch(Flip(lambda x: x.flip(())), torch.randn(2, 5, 4))


class BothDirections(nn.Module):
    """A sequence that is read from either end."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3), nn.Conv1d(3, 4, 3)

    def forward(self, x):
        return self.a(x) + self.b(x.flip(-1)).flip(-1)


def test_network():
    module, x = BothDirections().eval(), torch.randn(2, 3, 9)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed
