"""Open sizes in the `call` of layers without a rule."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops


class Mine(layers.Layer):
    """A layer of a function of its own; `token` is a weight of one row, `table` one of many."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.function = function

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.table = self.add_weight(shape=(1, 50, shape[-1]), name="table")
        self.dense = layers.Dense(12, name="dense")
        self.dense.build((*shape[:-1], shape[-1]))

    def call(self, x):
        weights = ops.sum(self.token) + ops.sum(self.table[:, 0]) + ops.sum(self.dense(x[:, :1]))
        return self.function(self, x) + 0.1 * weights

    def get_config(self):
        return super().get_config() | {"function": self.function}


def token(self, x):
    return ops.concatenate([ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1])), x], axis=1)


def tiled(self, x):
    return ops.concatenate([ops.tile(self.token, (ops.shape(x)[0], 1, 1)), x], axis=1)


def repeated(self, x):
    return ops.concatenate([ops.repeat(self.token, ops.shape(x)[0], axis=0), x], axis=1)


def table(self, x):
    return x + self.table[:, : ops.shape(x)[1]]


def taken(self, x):
    return x + ops.take(self.table[0], ops.arange(ops.shape(x)[1]), axis=0)


def heads(self, x):
    batch, length, _ = ops.shape(x)
    q = ops.transpose(ops.reshape(self.dense(x), (batch, length, 3, 4)), (0, 2, 1, 3))
    k = ops.transpose(ops.reshape(self.dense(x * 2), (batch, -1, 3, 4)), (0, 2, 3, 1))
    y = ops.matmul(ops.softmax(ops.matmul(q, k) / 2), q)
    return ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (batch, length, 12))


def rows(self, x):
    batch, length, width = ops.shape(x)
    y = ops.reshape(x, (batch * length, width))
    y = y - ops.mean(y, axis=-1, keepdims=True)
    return ops.reshape(y, (batch, length, width)) / ops.cast(length, "float32")


def joined(self, x):
    batch = ops.shape(x)[0]
    return ops.concatenate([x, ops.zeros((batch, 2, 6)), ops.full((batch, 1, 6), 0.5), ops.ones((batch, 1, 6))], axis=1)


def causal(self, x):
    at = ops.arange(ops.shape(x)[1])
    return ops.matmul(ops.cast(at[:, None] >= at, x.dtype), x)


def halves(self, x):
    half = ops.shape(x)[1] // 2
    return ops.mean(x[:, :half], axis=1) - ops.mean(x[:, half:], axis=1)


