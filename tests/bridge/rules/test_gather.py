"""Cells by their numbers, constant ones and computed ones, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops


class Constant(nn.Module):
    """A function of a tensor and of constant indices."""

    def __init__(self, function, *indices):
        super().__init__()
        self.function = function
        for i, index in enumerate(indices):
            self.register_buffer(f"index{i}", torch.as_tensor(index))

    def forward(self, x):
        return self.function(x, *self.buffers()) * 2


class Flowing(nn.Module):
    """A function of tensors, whole numbers among them."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, *others):
        return self.function(x, *others) * 2


def carry(check, module, *tensors):
    """Carry a module that has whole numbers for inputs to Keras and back, without a difference in a single bit."""
    model = check.to_keras(module, tensors)
    again = bridge.to_torch(model)
    want = module(*tensors).detach()
    have = model([check.to_last(t.numpy()) for t in tensors])
    np.testing.assert_array_equal(check.to_first(np.asarray(have)), want.numpy())
    assert torch.equal(again(*tensors), want)
    check.same_graph(model, again, tensors)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    return model


def keras_both(model, below=3):
    """The same for a Keras model; returns the torch module."""
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(-below, below, (2, *t.shape[1:])) if "int" in t.dtype else rng.normal(size=(2, *t.shape[1:]))
        for t in model.inputs
    ]
    arrays = [a.astype(t.dtype) for a, t in zip(arrays, model.inputs, strict=True)]
    want = np.asarray(model(arrays))
    with torch.no_grad():
        moved = [np.moveaxis(a, -1, 1) if a.ndim in (4, 5) else a for a in arrays]
        have = module(*(torch.from_numpy(np.ascontiguousarray(a)) for a in moved)).numpy()
    have = np.moveaxis(have, 1, -1) if have.ndim in (4, 5) else have
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-6)
    return module


INDEX = np.array([2, 0, -1, 2, 1])
SQUARE = np.array([[2, 0], [1, 1], [-1, 2]])


CASES = [
    ((3,), 1, INDEX),
    ((3,), -1, SQUARE),
    ((4, 3), -1, INDEX.astype("int32")),
    ((3, 4), 1, SQUARE),
    ((4, 3), 2, np.array([1])),
    ((5, 3, 2), 2, INDEX),
    ((3, 4, 2), 1, INDEX % 3),
    ((3, 4, 2), 1, np.array(2)),
]


@pytest.mark.parametrize("shape, axis, index", CASES, ids=repr)
def test_constants(check, shape, axis, index):
    x = keras.Input(shape, name="x")
    check.both_ways(keras.Model(x, layers.ReLU()(ops.take(x, index, axis=axis))))
    if not index.ndim:
        return  # torch makes a number of it
    before = (slice(None),) * (axis % (len(shape) + 1))
    check.from_torch(Constant(lambda x, i: x[(*before, i)], index), torch.randn(2, *shape))
    if index.ndim == 1 and (index >= 0).all():  # as torch wants it
        check.from_torch(Constant(lambda x, i: x.index_select(axis, i), index), torch.randn(2, *shape))


def test_of_the_batch(check):
    x = keras.Input((4, 5, 3), name="x")
    check.both_ways(keras.Model(x, layers.ReLU()(ops.take(x, [1, 0, 1], axis=0))))


def test_what_it_is_written_as(tmp_path):
    x = keras.Input((6, 5, 4), name="x")
    model = keras.Model(x, ops.take(ops.take(x, INDEX, axis=1, **{}), SQUARE[:, 0], axis=3))
    module = bridge.to_torch(model)
    assert inspect.getsource(type(module)).count(".index_select(") == 2
    buffers = list(module.buffers())
    assert not list(module.parameters()) and all(b.dtype == torch.int64 and b.min() >= 0 for b in buffers)
    again = bridge.to_keras(module, (torch.randn(2, 4, 6, 5),))
    again.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    image = np.random.default_rng(0).normal(size=(2, 6, 5, 4)).astype("float32")
    np.testing.assert_array_equal(loaded(image), model(image))
    assert bridge.verify(loaded, module).passed


def test_other_rules_come_first(check):
    """Permuted channels, a repeated edge, and nothing at all."""
    x = torch.randn(2, 6, 5, 3)
    for index, axis, kind in (
        ([0, 2, 4, 1, 3, 5], 1, nn.ChannelShuffle),
        ([0, 0, 1, 2, 3, 4, 4], 2, None),
        ([1, 2, 0, 1, 2, 0], 3, None),
        ([0, 1, 2], 3, None),
    ):
        module = Constant(lambda x, i, axis=axis: x.index_select(axis, i), torch.tensor(index))
        again = bridge.to_torch(check.from_torch(module, x))
        assert not list(again.buffers())
        assert kind is None or any(isinstance(m, kind) for m in again.modules())


