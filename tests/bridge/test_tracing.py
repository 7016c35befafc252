"""Layers that no rule knows, as the functions of keras.ops that they call."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import bridge

layers, ops = keras.layers, keras.ops


class Made(layers.Layer):
    """Masked autoencoder (Germain et al., 2015): a kernel of which a part is always zero."""

    def __init__(self, units=5, **options):
        super().__init__(**options)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias", initializer="normal")
        self.mask = np.triu(np.ones((shape[-1], self.units), "float32"))

    def call(self, x):
        return ops.matmul(x, self.kernel * self.mask) + self.bias


class MeanField(layers.Layer):
    """A kernel of a mean and of a part that is always above zero."""

    def build(self, shape):
        self.mu = self.add_weight(shape=(shape[-1], 4), name="mu")
        self.rho = [self.add_weight(shape=(shape[-1], 4), name="rho"), self.add_weight(shape=(), name="temperature")]

    def call(self, x):
        return ops.matmul(x, self.mu + 0.1 * ops.softplus(self.rho[0])) * self.rho[1]


class Block(layers.Layer):
    """A layer of layers, which pass on whether they are trained."""

    def __init__(self, units=6, **options):
        super().__init__(**options)
        self.units = units
        self.parts = [layers.Dense(units, name="first"), layers.Dropout(0.3, name="drop"), Made(units, name="last")]

    def build(self, shape):
        for part in self.parts[::2]:
            part.build((*shape[:-1], self.units))

    def call(self, x, training=None):
        y = self.parts[1](ops.silu(self.parts[0](x)), training=training)
        return x + self.parts[2](y)


class Attentive(keras.Model):
    """A subclassed model inside another."""

    def __init__(self, **options):
        super().__init__(**options)
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")
        self.norm = layers.LayerNormalization(name="norm")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.norm.build(shape)

    def call(self, x):
        return self.norm(x + self.attention(x, x, use_causal_mask=True))


LAYERS = {
    "made": (lambda: Made(), (6,)),
    "mean field": (lambda: MeanField(), (6,)),
    "block": (lambda: Block(), (6,)),
    "subclassed": (lambda: Attentive(), (5, 6)),
    "attention": (lambda: lambda x: layers.MultiHeadAttention(2, 3, output_shape=4)(x, x), (7, 6)),
    "scores": (
        lambda: lambda x: layers.MultiHeadAttention(2, 3, dropout=0.2)(x, x, return_attention_scores=True)[1],
        (7, 6),
    ),
    "grouped": (lambda: lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x), (7, 6)),
    "plain attention": (lambda: lambda x: layers.Attention(use_scale=True)([x, x * 2]), (7, 6)),
    "additive": (lambda: lambda x: layers.AdditiveAttention()([x, x * 2]), (7, 6)),
    "lambda": (lambda: layers.Lambda(lambda x: ops.tanh(x) * 2), (6,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_both_ways(check, name):
    make, shape = LAYERS[name]
    x = keras.Input(shape, name="x")
    model = check.randomise(keras.Model(x, layers.Dense(3, name="head")(make()(x))))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    have = sum(p.numel() for p in module.parameters() if p.requires_grad)
    want = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert have == want or name == "scores"  # to which the values do not lead
    x = torch.randn(2, *shape)
    again = bridge.to_keras(module, (x,))
    np.testing.assert_allclose(again(x.numpy()), model(x.numpy()), rtol=1e-4, atol=1e-5)


def test_weights_keep_their_names(check):
    x = keras.Input((6,), name="x")
    model = check.randomise(keras.Model(x, Block(name="b")(x)))
    names = set(dict(bridge.to_torch(model).named_parameters()))
    assert {"b.first.weight", "b.first.bias", "b.last.kernel", "b.last.bias"} <= names


def test_a_wrong_mask_is_told(check):
    x = keras.Input((6,), name="x")
    model = check.randomise(keras.Model(x, Made(name="m")(x)))
    module = bridge.to_torch(model)
    held = next(p for n, p in module.named_parameters() if not p.requires_grad)
    with torch.no_grad():
        held.copy_(1 - held)
    assert not bridge.verify(model, module).passed


def layer(call, **weights):
    def build(self, shape):
        for name, size in weights.items():
            setattr(self, name, self.add_weight(shape=size, name=name, initializer="ones"))

    kept = {"call": call, "build": build, "compute_output_shape": lambda self, shape: shape}
    return type("Mine", (layers.Layer,), kept)(name="mine")


def counts(self, x):
    self.seen.assign_add(1.0)
    return x


def hides(self, x):
    return x * float(np.sum(self.kernel)) if isinstance(self.kernel, keras.Variable) else x


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: layer(lambda self, x: tf.abs(x)), "its call cannot be followed"),
        (lambda: layer(lambda self, x: x if x[0, 0] > 0 else -x), "its call cannot be followed"),
        (lambda: layer(counts, seen=()), "it assigns to a variable"),
        (lambda: layer(hides, kernel=(6,)), r"does not compute with its weights .*kernel by keras.ops"),
        (lambda: layer(lambda self, x: ops.ones((2, 6))), "returns something that is no tensor computed from its inp"),
    ],
)
def test_what_is_refused(make, text):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(2)(make()(x)))
    with pytest.raises(bridge.BridgeError, match=rf"mine \(Mine\): .*{text}"):
        bridge.to_torch(model)


class Unrolled(layers.Layer):
    """A cell that is called at each step: its weights are one."""

    def build(self, shape):
        self.cell = layers.GRUCell(4, name="cell")
        self.cell.build((shape[0], shape[-1]))

    def call(self, x):
        states = [ops.zeros((ops.shape(x)[0], 4))]
        for step in range(x.shape[1]):
            y, states = self.cell(x[:, step], states)
        return y


def test_one_layer_called_several_times(check):
    x = keras.Input((3, 5), name="x")
    model = check.randomise(keras.Model(x, layers.Dense(2, name="head")(Unrolled(name="own")(x))))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    have = sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert have == sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize("tied", [True, False])
def test_a_layer_that_is_called_in_two_ways(check, tied):
    """Each call of an embedding and its reverse reads one of its weights; together they show all."""
    ids = keras.Input((5,), dtype="int32", name="ids")
    embedding = layers.ReversibleEmbedding(9, 4, tie_weights=tied, name="e")
    x = layers.Dense(4, name="d")(embedding(ids))
    model = check.randomise(keras.Model(ids, embedding(x, reverse=True)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    again = bridge.to_keras(module, (torch.randint(9, (2, 5)),))
    assert bridge.verify(again, module).passed
    if not tied:
        with pytest.raises(bridge.BridgeError, match=r"does not compute with its weights .*reverse_embeddings"):
            bridge.to_torch(keras.Model(ids, x))


def test_what_another_layer_shows_is_its_own():
    """A layer that takes numbers out of another one is refused, though that one is called elsewhere."""

    class Reader(layers.Layer):
        def __init__(self, other):
            super().__init__(name="reader")
            self.other = other

        def call(self, x):
            return x * float(np.sum(self.other.kernel))

        def compute_output_shape(self, shape):
            return shape

    x = keras.Input((6,), name="x")
    dense = layers.Dense(6, name="dense")
    y = dense(x)
    with pytest.raises(
        bridge.BridgeError, match=r"reader \(Reader\): .*it asks for the numbers of a tensor or a weight"
    ):
        bridge.to_torch(keras.Model(x, Reader(dense)(y)))


class Tied(layers.Layer):
    """What computes with the kernel of another layer."""

    def __init__(self, other, function):
        super().__init__(name="tied")
        self.other, self.function = other, function

    def call(self, x):
        return self.function(x, self.other.kernel)


def test_the_kernel_of_another_layer(check):
    """It is one weight in both, whichever of the two comes first."""
    x = keras.Input((6, 7, 3), name="x")
    conv = layers.Conv2D(4, 3, use_bias=False, name="c")
    y = conv(x)
    model = check.randomise(keras.Model(x, [y, Tied(conv, lambda x, k: ops.conv(x, k, padding="same"))(x)]))
    module = bridge.to_torch(model)
    assert len(list(module.parameters())) == 1
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_the_kernel_of_a_dense_layer_is_refused():
    """torch has its axes in another order there."""
    x = keras.Input((3,), name="x")
    dense = layers.Dense(4, use_bias=False, name="d")
    y = dense(x)
    with pytest.raises(bridge.BridgeError, match="is also another layer's, with its axes in another order"):
        bridge.to_torch(keras.Model(x, [y, Tied(dense, ops.matmul)(x)]))


class Head(layers.Layer):
    """A table of words that is the head, too, whatever is made of it first."""

    def __init__(self, function, **options):
        super().__init__(**options)
        self.words, self.function = layers.Embedding(9, 4, name="words"), function

    def build(self, shape):
        self.words.build(shape)
        self.built = True

    def call(self, ids):
        return self.function(self, self.words(ids), self.words.embeddings)


HEADS = {
    "as it is": lambda self, x, table: ops.einsum("btd,vd->btv", x, table),
    "transposed": lambda self, x, table: ops.matmul(x, ops.transpose(table)),
    "scaled": lambda self, x, table: ops.matmul(x, ops.transpose(table * 0.5)),
    "for each example": lambda self, x, table: ops.matmul(
        x, ops.transpose(ops.tile(table[None], (ops.shape(x)[0], 1, 1)), (0, 2, 1))
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_weight_of_a_layer_inside_is_trained_wherever_it_is_read(check, name):
    """By Keras' own gradient: `verify` goes through the same trace as the module was made of."""
    ids = keras.Input((5,), dtype="int32", name="ids")
    model = check.randomise(keras.Model(ids, Head(HEADS[name], name="head")(ids)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    given = np.random.default_rng(0).integers(0, 9, (3, 5)).astype("int32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(given) ** 2)
    want = tf.convert_to_tensor(tape.gradient(loss, model.trainable_weights[0].value))
    module(torch.from_numpy(given)).square().sum().backward()
    (weight,) = module.parameters()
    np.testing.assert_allclose(weight.grad, want, rtol=1e-4, atol=1e-5)


class Positions(layers.Layer):
    """keras.io's TokenAndPositionEmbedding: of a fixed length the positions are a constant."""

    def __init__(self):
        super().__init__(name="p")
        self.words, self.places = layers.Embedding(9, 4, name="words"), layers.Embedding(7, 4, name="places")

    def call(self, x):
        return self.words(x) + self.places(ops.arange(0, ops.shape(x)[-1], 1))


@pytest.mark.parametrize("length", [5, 7])
def test_a_layer_inside_may_be_called_with_a_constant(check, length):
    ids = keras.Input((length,), dtype="int32", name="ids")
    model = check.randomise(keras.Model(ids, layers.Dense(3, name="d")(Positions()(ids))))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    given = np.random.default_rng(0).integers(0, 9, (3, length)).astype("int32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(given) ** 2)
    want = {
        w.path: g
        for w, g in zip(
            model.trainable_weights, tape.gradient(loss, [v.value for v in model.trainable_weights]), strict=True
        )
    }
    module(torch.from_numpy(given)).square().sum().backward()
    (name,) = [n for n, _ in module.named_parameters() if "places" in n]
    (key,) = [k for k in want if "places" in k]
    np.testing.assert_allclose(module.get_parameter(name).grad, tf.convert_to_tensor(want[key]), rtol=1e-4, atol=1e-5)
    again = bridge.to_keras(module, (torch.from_numpy(given),))
    report = bridge.verify(again, module)
    assert report.passed, str(report)


class Latent(layers.Layer):
    """A Dense of a weight and of the input."""

    def build(self, shape):
        self.dense = layers.Dense(4, name="dense")
        self.dense.build(shape)
        self.latent = self.add_weight(shape=(1, 3, 8), name="latent")

    def call(self, x):
        return self.dense(self.latent) + self.dense(x)


def test_a_layer_may_be_given_a_weight(check):
    x = keras.Input((3, 8), name="x")
    model = check.randomise(keras.Model(x, Latent(name="p")(x)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    report = bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 8),)), module)
    assert report.passed, str(report)
