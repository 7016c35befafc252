"""where, masked_fill and nan_to_num, both ways, with masks that are computed, buffers and arrays."""

import inspect

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops


class Function(nn.Module):
    """A function of torch between two convolutions."""

    def __init__(self, function):
        super().__init__()
        self.function, self.a, self.b = function, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.mask = nn.Buffer(torch.ones(7, 7).tril().bool())
        self.bias = nn.Buffer(torch.ones(7, 7).tril().view(1, 1, 7, 7))
        self.row = nn.Buffer(torch.tensor([0.3, -0.2, 0.0, 0.1, 0.5]))
        self.channels = nn.Buffer(torch.tensor([0.3, -0.2, 0.0, 0.1]).view(4, 1, 1))

    def forward(self, x):
        return self.b(self.function(self, self.a(x)))


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: torch.where(x > 0, x, x * 0.1),
        lambda m, x: torch.where(x > 0, x, 0.0),
        lambda m, x: torch.where(x > 0, -1, x),
        lambda m, x: torch.where(x > 0, x, torch.tensor(0.5).to(x)),
        lambda m, x: torch.where(x > 0, x, m.row),
        lambda m, x: torch.where(x > 0, m.channels, x),
        lambda m, x: torch.where(m.mask[:4, :5], x, m.row),
        lambda m, x: torch.where(x.mean(1, keepdim=True) > 0, x, 0.1),
        lambda m, x: x.masked_fill(x > 0, 2),
        lambda m, x: (x * 2).masked_fill_(x < 0, -1e9) / 1e9,
        lambda m, x: x.masked_fill(~m.mask[:4, :5], -0.5),
        lambda m, x: x.masked_fill(m.bias[:, :, :4, :5] == 0, -0.5),
        lambda m, x: x.masked_fill(torch.triu(torch.ones(4, 5), 1).bool(), 0),
        lambda m, x: x.masked_fill(torch.arange(5) > 2, 0.25),
        lambda m, x: x * m.mask[:4, :5] + x.masked_fill(m.mask[:4, :5], 0) * 2,
        lambda m, x: torch.where(x.long() == 0, x, x.relu()),
    ],
)
def test_from_torch(check, function):
    check.from_torch(Function(function), torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)))


MASK = np.tril(np.ones((5, 4), bool))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.where(x > 0, x, x * 0.1),
        lambda x: ops.where(ops.relu(x), 0.5, x),
        lambda x: ops.where(MASK[..., None], x, -0.5),
        lambda x: ops.where(MASK[..., None].astype("float32"), 0.25, x),
        lambda x: ops.where(x > 0, x, np.array([0.1, 0.2, 0.3], "float32")),
        lambda x: ops.where(x > 0, np.ones((5, 4, 1), "float32"), x),
        lambda x: ops.where(x > 0, 1.0, 0.0) * x,
        lambda x: ops.where(np.array([True, False, True]), np.arange(3, dtype="float32"), x),
    ],
)
def test_of_keras(check, function):
    """In the layout of the image: no transpose, and the arrays survive the way back to the last bit."""
    x = keras.Input((5, 4, 3), name="x")
    model = keras.Model(x, layers.Conv2D(2, 1, name="b")(function(layers.Conv2D(3, 1, name="a")(x))))
    module, again = check.both_ways(model)
    assert "permute" not in inspect.getsource(type(module))
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)
    check.same_graph(model, module, (torch.randn(2, 3, 5, 4),))


@pytest.mark.parametrize("rank", [2, 3, 5])
def test_ranks(check, rank):
    x = keras.Input((*[4] * (rank - 2), 3), name="x")
    y = ops.where(np.array([True, False, True]), layers.Dense(3, name="d")(x), 0.5)
    check.both_ways(keras.Model(x, y))


@pytest.mark.parametrize("value", [float("-inf"), -1e9])
def test_a_causal_mask(check, value):
    """Before a softmax, trained through."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(6, 6), nn.Linear(6, 6)
            self.mask = nn.Buffer(torch.ones(9, 9).tril().bool())

        def forward(self, x):
            for _ in range(2):
                scores = self.q(x) @ self.k(x).transpose(1, 2)
                x = torch.softmax(scores.masked_fill(~self.mask[:5, :5], value), -1) @ x
            return x

    module = Attention()
    model = check.from_torch(module, torch.randn(2, 5, 6))
    assert bridge.verify(model, module).passed
    again = bridge.to_torch(model)
    assert bridge.verify(model, again).passed
    assert {b.dtype for b in again.buffers()} == {torch.bool}


def test_verify_sees_another_mask(check):
    x = keras.Input((5, 4, 3), name="x")
    y = layers.Conv2D(3, 1, name="a")(x)
    one, other = (keras.Model(x, ops.where(m[..., None], y, -2.0)) for m in (MASK, ~MASK))
    assert bridge.verify(one, bridge.to_torch(one)).passed
    report = bridge.verify(one, bridge.to_torch(other))
    assert not report.passed and "the weights differ by up to 1" in str(report)


def test_a_mask_survives_the_file(tmp_path):
    x = keras.Input((5, 4, 3), name="x")
    model = keras.Model(x, ops.where(MASK[..., None], layers.Conv2D(3, 1, name="a")(x), 0.5))
    again = bridge.to_keras(bridge.to_torch(model), (torch.randn(2, 3, 5, 4),))
    again.save(tmp_path / "m.keras")
    pixels = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "m.keras")(pixels), again(pixels))
    bridge.save_torch(model, tmp_path / "folder")
    loaded = bridge.load_torch(tmp_path / "folder", trust=True)
    assert any(b.dtype == torch.bool for b in loaded.buffers())


@pytest.mark.parametrize("options", [{}, {"nan": 0.5, "posinf": 2.0, "neginf": -3.0}])
def test_nan_to_num(check, options):
    x = torch.tensor([[0.0, 1.5, -float("inf"), float("inf"), float("nan")]] * 2)

    class Module(nn.Module):
        def forward(self, x):
            return torch.nan_to_num(x, **options)

    model = bridge.to_keras(Module(), (x,))
    np.testing.assert_array_equal(model(x.numpy()), Module()(x))
    np.testing.assert_array_equal(bridge.to_torch(model)(x), Module()(x))
    check.same_graph(model, Module(), (x,))


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda m, x: x.masked_fill(x > 0, float("nan")), "nan is not a plain number"),
        (lambda m, x: m.mask.logical_not_() * x[:, :, :1, :1], "changes a weight or buffer in place"),
    ],
)
def test_refused(function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(Function(function), (torch.randn(2, 3, 4, 5),))


def test_floats_of_two_sizes():
    module = Function(lambda m, x: torch.where(x > 0, x, x.double() / 3).float())
    model = bridge.to_keras(module, (torch.randn(2, 3, 4, 5),))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