class Bias(nn.Module):
    """Attention weights with a bias by the relative positions of their pixels, as in Swin and LeViT."""

    def __init__(self, shape, index, view=()):
        super().__init__()
        self.table = nn.Parameter(torch.randn(shape))
        self.mix = nn.Linear(4, 4)
        self.register_buffer("index", torch.as_tensor(index))
        self.view = view

    def forward(self, x):
        if self.table.shape[0] == 9:
            bias = self.table[self.index].view(4, 4, 2).permute(2, 0, 1)
        else:
            bias = self.table[:, self.index]
        return self.mix(x) + bias.unsqueeze(0)


POSITIONS = np.array([[4, 5, 7, 8], [3, 4, 6, 7], [1, 2, 4, 5], [0, 1, 3, 4]])


@pytest.mark.parametrize("shape, index", [((9, 2), POSITIONS.ravel()), ((9, 2), POSITIONS), ((2, 9), POSITIONS)])
def test_table_of_relative_positions(check, shape, index):
    """The table is trained, and its rows get the gradients of all cells that they were taken for."""
    module = check.tied(Bias(shape, index), torch.randn(2, 2, 4, 4)) and Bias(shape, index).eval()
    x = torch.randn(2, 2, 4, 4)
    model = bridge.to_keras(module, (x,))
    table = next(w for w in model.trainable_weights if tuple(w.shape) == shape)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = ops.sum(model(check.to_last(x.numpy())) ** 2)
    module.zero_grad()
    (module(x) ** 2).sum().backward()
    np.testing.assert_allclose(np.asarray(tape.gradient(loss, table)), module.table.grad.numpy(), rtol=2e-4, atol=1e-4)


class Positions(nn.Module):
    """A position embedding by constant numbers, as in CLIP."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(7, 4), nn.Embedding(5, 4)
        self.register_buffer("ids", torch.arange(5).expand(1, -1).clone())

    def forward(self, tokens):
        return self.token(tokens) + self.position(self.ids)


def test_embedding_of_constants(check):
    carry(check, Positions().eval(), torch.randint(0, 7, (2, 5)))


class Tied(nn.Module):
    """A table that is looked up and multiplied with, as in GPT."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)

    def forward(self, tokens):
        return nn.functional.linear(self.table(tokens), self.table.weight)


