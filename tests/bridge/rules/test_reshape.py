"""Reshape: blocks of axes, in any layout, both ways."""

import inspect
import re

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge.rules.reshape import DROP, KEEP, NEW, find_blocks

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize(
    ("source", "target", "blocks"),
    [
        (("s0", 4, 5), ("s0", 4, 5), (KEEP, KEEP, KEEP)),
        (("s0", 4, 5, 3), ("s0", 20, 3), (KEEP, (2, (20,)), KEEP)),
        (("s0", 20, 3), ("s0", 4, 5, 3), (KEEP, (1, (4, 5)), KEEP)),
        (("s0", 4, 6), ("s0", 8, 3), (KEEP, (2, (8, 3)))),
        (("s0", 3), ("s0", 1, 1, 3), (KEEP, NEW, NEW, KEEP)),
        (("s0", 1, 1, 3), ("s0", 3), (KEEP, DROP, DROP, KEEP)),
        (("s0", "s1", "s2", 3), ("s0", "s1*s2", 3), (KEEP, (2, (-1,)), KEEP)),
        (("s0", 8, "s1"), ("8*s0", "s1"), ((2, (-1,)), KEEP)),
        (("s0", 4, 3), (None, 3), ((2, (-1,)), KEEP)),
        (("s0", 3), (None, 4, 3), ((1, (-1, 4)), KEEP)),
        (("s0", "s1 + 1", 3), ("s0", "s1 + 1", 3, 1), (KEEP, KEEP, KEEP, NEW)),
    ],
)
def test_blocks(source, target, blocks):
    assert find_blocks(source, target) == blocks


SHAPES = [
    ((4, 5, 6), (20, 6)),  # height and width in one, the channels where they are
    ((4, 5, 6), (4, 30)),  # width and channels mix
    ((4, 5, 6), (2, 2, 5, 6)),
    ((4, 5, 6), (6, 20)),  # everything mixes
    ((4, 5, 6), (4, 5, 2, 3)),
    ((4, 5, 6), (4, 5, 1, 6)),
    ((4, 5, 6), (120,)),
    ((1, 1, 6), (6,)),
    ((24,), (2, 3, 4)),
    ((6,), (1, 1, 6)),
    ((5, 6), (5, 1, 6)),
    ((5, 6), (30, 1)),
    ((1, 5, 6), (5, 6)),
]


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_alone(check, source, target):
    x = keras.Input(source, name="x")
    model = keras.Model(x, layers.Reshape(target, name="r")(x))
    module = check.both_ways(model).module
    check.same_graph(model, module, (torch.from_numpy(check.to_first(np.zeros((2, *source), "float32"))),))


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_from_torch(check, source, target):
    class Module(torch.nn.Module):
        def forward(self, x):
            return x.view(x.shape[0], *target) * 2

    x = torch.randn(2, *source)
    model = bridge.to_keras(Module(), (x,))
    have = check.to_first(np.asarray(model(check.to_last(x.numpy()))))
    np.testing.assert_array_equal(have, Module()(x).numpy())
    assert bridge.verify(model, Module()).passed


@pytest.mark.parametrize("target", [(1, 1, 6), (6, 1, 1), (2, 3, 1), (1, 6, 1)])
def test_squeeze_and_excite(check, target):
    """What is pooled comes back to the image with its channels where both frameworks have them."""
    x = keras.Input((7, 5, 6), name="x")
    y = layers.Reshape(target, name="r")(layers.GlobalAveragePooling2D()(x))
    y = layers.Conv2D(6, 1, activation="sigmoid", name="c")(y)
    model = keras.Model(x, layers.Multiply()([x, layers.GlobalMaxPooling2D(keepdims=True)(y)]))
    module, again = check.both_ways(model)
    assert bridge.verify(model, module).passed
    if target == (1, 1, 6):
        assert "permute" not in inspect.getsource(type(module))
        assert not any(isinstance(layer, layers.Permute) for layer in again.layers)


def test_tokens_of_an_image(check):
    """The patches of a transformer: one permutation, from (B, C, N) to (B, N, C)."""
    x = keras.Input((8, 12, 3), name="x")
    y = layers.Reshape((6, 10), name="r")(layers.Conv2D(10, 4, strides=4, name="c")(x))
    model = keras.Model(x, layers.Dense(4, name="fc")(y))
    module, again = check.both_ways(model)
    assert isinstance(module.fc, torch.nn.Linear)
    assert inspect.getsource(type(module)).count("permute") == 1
    assert [type(x) for x in again.layers[1:]] == [layers.Conv2D, layers.Reshape, layers.Dense]


