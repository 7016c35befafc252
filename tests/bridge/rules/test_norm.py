"""Norms as what they consist of, both ways."""

import keras
import pytest
import torch
from torch import nn

import bridge

ops = keras.ops


@pytest.mark.parametrize(
    "axis, order", [(-1, None), (-1, 2), (2, 1), (1, float("inf")), ((1, 2), None), ((1, 3), "fro")]
)
@pytest.mark.parametrize("keepdims", [False, True])
def test_of_keras(check, axis, order, keepdims):
    x = keras.Input((5, 4, 3), name="x")
    y = keras.layers.Conv2D(3, 2)(x)
    check.both_ways(keras.Model(x, ops.norm(y, order, axis, keepdims) * 2))
    assert bridge.verify(keras.Model(x, ops.norm(x, order, axis, True)), Norm(order, axis)).passed


class Norm(nn.Module):
    """torch's of the same axes, which it has in other places."""

    def __init__(self, order, axis):
        super().__init__()
        axes = axis if isinstance(axis, tuple) else (axis,)
        self.axes = [{1: 2, 2: 3, 3: 1, -1: 1}[a] for a in axes]
        self.order = order if isinstance(order, (int, float)) else 2

    def forward(self, x):
        return torch.linalg.vector_norm(x, self.order, self.axes, True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.norm(dim=1, keepdim=True),
        lambda x: x / x.norm(p=1, dim=(2, 3), keepdim=True),
        lambda x: torch.norm(x, p=float("inf"), dim=-1),
        lambda x: torch.linalg.norm(x, dim=1),
        lambda x: torch.linalg.norm(x, 1, dim=1),
    ],
)
def test_of_torch(check, function):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 4, 2)

        def forward(self, x):
            return function(self.c(x))

    check.from_torch(Module(), torch.randn(2, 3, 6, 5))


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: torch.linalg.norm(x, 1, dim=(2, 3)), "ord=1 over several axes is a norm of matrices"),
    ],
)
def test_refusals_from_torch(function, text):
    class Module(nn.Module):
        def forward(self, x):
            return function(x)

    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(Module(), (torch.randn(2, 3, 6, 5),))
    assert text in str(e.value)


def test_a_norm_of_matrices_is_refused():
    x = keras.Input((5, 4, 3), name="x")
    with pytest.raises(bridge.BridgeError, match="ord=1 over several axes, which in Keras is a norm of matrices"):
        bridge.to_torch(keras.Model(x, ops.norm(x, 1, (1, 2))))


def test_a_weight_norm_of_another_shape_is_refused():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.v, self.g = nn.Parameter(torch.randn(4, 3, 2, 2)), nn.Parameter(torch.ones(1, 1, 1, 1))

        def forward(self, x):
            return nn.functional.conv2d(x, torch._weight_norm(self.v, self.g))

    with pytest.raises(bridge.BridgeError, match=r"its g has the shape \(1, 1, 1, 1\); give it \(4, 1, 1, 1\)"):
        bridge.to_keras(Module(), (torch.randn(2, 3, 6, 5),))


def test_other_orders_are_decomposed(check):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.c(x).norm(p=3, dim=1)

    check.from_torch(Module(), torch.randn(2, 3, 6, 5))
