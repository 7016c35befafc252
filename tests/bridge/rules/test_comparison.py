"""Comparisons and logic, both ways; what comes out is made a number, as the checks compare numbers."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import torch_reader
from bridge.rules import comparison

layers, ops = keras.layers, keras.ops


class Function(nn.Module):
    """A function of torch behind a convolution, its booleans made numbers."""

    def __init__(self, function):
        super().__init__()
        self.function, self.c = function, nn.Conv2d(3, 4, 1)
        self.row = nn.Buffer(torch.tensor([0.3, -0.2, 0.0, 0.1, 0.5]))
        self.mask = nn.Buffer(torch.ones(6, 6).tril().bool())

    def forward(self, x):
        y = self.c(x)
        return self.function(self, y).to(x.dtype) + 0.1 * y


def from_torch(check, function):
    return check.from_torch(Function(function), torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)))


def both_ways(check, function, shape=(5, 4, 3)):
    """Behind a layer whose layout it meets; nothing is permuted."""
    x = keras.Input(shape, name="x")
    y = (
        layers.Dense(3, name="d")(x)
        if len(shape) == 1
        else getattr(layers, f"Conv{len(shape) - 1}D")(3, 1, name="c")(x)
    )
    model = keras.Model(x, ops.cast(function(y), "float32") + 0.1 * y)
    _, again = check.both_ways(model)
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)
    return model


@pytest.mark.parametrize("name", comparison.COMPARISONS)
def test_comparisons_of_keras(check, name):
    function = getattr(ops, name)
    for make in (lambda x: function(x, ops.relu(x)), lambda x: function(ops.relu(x), 0), lambda x: function(0.1, x)):
        both_ways(check, make)


@pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 3, 4, 3)])
def test_ranks(check, shape):
    both_ways(check, lambda x: ops.greater(x, 0.1), shape)
    both_ways(check, lambda x: ops.less(x, np.array([0.3, -0.2, 0.1], "float32")), shape)


@pytest.mark.parametrize("name", [n for n in comparison.LOGIC if "_" in n])
def test_logic_of_keras(check, name):
    operands = (lambda x: [x > 0]) if "not" in name else (lambda x: [x > 0, ops.less(x, 0.3)])
    both_ways(check, lambda x: getattr(ops, name)(*operands(x)))


@pytest.mark.parametrize("name", ["isposinf", "isneginf", "signbit", "isnan"])
def test_special_values(name):
    x = keras.Input((7,), dtype="float64")
    model = keras.Model(x, ops.cast(getattr(ops, name)(x), "float64"))
    values = np.array([[0.0, -0.0, 1.5, -2, np.inf, -np.inf, np.nan]])
    np.testing.assert_array_equal(bridge.to_torch(model)(torch.from_numpy(values)), model(values))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x > 0,
        lambda m, x: x <= 0.1,
        lambda m, x: x.relu() == x,
        lambda m, x: torch.ne(x.relu(), 0),
        lambda m, x: x <= x.mean(1, keepdim=True),
        lambda m, x: (x > 0) & (x < 1) | (x < -1),
        lambda m, x: (x > 0) ^ ~(x > 1),
        lambda m, x: torch.logical_and(x > 0, torch.logical_not(x > 0.5)),
        lambda m, x: torch.logical_or(x.relu(), x > 1),
        lambda m, x: (x > 0) == (x > 0.3),
        lambda m, x: torch.isnan(x) | torch.isinf(x) | (torch.isfinite(x) & (x > 0)),
        lambda m, x: torch.isposinf(1 / x.relu()) | torch.isneginf(-1 / x.relu()),
        lambda m, x: torch.signbit(x) | torch.signbit(-x.relu()),
        lambda m, x: x > m.row,
        lambda m, x: m.row < x,
        lambda m, x: (x > 0) & m.mask[:4, :5],
    ],
)
def test_from_torch(check, function):
    from_torch(check, function)


def test_not_finite(check):
    x = torch.tensor([[0.0, 1.0, -float("inf"), float("inf"), float("nan")]] * 2)

    class Module(nn.Module):
        def forward(self, x):
            return torch.stack([f(x).float() for f in (torch.isnan, torch.isinf, torch.isfinite)])

    model = bridge.to_keras(Module(), (x,))
    np.testing.assert_array_equal(model(x.numpy()), Module()(x))
    np.testing.assert_array_equal(bridge.to_torch(model)(x), Module()(x))


def test_a_number_in_float64():
    """Keras makes it a float32, torch does not."""

    class Module(nn.Module):
        def forward(self, x):
            return (x > 0.1).to(x.dtype)

    x = torch.tensor([[0.1, 0.1 + 1e-12, 0.2]] * 2, dtype=torch.float64)
    model = bridge.to_keras(Module(), (x,))
    np.testing.assert_array_equal(model(x.numpy()), Module()(x))
    entry = keras.Input((3,), dtype="float64", name="x")
    model = keras.Model(entry, ops.cast(ops.greater(entry, 0.1), "float64"))
    np.testing.assert_array_equal(bridge.to_torch(model)(x), model(x.numpy()))


def test_verified(check):
    module = Function(lambda m, x: (x > 0) & (x > m.row))
    model = from_torch(check, module.function)
    assert bridge.verify(model, bridge.to_torch(model)).passed
    node = next(n for n in torch_reader.read(module, (torch.randn(2, 3, 4, 5),)).nodes if n.operator == "comparison")
    assert node.attributes == {"function": "greater", "number": 0.0}


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda m, x: x > float("nan"), "nan is not a plain number; give it as one"),
        (lambda m, x: (x > 0) + (x > 1), "add of booleans; use logical_and, logical_or or logical_xor"),
    ],
)
def test_refused_from_torch(function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(Function(function), (torch.randn(2, 3, 4, 5),))