def test_the_tokens_of_torch(check):
    class Patches(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.fc = torch.nn.Conv2d(3, 10, 4, 4), torch.nn.Linear(10, 4)

        def forward(self, x):
            return self.fc(self.c(x).flatten(2).transpose(1, 2))

    x, module = torch.randn(2, 3, 8, 12), Patches()
    model = bridge.to_keras(module, (x,))
    assert [type(x) for x in model.layers[1:]] == [layers.Conv2D, layers.Reshape, layers.Dense]
    assert check.relative(model(check.to_last(x.numpy())), module(x).detach()) < 1e-5
    assert bridge.verify(model, module).passed


def test_open_sizes(check):
    x = keras.Input((None, None, 6), name="x")
    check.both_ways(keras.Model(x, layers.Reshape((-1, 6))(x)))
    check.both_ways(keras.Model(x, ops.expand_dims(x, (1, 4))))
    check.both_ways(keras.Model(x, layers.Dense(3, name="fc")(ops.squeeze(ops.expand_dims(x, 2), 2))))
    y = keras.Input((None, 6), name="y")
    check.both_ways(keras.Model(y, layers.Reshape((-1, 2, 3))(y)))
    check.both_ways(keras.Model(y, layers.Reshape((2, -1))(y)))


def test_the_batch_may_take_part(check):
    """TimeDistributed by hand: the frames of a film as a batch of images, and back."""
    x = keras.Input((4, 7, 5, 3), name="x")
    y = layers.Conv2D(2, 3, name="c")(ops.reshape(x, (-1, 7, 5, 3)))
    module = check.both_ways(keras.Model(x, ops.reshape(y, (-1, 4, 5, 3, 2)))).module
    source = inspect.getsource(type(module))
    assert source.count("permute") == 2, source


class Views(torch.nn.Module):
    """Every way that torch has to say it."""

    def forward(self, x):  # (B, 8, H, W)
        b, c, h, w = x.shape
        y = x.flatten(2).unflatten(1, (2, 4)).flatten(1, 2)
        y = y.unsqueeze(1).squeeze(1).unsqueeze(3).squeeze()
        return (y + x.view(b, c, h * w)).reshape(b, c, -1, 1).squeeze(3)


def test_the_ways_of_torch(check):
    x = torch.randn(2, 8, 5, 7)
    model = bridge.to_keras(Views(), (x,))
    np.testing.assert_allclose(np.asarray(model(check.to_last(x.numpy()))), Views()(x).numpy(), rtol=1e-6)
    assert bridge.verify(model, Views()).passed


class Shuffle(nn.Module):
    """ShuffleNet's: the channels of the groups, one after the other."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.first(x)
        b, c, h, w = x.shape
        return self.last(x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w))


def non_local(x):
    tokens = x.flatten(2)
    weights = (tokens.mT @ tokens).softmax(-1)
    return x + (tokens @ weights.mT).view(x.shape)


def tokens_last(x):
    b, c, h, w = x.shape
    tokens = x.permute(0, 2, 3, 1).reshape(b, h * w, c).softmax(1)
    return x + tokens.mT.reshape(b, c, h, w) + tokens.view(b, h, w, c).permute(0, 3, 1, 2)


def linear_attention(x):
    b, c, h, w = x.shape
    q, k = x.reshape(b * 2, c // 2, h * w).softmax(1), x.reshape(b, 2, c // 2, h * w).softmax(-1)
    context = k @ x.view(b, 2, c // 2, -1).mT
    return (context.flatten(0, 1).mT @ q).view(b, c, h, w)


def attention_over_parts(x):
    """To queries of the image, keys of a smaller one; and the smaller one as an image again."""
    small = F.max_pool2d(x, 2)
    tokens = small.flatten(2)
    y = (x.flatten(2).mT @ tokens).softmax(-1) @ tokens.mT
    return y.mT.reshape(x.shape) + tokens.tanh().view_as(small).mean((2, 3), keepdim=True)


def axial(x):
    b, c, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(b * h, w, c)
    rows = (rows @ rows.mT).softmax(-1) @ rows
    return x + rows.view(b, h, w, c).permute(0, 3, 1, 2)


def windows(x):
    """Swin's, of an image with sizes that are even."""
    y = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    b, c, h, w = y.shape
    cells = y.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
    cells = (cells @ cells.mT).softmax(-1) @ cells
    return cells.view(b, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)


def all_cells(x):
    b, c, h, w = x.shape
    of_all = x.reshape(b, -1).softmax(-1).view(b, c, h, w)
    return of_all + x.view(b * c, 1, h, w).tanh().view(b, c, h, w) + x.flatten().view(b * h, c * w).sin().view(x.shape)


class Between(nn.Module):
    """A function of an image between two convolutions."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


@pytest.mark.parametrize(
    "function",
    [non_local, tokens_last, linear_attention, attention_over_parts, axial, windows, all_cells],
    ids=lambda f: f.__name__,
)
def test_several_open_sizes_of_one_axis(check, function):
    open_sizes(check, check.live_torch(Between(function)).double())


@pytest.mark.parametrize("function", [linear_attention, attention_over_parts], ids=lambda f: f.__name__)
def test_training_with_several_open_sizes(check, function, tmp_path):
    module = check.live_torch(Between(function))
    model = bridge.to_keras(module, (torch.randn(2, 3, 9, 11),), [{0, 2, 3}])
    model.save(tmp_path / "model.keras")
    report = bridge.verify(keras.saving.load_model(tmp_path / "model.keras"), module)
    assert report.passed, str(report)


def test_the_source_of_several_open_sizes(check):
    x = torch.randn(2, 3, 9, 11)
    text = inspect.getsource(type(bridge.to_torch(bridge.to_keras(Between(non_local), (x,), [{0, 2, 3}]))))
    assert re.search(r"\.reshape\(\w+\.shape\[0\], 4, (\w+)\.shape\[2\], \1\.shape\[3\]\)", text), text


def test_what_is_refused():
    class Apart(nn.Module):
        def forward(self, x, y):
            both = x[:, :, None] * y
            return both.flatten().view(x.shape[0] * y.shape[0], x.shape[1]) + 1

    with pytest.raises(bridge.BridgeError, match="it needs the size .*, which is worked out from open sizes .*fixed"):
        bridge.to_keras(Apart(), (torch.randn(2, 5), torch.randn(7)), [{0, 1}, {0}])


def test_channels_apart_at_open_sizes(check):
    module = open_sizes(check, Shuffle().double())
    model = bridge.to_keras(module, (torch.randn(2, 3, 9, 11).double(),), [{0, 2, 3}])
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def open_sizes(check, module):
    """Carry a module both ways with an open height and width, and compare at other sizes than the example's."""
    x = torch.randn(2, 3, 9, 11).double()
    model = bridge.to_keras(module.eval(), (x,), [{0, 2, 3}])
    check.same_graph(model, module, (x,), [{0, 2, 3}])
    back = bridge.to_torch(model)
    for shape in ((1, 3, 5, 5), (3, 3, 7, 12), (5, 3, 17, 5), (3, 3, 6, 6)):
        other = torch.randn(shape).double()
        want = module(other).detach()
        assert check.relative(check.to_first(model(check.to_last(other.numpy())).numpy()), want) < 1e-12
        assert check.relative(back(other).detach(), want) < 1e-12
    return module


@pytest.mark.parametrize(
    "function, reshapes",
    [
        (lambda x: x.reshape(1, -1, *x.shape[2:]).reshape(x.shape), 0),
        (lambda x: x.flatten(0, 1)[None].permute(1, 0, 2, 3).reshape(x.shape), 0),
        (lambda x: x.reshape(-1, 6, 5).reshape(x.shape[0], 2, 12, 5), 1),
        (lambda x: x.reshape(-1, 6, 5).transpose(1, 2).reshape(x.shape[0], 2, 2, 30), 2),
    ],
)
def test_a_batch_that_is_put_into_an_axis_and_out_again(check, function, reshapes):
    """As around convolutions with a kernel for each example: what moves no number is left out."""
    model = check.from_torch(check.module_of(lambda m, x: function(torch.relu(x)) * 2), torch.randn(2, 4, 6, 5))
    assert sum(type(x).__name__ == "Reshape" for x in model.operations) == reshapes
