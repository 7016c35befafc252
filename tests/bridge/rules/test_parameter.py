"""Weights that no layer holds and that flow as tensors: they are trained on both sides."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops
IMAGE = torch.randn(2, 6, 7, 5, generator=torch.Generator().manual_seed(0))
ROWS = IMAGE[:, :, 0, 0]


class Module(nn.Module):
    """A function of an input and of parameters of these shapes."""

    def __init__(self, function, buffers=False, **shapes):
        super().__init__()
        self.function = function
        for name, shape in shapes.items():
            if isinstance(shape, nn.Module):
                self.add_module(name, shape)
            elif buffers:
                self.register_buffer(name, torch.rand(shape, generator=torch.Generator().manual_seed(1)))
            else:
                self.register_parameter(name, nn.Parameter(torch.empty(shape)))

    def forward(self, x):
        return self.function(self, x)


def trained(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


LOW_RANK = {"w": (4, 6), "a": (4, 2), "b": (2, 6), "c": (4,)}
CASES = {
    "bias": (lambda m, x: x + m.w, IMAGE, {"w": (6, 1, 1)}),
    "bias of rows": (lambda m, x: x + m.w, ROWS, {"w": (6,)}),
    "number": (lambda m, x: x * m.w, IMAGE, {"w": ()}),
    "number of one axis": (lambda m, x: x * m.w, IMAGE, {"w": (1,)}),
    "broadcast": (lambda m, x: x[:, :1] * m.w, IMAGE, {"w": (6, 1, 1)}),
    "dividend": (lambda m, x: m.w / (2 + x * x), IMAGE, {"w": (6, 7, 5)}),
    "position embedding": (lambda m, x: m.c(x) + m.w, IMAGE, {"w": (1, 4, 5, 3), "c": nn.Conv2d(6, 4, 3)}),
    "view": (lambda m, x: x * m.g[:, None, None] + m.b.view(1, -1, 1, 1), IMAGE, {"g": (6,), "b": (6,)}),
    "skip": (lambda m, x: x + m.a * m.c(x), IMAGE, {"a": (), "c": nn.Conv2d(6, 6, 3, padding=1)}),
    "matrix": (lambda m, x: x @ m.w + m.b, IMAGE, {"w": (5, 3), "b": (3,)}),
    "einsum": (lambda m, x: torch.einsum("bchw,cd->bdhw", x, m.w), IMAGE, {"w": (6, 3)}),
    "maximum": (lambda m, x: torch.maximum(x, m.w), IMAGE, {"w": (6, 1, 1)}),
    "product of weights": (lambda m, x: F.linear(x, m.a @ m.b), ROWS, {"a": (4, 2), "b": (2, 6)}),
    "low rank": (lambda m, x: F.linear(x, m.w + m.a @ m.b, m.c), ROWS, LOW_RANK),
    "transposed": (lambda m, x: F.linear(x, m.w.t()), ROWS, {"w": (6, 4)}),
    "parts": (lambda m, x: x * m.w[:, :6] + m.w[:, 6:], ROWS, {"w": (1, 12)}),
    "concatenated": (lambda m, x: x * torch.cat([m.a, m.b], 1), ROWS, {"a": (1, 2), "b": (1, 4)}),
    "as another": (lambda m, x: x + m.w.type_as(x), IMAGE, {"w": (6, 1, 1)}),
    "in the shape of another": (lambda m, x: x + m.w.expand_as(x[:1]), IMAGE, {"w": (1, 6, 7, 5)}),
    "view as another": (lambda m, x: x * m.v.view_as(m.w) + m.w, IMAGE, {"v": (6, 1), "w": (6, 1, 1)}),
    "the name of a function": (lambda m, x: m.sum(x) * m.w, ROWS, {"sum": nn.Linear(6, 6), "w": (6,)}),
    "read twice": (lambda m, x: (x + m.w) * m.w, IMAGE, {"w": (6, 1, 1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_of_torch(check, name):
    function, x, shapes = CASES[name]
    module = Module(function, **shapes)
    model = check.from_torch(module, x)
    assert trained(model) == sum(p.numel() for p in module.parameters())
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_gradients_reach_them(check):
    """Both sides take the same step."""
    module = Module(CASES["low rank"][0], **CASES["low rank"][2])
    model = check.from_torch(module, ROWS)
    y = torch.ones(2, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    (module(ROWS.double()) - y).pow(2).mean().backward()
    optimizer.step()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(ROWS.double().numpy(), y.numpy())
    have = {v.path.split("/")[0]: v.numpy() for v in model.trainable_variables}
    for name, p in module.named_parameters():
        np.testing.assert_allclose(have[name], p.detach(), rtol=1e-6)


def test_frozen_ones_and_buffers_stay(check):
    frozen = Module(CASES["bias"][0], w=(6, 1, 1)).requires_grad_(False)
    for module in (frozen, Module(CASES["matrix"][0], buffers=True, w=(5, 3), b=(3,))):
        model = check.from_torch(module, IMAGE)
        assert not model.trainable_weights and bridge.verify(model, module).passed


def test_a_change_is_seen(check):
    """Of the weight alone, in the graph."""
    module = Module(CASES["bias"][0], w=(6, 1, 1))
    model = check.from_torch(module, IMAGE)
    module.w.data[2] += 1e-6
    report = bridge.verify(model, module)
    assert not report.passed and "w" in str(report)


def test_it_is_a_keras_model(check, tmp_path):
    """Saved, loaded, any batch, none included, whole numbers for its input."""
    module = Module(lambda m, x: m.e(x) + m.p, e=nn.Embedding(9, 4), p=(1, 5, 4))
    tokens = torch.randint(0, 9, (3, 5), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        module.p.uniform_()
    model = bridge.to_keras(module.eval(), (tokens,))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again(tokens.numpy()), module(tokens).detach(), rtol=1e-6)
    assert again(np.zeros((0, 5), "int64")).shape == (0, 5, 4)
    assert {type(y).__name__ for y in model.layers} >= {"Embedding", "EinsumDense"}


@pytest.mark.parametrize("policy", ["float64", "bfloat16", "mixed_bfloat16"])
def test_dtypes(check, policy):
    x = keras.Input((5, 4), name="x", dtype="float64" if policy == "float64" else "float32")
    one = ops.reshape(ops.ones_like(ops.sum(ops.cast(x, "bfloat16" if "16" in policy else "float64"))), (1, 1))
    y = layers.Dense(4, dtype=policy, name="d")(x)
    weight = layers.EinsumDense("ab,cd->acd", (5, 4), dtype=policy, name="w")(one)
    model = check.randomise(keras.Model(x, ops.add(y, ops.squeeze(weight, 0))))
    module = bridge.to_torch(model)
    assert module.w.dtype == getattr(torch, "float32" if "mixed" in policy else policy)
    assert str(module(torch.zeros(2, 5, 4, dtype=getattr(torch, x.dtype))).dtype).endswith(
        policy.removeprefix("mixed_")
    )
    assert bridge.verify(model, module).passed


def test_an_einsum_dense_of_something_else_is_refused():
    x = keras.Input((5,), name="x")
    model = keras.Model(x, layers.EinsumDense("ab,cd->acd", (5, 4), name="w")(x))
    with pytest.raises(bridge.BridgeError, match="w .outer.: it multiplies sums of its input by all of its weight"):
        bridge.to_torch(model)


@pytest.mark.parametrize(
    "function, shapes, text",
    [
        (lambda m, x: x + m.w.mul_(2), {"w": (6, 1, 1)}, "changes a weight or buffer in place"),
        (lambda m, x: x + torch.lgamma(m.w), {"w": (6, 1, 1)}, "there is no rule for the operator lgamma"),
        (lambda m, x: x + torch.randn(5), {}, "draws random numbers of the shape"),
    ],
)  # fmt: skip
def test_refusals(function, shapes, text):
    module = Module(function, **shapes).eval()
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(module, (IMAGE,))
    assert text in str(e.value)


def test_deep_networks_take_no_time(check):
    """Looking for what becomes of a weight must not follow every path."""

    def deep(m, x):
        x = x + m.p
        for i in range(40):
            x = x + torch.tanh(getattr(m, f"c{i}")(x)) * 0.1
        return x

    module = Module(deep, p=(1, 4, 5, 5), **{f"c{i}": nn.Conv2d(4, 4, 1) for i in range(40)})
    check.from_torch(module, torch.randn(2, 4, 5, 5))


def test_a_value_of_ones_of_many_cells_is_no_weight():
    x = keras.Input((5, 4), name="x")
    weight = layers.EinsumDense("ab,cd->acd", (5, 4), name="w")(ops.ones_like(ops.sum(x, 0)))
    with pytest.raises(bridge.BridgeError, match="it multiplies sums of its input by all of its weight"):
        bridge.to_torch(keras.Model(x, ops.add(x, ops.sum(weight, 0))))


class Whole(torch.nn.Module):
    """Constants that are not floats flow: a table at fixed places, a mask for each example."""

    def __init__(self):
        super().__init__()
        self.table, self.places = torch.nn.Embedding(5, 4), torch.nn.Buffer(torch.tensor([[3, 0, 4]]))
        self.mask = torch.nn.Buffer(torch.tensor([[True, False, True]]))

    def forward(self, x):  # (B, 3, 4)
        y = x + self.table(self.places)
        return torch.where(self.mask.expand(x.shape[0], -1)[..., None], y, x)


def test_whole_numbers_and_booleans(check):
    module, x = Whole(), torch.randn(2, 3, 4)
    model = check.from_torch(module, x)
    assert bridge.verify(model, module).passed


def test_whole_numbers_that_are_too_large():
    module = Module(lambda m, x: torch.cat([x, m.w.expand(x.shape[0], 6)], 1))
    module.register_buffer("w", torch.arange(6)[None] + 2**24)
    with pytest.raises(bridge.BridgeError, match="w, of int64, is computed with, and float32 cannot hold all of its"):
        bridge.to_keras(module, (torch.zeros(2, 6, dtype=torch.int64),))


def test_a_weight_that_is_rounded():
    """There and back is not the weight itself."""
    module = Module(lambda m, x: x * m.w.half().float(), w=(6, 1, 1)).eval()
    module.w.data.uniform_(1, 2)
    model = bridge.to_keras(module, (IMAGE,))
    have = np.asarray(model(IMAGE.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_array_equal(have, module(IMAGE).detach().permute(0, 2, 3, 1))
    assert bridge.verify(model, module).passed


def test_a_bias_beside_the_weight_is_refused():
    x = keras.Input((5,), name="x")
    one = ops.reshape(ops.ones_like(ops.sum(x)), (1, 1))
    weight = layers.EinsumDense("ab,cd->acd", (3, 5), bias_axes="d", name="w")(one)
    with pytest.raises(bridge.BridgeError, match="it has a bias or an activation"):
        bridge.to_torch(keras.Model(x, ops.matmul(x, ops.transpose(ops.squeeze(weight, 0)))))
