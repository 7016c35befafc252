"""Running sums and products, both ways, along any axis of a layout."""

import keras
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops


class Function(nn.Module):
    """A function of torch behind a convolution."""

    def __init__(self, function):
        super().__init__()
        self.function, self.c = function, nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.function(self.c(x)).to(x.dtype)


@pytest.mark.parametrize("axis", [1, -1, 2])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_of_keras(check, name, axis):
    x = keras.Input((5, 4, 3), name="x")
    model = keras.Model(x, layers.Conv2D(2, 1, name="b")(getattr(ops, name)(layers.Conv2D(3, 1, name="a")(x), axis)))
    _, again = check.both_ways(model)
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.cumsum(1),
        lambda x: torch.cumprod(x, -1),
        lambda x: (x > 0).cumsum(2),
        lambda x: x.long().cumsum(3),
        lambda x: (x > 0).cumsum(2, dtype=torch.float32),
        lambda x: x.cumsum(1, dtype=torch.float64),
    ],
)
def test_from_torch(check, function):
    check.from_torch(Function(function), torch.randn(2, 3, 4, 5))


def test_refused():
    x = keras.Input((5,), name="x")
    with pytest.raises(bridge.BridgeError, match="it runs over all axes, the batch included; name an axis"):
        bridge.to_torch(keras.Model(x, ops.cumsum(x)))
