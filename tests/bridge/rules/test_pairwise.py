"""Functions of two tensors, of floats and of whole numbers, both ways."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge.rules import pairwise

layers, ops = keras.layers, keras.ops


class Function(nn.Module):
    """A function of torch behind a convolution."""

    def __init__(self, function):
        super().__init__()
        self.function, self.c = function, nn.Conv2d(3, 4, 1)
        self.row = nn.Buffer(torch.tensor([0.3, -0.2, 0.7, 0.1, 0.5]))

    def forward(self, x):
        return self.function(self, self.c(x)).to(x.dtype)


@pytest.mark.parametrize("name", pairwise.FUNCTIONS)
def test_of_keras(check, name):
    """Of two tensors, and of a tensor and a number on either side."""
    x = keras.Input((5, 4, 3), name="x")
    y = layers.Conv2D(3, 1, name="c")(x)
    positive, function = y * y + 0.5, getattr(ops, name)
    parts = [function(positive, y)]
    parts += [function(positive, 1.7)] if name != "hypot" else []  # Keras' own takes tensors alone
    parts += [function(1.7, positive)] if name not in ("hypot", "floor_divide") else []
    _, again = check.both_ways(keras.Model(x, layers.Concatenate()([*parts, y])))
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x % 2,
        lambda m, x: x % -0.3,
        lambda m, x: 2 % x,
        lambda m, x: torch.remainder(x, x.mean(1, keepdim=True)),
        lambda m, x: torch.fmod(x, 0.3),
        lambda m, x: torch.fmod(x, m.row),
        lambda m, x: torch.atan2(x, x + 1) + torch.atan2(m.row, x),
        lambda m, x: torch.hypot(x, x + 1),
        lambda m, x: torch.logaddexp(x, m.row),
        lambda m, x: (x * x + 1) ** x + 3**x + 0.5**x,
        lambda m, x: x // 0.5,
        lambda m, x: torch.div(x, 0.3, rounding_mode="trunc"),
        lambda m, x: torch.div(x, x.exp(), rounding_mode="trunc"),
        lambda m, x: (x * 9).long() // 2,
        lambda m, x: (x * 9).long() % -3,
        lambda m, x: torch.div((x * 9).long(), 4, rounding_mode="floor") * 2 + 1,
        lambda m, x: torch.lerp(x, x * 2 + 1, 0.3),
        lambda m, x: torch.lerp(x, x * 2 + 1, x.mean(1, keepdim=True)),
        lambda m, x: torch.addcdiv(x, x, x.exp(), value=0.5),
        lambda m, x: torch.addcdiv(x, x, x.exp()),
    ],
)
def test_from_torch(check, function):
    check.from_torch(Function(function), torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)))


def test_negative_numbers_of_either_sign():
    """The sign of a remainder, and which way a quotient and a cast go."""
    x = np.array([[-7.5, -2.0, -0.4, 0.4, 2.0, 7.5]] * 2, "float32")
    entry = keras.Input((6,), name="x")
    whole = ops.cast(entry, "int64")
    made = [ops.mod(entry, -2.0), ops.fmod(entry, 2.0), ops.floor_divide(entry, 3.0), whole, ops.mod(whole, 3)]
    model = keras.Model(entry, [*made, ops.floor_divide(whole, -2)])
    for have, want in zip(bridge.to_torch(model)(torch.from_numpy(x)), model(x), strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda m, x: x // 3, r"not the quotient rounded down; write torch.floor\(x / y\)"),
        (lambda m, x: torch.div(x.long(), 2, rounding_mode="trunc"), "rounding_mode='trunc' of int64; give floor"),
        (lambda m, x: x.long() % x, "mod makes float32 of float32 and int64; convert the tensors"),
    ],
)
def test_refused(function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(Function(function), (torch.randn(2, 3, 4, 5),))