def patches(self, x):
    batch, height, width, channels = ops.shape(x)
    x = ops.reshape(x, (batch, height // 2, 2, width // 2, 2, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch, -1, 4 * channels))


def quantised(self, x):
    """The nearest row of a table, each cell of a picture by itself: a product of three open sizes."""
    rows = ops.reshape(x, (-1, 6))
    distances = ops.sum(rows**2, axis=1, keepdims=True) - 2 * ops.matmul(rows, ops.transpose(self.table[0]))
    nearest = ops.one_hot(ops.argmin(distances + ops.sum(self.table[0] ** 2, axis=1), axis=1), 50)
    made = x + ops.stop_gradient(ops.reshape(ops.matmul(nearest, self.table[0]), ops.shape(x)) - x)
    return ops.reshape(made, (ops.shape(x)[0], -1, 6))


CASES = [
    *((f, (5, 6)) for f in (token, tiled, repeated, table, taken, heads, rows, joined, causal)),
    *((f, (None, 6)) for f in (token, repeated, table, taken, heads, rows, joined, causal, halves)),
    (patches, (6, 8, 3)),
    (quantised, (None, None, 6)),
]


@pytest.mark.parametrize("function, shape", CASES, ids=[f"{f.__name__}-{shape[0]}" for f, shape in CASES])
def test_both_ways(check, function, shape):
    x = keras.Input(shape, name="x")
    with keras.utils.CustomObjectScope({"Mine": Mine}):
        model = check.randomise(keras.Model(x, layers.Dense(3, name="head")(Mine(function)(x))))
        module = bridge.to_torch(model)
        report = bridge.verify(model, module)
    assert report.passed, str(report)
    size = [7 if n is None else n for n in shape]  # another than the one that was compared
    given = torch.randn(3, size[-1], *size[:-1]) if len(size) == 3 else torch.randn(3, *size)
    last = np.moveaxis(given.numpy(), 1, -1) if len(size) == 3 else given.numpy()
    np.testing.assert_allclose(module(given).detach(), model(last), rtol=1e-4, atol=1e-5)
    again = bridge.to_keras(module, (given,))
    np.testing.assert_allclose(again(last), model(last), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["MultiHeadAttention", "Attention"])
def test_causal_attention_of_an_open_length(check, kind):
    x = keras.Input((None, 6), name="x")
    if kind == "Attention":
        y = layers.Attention()([x, x], use_causal_mask=True)
    else:
        y = layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    model = check.randomise(keras.Model(x, y))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


def test_a_size_of_which_no_part_is_known_is_refused(check):
    x = keras.Input((None, 6), name="x")
    y = Mine(lambda self, x: ops.repeat(x, ops.shape(x)[1], axis=2))(x)
    with pytest.raises(bridge.BridgeError, match="it repeats cells as often as an open size says"):
        bridge.to_torch(keras.Model(x, y))


def test_keras_is_as_it_was(check):
    before = keras.ops.shape, keras.ops.reshape, keras.KerasTensor.__getitem__
    x = keras.Input((None, 6), name="x")
    bridge.to_torch(keras.Model(x, Mine(table)(x)))
    assert before == (keras.ops.shape, keras.ops.reshape, keras.KerasTensor.__getitem__)


def coordinates(shape):
    return np.linspace(-1, 1, 10, dtype="float32").reshape(shape)


CONSTANTS = {
    "tiled": lambda self, x: ops.tile(coordinates((1, 5, 2)), (ops.shape(x)[0], 1, 1)),
    "repeated": lambda self, x: ops.repeat(ops.ones((1, 5, 2)), ops.shape(x)[0], axis=0),
    "broadcast": lambda self, x: ops.broadcast_to(coordinates((5, 2)), (ops.shape(x)[0], 5, 2)),
    "several": lambda self, x: sum(ops.tile(i * coordinates((1, 5, 2)), (ops.shape(x)[0], 1, 1)) for i in (1, 2, 1)),
    "whole numbers": lambda self, x: ops.cast(
        ops.tile(ops.reshape(ops.arange(10), (1, 5, 2)), (ops.shape(x)[0], 1, 1)), x.dtype
    ),
}


@pytest.mark.parametrize("name, training", [*((name, False) for name in CONSTANTS), ("several", True)])
def test_a_constant_for_each_example(check, name, training):
    """It is held as a weight that nothing trains; one in both modes, where a call has a mode."""

    def call(self, x):
        return ops.concatenate([x, CONSTANTS[name](self, x)], axis=-1)

    x = keras.Input((5, 6), name="x")
    y = (InMode if training else Mine)(call, name="m")(x)
    model = check.randomise(keras.Model(x, layers.Dense(3, name="head")(y)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    frozen = [n for n, p in module.state_dict(keep_vars=True).items() if "constant" in n and not p.requires_grad]
    assert len(frozen) == (2 if name == "several" else 1) + training
    if not training:  # which torch's eval mode does not show
        report = bridge.verify(bridge.to_keras(module, (torch.randn(2, 5, 6),)), module)
        assert report.passed, str(report)


class InMode(Mine):
    """Another one in training, and one more constant."""

    def call(self, x, training=False):
        return super().call(x + ops.tile(ops.ones((1, 5, 6)), (ops.shape(x)[0], 1, 1)) if training else x)


def test_a_number_is_a_float32_as_in_keras(check):
    def call(self, x):
        return ops.concatenate([x, ops.broadcast_to(0.5, (ops.shape(x)[0], 2))], -1)

    x = keras.Input((6,), name="x")
    model = keras.Model(x, Whole(call)(x))
    module = bridge.to_torch(model)
    assert module(torch.ones(3, 6)).dtype == torch.float32
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_a_constant_that_float32_cannot_hold_is_refused():
    def call(self, x):
        return x + ops.cast(ops.tile(ops.convert_to_tensor([[2**24 + 1]]), (ops.shape(x)[0], 1)), x.dtype)

    x = keras.Input((6,), name="x")
    with pytest.raises(bridge.BridgeError, match="it repeats int32 as often as an open size says, beyond float32"):
        bridge.to_torch(keras.Model(x, Whole(call)(x)))


class Whole(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(self, x)


@pytest.mark.parametrize("at", [0, -1])
def test_one_step_of_an_open_length(at):
    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.out = torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.out(x[:, at])

    module = Head().eval()
    model = bridge.to_keras(module, (torch.randn(2, 5, 8),), [{0, 1}])
    report = bridge.verify(model, module)
    assert report.passed, str(report)


class Patches(layers.Layer):
    """Patches of a picture as one row each."""

    def call(self, x):
        batch, height, width, channels = ops.shape(x)
        x = ops.reshape(x, (batch, height // 2, 2, width // 2, 2, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch, height * width // 4, 4 * channels))


def test_sizes_are_the_same_wherever_they_are_read(check):
    x = keras.Input((8, 6, 3), name="x")
    y = layers.Dense(6, name="embedded")(Patches(name="patches")(x))
    model = check.randomise(keras.Model(x, Mine(token, name="token")(y)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


class Places(layers.Layer):
    """Words and their places, each of a table."""

    def build(self, shape):
        self.words, self.places = layers.Embedding(20, 6, name="words"), layers.Embedding(50, 6, name="places")
        for part in (self.words, self.places):
            part.build(shape)

    def call(self, x):
        return self.words(x) + self.places(ops.arange(0, ops.shape(x)[-1], 1))


def test_what_is_run_is_what_was_read(check):
    x = keras.Input((None,), dtype="int32", name="x")
    model = check.randomise(keras.Model(x, Places(name="own")(x)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)
    assert len(report.layers) > 2 and len(report.gradients) == 2


class Neighbours(layers.Layer):
    """Attention along the edges of a graph, whose matrix has sizes of its own."""

    def call(self, given):
        x, edges = given
        scores = ops.where(edges[..., None] > 0, x[:, :, None] + x[:, None], -1e9)
        y = ops.einsum("bijh,bjh->bih", ops.softmax(scores, axis=2), x)
        return ops.reshape(y, (ops.shape(y)[0], ops.shape(y)[1], 4))


def test_a_reshape_has_the_sizes_that_it_asks_for(check):
    x, edges = keras.Input((None, 4), name="x"), keras.Input((None, None), name="edges")
    model = check.randomise(keras.Model([x, edges], layers.Dense(3, name="d")(Neighbours()([x, edges]))))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)