def test_embedding_of_a_table_that_flows():
    module, tokens = Tied().eval(), torch.randint(0, 7, (2, 5))
    model = bridge.to_keras(module, (tokens,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed


ROW, COLUMN = np.array([3, -1, 0]), np.array([0, 4, 2])  # side by side
APART = (ROW[:, None], COLUMN[:2])


@pytest.mark.parametrize("shape, before", [((2, 4, 5), 2), ((4, 5, 3), 1)], ids=str)
@pytest.mark.parametrize(
    "i, j", [(ROW, COLUMN), APART, (APART[1][:, None] - 1, ROW + 1), (ROW[:, None], COLUMN[None])], ids=repr
)
def test_several_constants(check, shape, before, i, j):
    colons = (slice(None),) * before
    check.from_torch(Constant(lambda x, i, j: x[(*colons, i, j)], i, j), torch.randn(2, *shape))


def test_constants_apart(check):
    """Where the axes are no neighbours, what comes of them is first."""
    check.from_torch(Constant(lambda x, i, j: x[:, i, :, j].sum(0), ROW, COLUMN), torch.randn(2, 4, 3, 5))
    check.from_torch(Constant(lambda x, i, j: x[i, :, j], ROW % 2, COLUMN), torch.randn(2, 4, 5))
    check.from_torch(Constant(lambda x, i: x[:, i], torch.tensor([[1, 2]]).int()), torch.randn(2, 4, 5))


FLOWING = {
    "take": lambda x, i, j: x[:, i[0]],
    "take of rank 2": lambda x, i, j: x[:, i],
    "last axis": lambda x, i, j: x[..., i],
    "index_select": lambda x, i, j: x.index_select(2, i[1]),
    "rows": lambda x, i, j: nn.functional.embedding(i, x.mean(0)),
    "side by side": lambda x, i, j: x[:, i, j],
    "side by side at the end": lambda x, i, j: x[..., i, j],
    "along axes of their own": lambda x, i, j: x[:, i[0][:, None], j[1]],
    "in turned axes": lambda x, i, j: x[:, i[0], j[1][:, None]],
    "broadcast": lambda x, i, j: x[:, i, j[1]],
}


@pytest.mark.parametrize("name", FLOWING)
def test_flowing(check, name):
    generator = torch.Generator().manual_seed(0)
    rank = 4 if name in ("side by side", "broadcast", "last axis") else 3
    x = torch.randn(2, *(4, 5, 6)[-rank + 1 :], generator=generator)
    i, j = (torch.randint(-4, 4, (2, 3), generator=generator) for _ in range(2))
    i, j = (i.abs(), j.abs()) if name in ("index_select", "rows") else (i, j)

    class Fixed(Flowing):
        def forward(self, x, i, j):
            return super().forward(x, i, j)

    model = bridge.to_keras(Fixed(FLOWING[name]), (x, i, j), [{0}, set(), set()])
    want = Fixed(FLOWING[name])(x, i, j)
    have = np.asarray(model([check.to_last(x.numpy()), i.numpy(), j.numpy()]))
    np.testing.assert_array_equal(check.to_first(have), want.numpy())
    again = bridge.to_torch(model)
    assert torch.equal(again(x, i, j), want)
    check.same_graph(model, Fixed(FLOWING[name]), (x, i, j), [{0}, set(), set()])
    check.same_graph(model, again, (x, i, j), [{0}, set(), set()])


@pytest.mark.parametrize(
    "shape, axis, dtype", [((4, 3), 1, "int32"), ((4, 3, 5), -1, "int64"), ((3, 3, 4, 2), 3, "int32")], ids=str
)
def test_along_an_axis(shape, axis, dtype):
    x, i = keras.Input(shape, name="x"), keras.Input(shape, name="i", dtype=dtype)
    module = keras_both(keras.Model([x, i], ops.take_along_axis(x, i, axis=axis)))
    assert ("TakeAlongAxis(" in inspect.getsource(type(module))) == (dtype == "int32")


def test_along_an_axis_broadcasts():
    x, i = keras.Input((4, 3, 5), name="x"), keras.Input((2, 1, 5), name="i", dtype="int64")
    keras_both(keras.Model([x, i], ops.take_along_axis(x, i, axis=1)))


@pytest.mark.parametrize("shape, axis", [((2, 6, 2), 1), ((2, 3, 3), -1), ((2, 4, 3, 5), 2)], ids=str)
def test_gather_of_torch(check, shape, axis):
    x, generator = torch.randn(2, *(4, 3, 6)[: len(shape) - 1]), torch.Generator().manual_seed(0)
    carry(check, Flowing(lambda x, i: x.gather(axis, i)), x, torch.randint(0, 2, shape, generator=generator))


def test_take_along_dim_of_torch(check):
    x, i = torch.randn(2, 4, 3), torch.randint(-4, 4, (2, 5, 1))
    carry(check, Flowing(lambda x, i: torch.take_along_dim(x, i, 1)), x, i)


@pytest.mark.parametrize("axis, dtype", [(1, "int64"), (-1, "int32")])
def test_take_with_a_tensor(axis, dtype):
    x, i = keras.Input((5, 4, 3), name="x"), keras.Input(batch_shape=(2, 3), name="i", dtype=dtype)
    keras_both(keras.Model([x, i], layers.Dense(2)(ops.take(x, i, axis=axis))))


class MaskedPatches(nn.Module):
    """Some patches of an image in another order, as in a masked autoencoder."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 8, 2, stride=2), nn.Linear(8, 4)

    def forward(self, image, keep):
        x = self.embed(image).flatten(2).transpose(1, 2)  # (B, N, C)
        x = torch.gather(x, 1, keep.unsqueeze(-1).repeat(1, 1, 8))
        return self.head(x)


def test_network(check):
    torch.manual_seed(0)
    module, tensors = MaskedPatches().eval(), (torch.randn(2, 3, 6, 8), torch.randint(0, 12, (2, 5)))
    model = bridge.to_keras(module, tensors)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize(
    "function, index, text",
    [
        (lambda x, i: x[:, i], [True, False, True, True], "a mask says, as many as that has; use torch.where"),
        (lambda x, i: x[:, i], [0, 4], "run from 0 to 4, the axis has 4 cells"),
    ],
)
def test_refusals_of_constants(function, index, text):
    x = torch.randn(2, 4) if isinstance(index[0], list) else torch.randn(2, 4, 3)
    if index == [0, 4]:
        module, x = Constant(lambda x, i: x[:, i], [0, 3]), torch.randn(2, 4, 3)
        module.index0 = torch.tensor([0, 3])
        model_input = keras.Input((4, 3))
        with pytest.raises(bridge.BridgeError, match=text):
            bridge.to_torch(keras.Model(model_input, ops.take(model_input, index, axis=1)))
        return
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(Constant(function, torch.tensor(index)), (x,))


def test_refusals():
    x, i = torch.randn(2, 4, 3), torch.randint(0, 2, (2, 4, 3))
    with pytest.raises(bridge.BridgeError, match="a mask says, as many as that has"):
        bridge.to_keras(Flowing(lambda x, i: x[i]), (x, i > 0))
    with pytest.raises(bridge.BridgeError, match="the flattened tensor, the batch along; give it a dim"):
        bridge.to_keras(Flowing(lambda x, i: torch.take_along_dim(x, i)), (x, i))
    with pytest.raises(bridge.BridgeError, match="the first of several indices is of an axis of an open size"):
        bridge.to_keras(
            Flowing(lambda x, i, j: x[i, j]), (x, torch.tensor([0, 1]), torch.tensor([1, 1])), [{0}, {}, {}]
        )
    x = keras.Input((5, 3), name="x")
    with pytest.raises(bridge.BridgeError, match="the flattened tensor, the batch along; give it an axis"):
        bridge.to_torch(keras.Model(x, ops.take(x, [0, 1])))
    i = keras.Input((2,), name="i", dtype="int32")
    with pytest.raises(bridge.BridgeError, match="it looks up a constant; use an Embedding"):
        bridge.to_torch(keras.Model(i, ops.take(np.eye(3, dtype="float32"), i, axis=0)))
