"""Open sizes: as ones, as numbers, as positions; at other sizes than the example's."""

import inspect
import re

import keras
import numpy as np
import pytest
import torch
from keras import ops

import bridge

nn = torch.nn
layers = keras.layers
IMAGE = torch.randn(2, 3, 6, 5)


class Module(nn.Module):
    """A function of torch of a convolution, and of parameters."""

    def __init__(self, function, **shapes):
        super().__init__()
        self.function, self.c = function, nn.Conv2d(3, 4, 3, padding=1)
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x):
        return self.function(self, self.c(x))


def proved(module, x, dynamic=None, *others):
    """A module that is carried, verified, and the same at other sizes on the way back."""
    model = bridge.to_keras(module.eval(), (x,), dynamic)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    back = bridge.to_torch(model)
    for other in others:
        torch.testing.assert_close(back(other), module(other), rtol=1e-4, atol=1e-5)
    return model, inspect.getsource(type(back))


def test_a_token_for_each_image(check):
    def tokens(m, x):
        x = x.flatten(2).mT
        return torch.cat([m.token.expand(x.shape[0], -1, -1), x], 1) + m.position

    module = Module(tokens, token=(1, 1, 4), position=(1, 31, 4))
    check.from_torch(module, IMAGE)
    model, text = proved(module.float(), IMAGE, None, torch.randn(5, 3, 6, 5))
    assert "new_ones(" in text and ".shape[0])" in text
    assert {w.path.split("/")[0] for w in model.trainable_weights} == {"c", "token", "position"}


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x + x.new_zeros(x.shape[0], 1, 1, 1) + x.new_ones(x.shape[0], 4, 1, 1) * m.p,
        lambda m, x: x * x.new_full((x.shape[0], 1, 6, 5), 2.0) - torch.full_like(x, 0.5) * m.p,
        lambda m, x: torch.zeros_like(x[:, :1]) + x * torch.ones_like(x) * m.p,
        lambda m, x: x + m.p.expand(x.shape[0], 4, 6, 5) + m.p.repeat(1, 1, 6, 5),
        lambda m, x: x + torch.ones(x.shape[0], dtype=torch.int64)[:, None, None, None] * m.p,
    ],
)  # fmt: skip
def test_of_the_batch(check, function):
    module = Module(function, p=(1, 4, 1, 1))
    check.from_torch(module, IMAGE)
    proved(module.float(), IMAGE, None, torch.randn(5, 3, 6, 5))


def attention(m, x):
    rows = x.flatten(2).mT
    scores = rows @ rows.mT / (x.shape[2] * x.shape[3]) ** 0.5
    return scores.softmax(-1) @ rows


@pytest.mark.parametrize(
    "function",
    [
        attention,
        lambda m, x: x.sum((2, 3)) / (x.shape[2] - 1) + x.shape[3] // 2,
        lambda m, x: x * torch.ones(1, 1, x.shape[2], x.shape[3]) + torch.zeros(x.shape[3]),
        lambda m, x: x + torch.arange(x.shape[3]) * 2 + torch.arange(1, 2 * x.shape[2] + 1, 2)[:, None],
        lambda m, x: x + torch.arange(x.shape[2], x.shape[2] + x.shape[3]) + torch.arange(3.0, 5.0, 0.5)[:, None, None],
        lambda m, x: x * x.mean((2, 3), keepdim=True).expand_as(x),
        lambda m, x: x.flatten(2) * torch.arange(x.shape[2] * x.shape[3]) + x.new_ones(2 * x[0, 0].numel()).sum(),
        lambda m, x: x.clamp(max=x.shape[2] * 0.1) + max(x.shape[2], x.shape[3]),
    ],
)  # fmt: skip
def test_of_height_and_width(function):
    others = torch.randn(3, 3, 9, 8), torch.randn(1, 3, 4, 7)
    proved(Module(function), torch.randn(2, 3, 6, 5), [{0, 2, 3}], *others)


def coord_conv(m, x):
    b, _, h, w = x.shape
    along = torch.linspace(-1, 1, w, dtype=x.dtype).view(1, 1, 1, w).expand(b, 1, h, w)
    down = torch.linspace(-1, 1, steps=h, dtype=x.dtype).view(1, 1, h, 1).expand(b, 1, h, w)
    return torch.cat([x, along, down], 1)


def meshes(m, x):
    b, _, h, w = x.shape
    ys, xs = torch.meshgrid(torch.arange(h, dtype=x.dtype), torch.arange(w, dtype=x.dtype), indexing="ij")
    across, _ = torch.meshgrid(torch.linspace(0, w - 1, w, dtype=x.dtype), ys[:, 0], indexing="xy")
    grid = torch.stack([xs / max(w - 1, 1), ys * 2], -1).repeat(b, 1, 1, 1)
    return x + across * torch.linspace(0.5, 2, 2 * w // 3 + 1, dtype=x.dtype).sum() + grid.mean(-1)[:, None]


@pytest.mark.parametrize("function", [coord_conv, meshes])
def test_coordinates(check, function):
    module, x, dynamic = Module(function).double(), torch.randn(2, 3, 6, 5).double(), [{0, 2, 3}]
    model, text = proved(module, x, dynamic)
    check.same_graph(model, module, (x,), dynamic)
    assert re.search(r"torch\.linspace\(\S+, \S+, \w+\.shape\[3\], dtype=(\w+)\.dtype, device=\1\.device\)", text), text
    back = bridge.to_torch(model)
    for shape in ((1, 3, 4, 9), (3, 3, 7, 4), (2, 3, 1, 8), (3, 3, 10, 1)):
        x = torch.randn(shape).double()
        want = module(x).detach()
        assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-12
        assert check.relative(back(x).detach(), want) < 1e-12


def test_numbers_are_the_shape_in_torch():
    _, text = proved(Module(lambda m, x: x / x.shape[2]), IMAGE, [{0, 2, 3}])
    assert "new_full((), " in text and ".shape[2])" in text


def test_ones_of_keras(check):
    x = keras.Input((5, 5, 3), name="x")
    y = layers.Conv2D(3, 3, padding="same")(x)
    check.both_ways(keras.Model(x, y + ops.ones_like(y)))
    with pytest.raises(bridge.BridgeError, match="it makes int32 of float32; cast the tensor first"):
        bridge.to_torch(keras.Model(x, ops.cast(ops.ones_like(x, "int32"), "float32") + y))


def test_it_is_saved(tmp_path):
    module = Module(lambda m, x: x + m.p.expand(x.shape[0], -1, 6, 5) / x.shape[0], p=(1, 4, 1, 1)).eval()
    bridge.to_keras(module, (IMAGE,)).save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert bridge.verify(again, module).passed


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda m, x: x.mean() + torch.arange(x.shape[2] + x.shape[3]), "it needs the size s.*, which is worked"),
        (lambda m, x: x.mean() + torch.arange(0, x.shape[2] * x.shape[3], x.shape[2]), "its step is worked out"),
    ],
)
def test_refusals(function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(Module(function), (IMAGE,), [{0, 2, 3}])
