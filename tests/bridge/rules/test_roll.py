"""Rolled tensors, both ways."""

import inspect

import keras
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops


class Roll(nn.Module):
    def __init__(self, shifts, dims):
        super().__init__()
        self.shifts, self.dims = shifts, dims

    def forward(self, x):
        return x.roll(self.shifts, self.dims) * 2


@pytest.mark.parametrize(
    "shape, shifts, dims",
    [
        ((5,), 2, 1),
        ((7, 3), -2, -2),
        ((7, 3), (1, -1), (-1, 1)),
        ((5, 6, 4), (-2, 3), (1, 2)),
        ((3, 5, 6), (9, -7), (-2, -1)),
        ((3, 4, 5, 2), (1, 2, -1), (1, 3, 4)),
        ((7, 3), (2, 3), (1, 1)),
        ((7, 3), 1, 0),
    ],
    ids=str,
)
def test_axes(check, shape, shifts, dims):
    check.from_torch(Roll(shifts, dims), torch.randn(2, *shape))
    if dims != (1, 1):  # Keras takes an axis once
        x = keras.Input(shape, name="x")
        check.both_ways(keras.Model(x, layers.ReLU()(ops.roll(x, shifts, dims))))


def test_one_way_to_say_it(check):
    x = keras.Input((5, 6, 4), name="x")
    model = keras.Model(x, ops.roll(x, (3, 0, -1), (1, 2, 3)))
    for shifts, dims in (((-2, 3), (2, 1)), ((8, -6, 3), (2, 3, 1)), ((3, 1, -2), (2, 1, 1))):
        module = Roll(shifts, dims)
        module.forward = lambda x, m=module: x.roll(m.shifts, m.dims)
        check.same_graph(model, module, (torch.randn(2, 4, 5, 6),))
    text = inspect.getsource(type(bridge.to_torch(model)))
    assert "roll((-1, -2), (1, 2))" in text
    assert "roll" not in inspect.getsource(type(bridge.to_torch(keras.Model(x, ops.roll(x, (5, -12), (1, 2)) + 1))))


def test_open_sizes(check):
    x = keras.Input((None, None, 4), name="x")
    check.both_ways(keras.Model(x, layers.ReLU()(ops.roll(x, (-2, 5), (1, 2)))))


class ShiftedWindows(nn.Module):
    """What Swin does between two blocks."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Conv2d(3, 8, 2, stride=2), nn.Linear(8, 8)

    def forward(self, x):
        x = self.embed(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        x = self.mix(x.roll((-1, -2), (1, 2)))
        return x.roll((1, 2), (1, 2)).permute(0, 3, 1, 2)


def test_network():
    module, x = ShiftedWindows().eval(), torch.randn(2, 3, 10, 14)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert not any(isinstance(layer, layers.Permute) for layer in model.layers)
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_refusals():
    x = keras.Input((5, 3), name="x")
    with pytest.raises(bridge.BridgeError, match="rolls the flattened tensor, the batch along; give it an axis"):
        bridge.to_torch(keras.Model(x, ops.roll(x, 2)))
    with pytest.raises(bridge.BridgeError, match="rolls the flattened tensor, the batch along; give it dims"):
        bridge.to_keras(Roll(2, ()), (torch.randn(2, 5, 3),))

    class Half(nn.Module):
        def forward(self, x):
            return x.roll(x.shape[1] // 2, 1)

    with pytest.raises(bridge.BridgeError, match="worked out from an open size of the input; join .* by torch.cat"):
        bridge.to_keras(Half(), (torch.randn(2, 6, 3),), [{0, 1}])
