"""Networks of sequences and of layers of one's own, as people write them in Keras: carried, verified, and back."""

import keras
import numpy as np
import pytest

import bridge

layers, ops = keras.layers, keras.ops


def classifier():
    """Words with padding, read in both directions, attended to and pooled."""
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.Embedding(30, 8, mask_zero=True, name="words_of")(words)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both")(x)
    x = layers.LayerNormalization(name="norm")(x + layers.MultiHeadAttention(2, 5, dropout=0.1, name="attention")(x, x))
    x = layers.TimeDistributed(layers.Dense(6, activation="relu", name="inner"), name="each")(x)
    x = layers.Dropout(0.2, name="drop")(layers.GlobalAveragePooling1D(name="pool")(x))
    return keras.Model(words, layers.Dense(3, activation="softmax", name="head")(x))


def translation():
    """An encoder whose states a decoder begins with, and attention between them (Bahdanau et al., 2015)."""
    source, target = (keras.Input((None,), dtype="int32", name=n) for n in ("source", "target"))
    x, *states = layers.LSTM(6, return_sequences=True, return_state=True, name="encoder")(
        layers.Embedding(20, 6, mask_zero=True, name="source_words")(source)
    )
    y = layers.Embedding(25, 6, mask_zero=True, name="target_words")(target)
    y = layers.LSTM(6, return_sequences=True, name="decoder")(y, initial_state=states)
    y = layers.Concatenate(name="both")([y, layers.AdditiveAttention(name="attention")([y, x])])
    return keras.Model([source, target], layers.TimeDistributed(layers.Dense(25), name="words")(y))


def conformer():
    """Half a feed-forward part, attention, a gated depthwise convolution (Gulati et al., 2020)."""

    def feed_forward(x, name):
        y = layers.Dense(16, activation="swish", name=f"{name}_in")(layers.LayerNormalization(name=f"{name}_norm")(x))
        return x + 0.5 * layers.Dropout(0.1, name=f"{name}_drop")(layers.Dense(8, name=f"{name}_out")(y))

    sound = keras.Input((None, 10), name="sound")
    x = layers.Conv1D(8, 3, strides=2, padding="same", activation="relu", name="stem")(sound)
    x = feed_forward(x, "first")
    y = layers.LayerNormalization(name="attention_norm")(x)
    x = x + layers.MultiHeadAttention(2, 4, name="attention")(y, y)
    y = layers.Conv1D(16, 1, name="pointwise")(layers.LayerNormalization(name="convolution_norm")(x))
    y = layers.DepthwiseConv1D(5, padding="same", name="depthwise")(ops.glu(y))
    y = layers.Activation("swish", name="swish")(layers.BatchNormalization(name="norm")(y))
    x = feed_forward(x + layers.Conv1D(8, 1, name="pointwise_out")(y), "second")
    return keras.Model(sound, layers.GRU(4, reset_after=False, name="head")(x))


class Basis(layers.Layer):
    """Backcast and forecast as polynomials of time (Oreshkin et al., 2020)."""

    def __init__(self, backward, forward, **options):
        super().__init__(**options)
        self.backward, self.forward = backward, forward

    def call(self, theta):
        powers = ops.expand_dims(ops.arange(theta.shape[-1], dtype="float32"), 1)
        back = ops.power(ops.arange(self.backward, dtype="float32") / self.backward, powers)
        ahead = ops.power(ops.arange(self.forward, dtype="float32") / self.forward, powers)
        return ops.matmul(theta, back), ops.matmul(theta, ahead)

    def get_config(self):
        return super().get_config() | {"backward": self.backward, "forward": self.forward}


def forecast():
    """N-BEATS: each block takes away what it explains, and adds to the forecast."""
    past = x = keras.Input((12,), name="past")
    total = 0.0
    for i in range(2):
        theta = layers.Dense(3, name=f"theta{i}")(layers.Dense(16, activation="relu", name=f"dense{i}")(x))
        back, ahead = Basis(12, 4, name=f"basis{i}")(theta)
        x, total = layers.Subtract(name=f"rest{i}")([x, back]), total + ahead
    return keras.Model(past, total)


class Standardised(layers.Layer):
    """A convolution whose kernel is standardised by output channel (Qiao et al., 2019)."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 6), name="kernel")
        self.gain = self.add_weight(shape=(6,), name="gain", initializer="ones")

    def call(self, x):
        mean, variance = ops.moments(self.kernel, axes=(0, 1, 2), keepdims=True)
        kernel = (self.kernel - mean) / ops.sqrt(variance + 1e-5) * self.gain
        return ops.conv(x, kernel, padding="same")


class Quantiser(layers.Layer):
    """The nearest code of each place, with the gradient of doing nothing (van den Oord et al., 2017)."""

    def build(self, shape):
        self.codes = self.add_weight(shape=(shape[-1], 7), name="codes", initializer="normal")

    def call(self, x):
        flat = ops.reshape(x, (-1, x.shape[-1]))
        distances = (
            ops.sum(flat**2, axis=1, keepdims=True) - 2 * ops.matmul(flat, self.codes) + ops.sum(self.codes**2, axis=0)
        )
        chosen = ops.one_hot(ops.argmin(distances, axis=1), 7)
        found = ops.reshape(ops.matmul(chosen, ops.transpose(self.codes)), ops.shape(x))
        return x + ops.stop_gradient(found - x)


class Sampler(layers.Layer):
    """A spatial transformer's sampler: the picture at the places that an affine map says (Jaderberg et al., 2015)."""

    def call(self, given):
        image, theta = given
        batch, height, width, channels = ops.shape(image)
        rows, columns = ops.linspace(-1.0, 1.0, height), ops.linspace(-1.0, 1.0, width)
        grid = ops.stack([*ops.meshgrid(columns, rows), ops.ones((height, width))], axis=-1)
        places = ops.einsum("hwk,bjk->bhwj", grid, ops.reshape(theta, (-1, 2, 3)))
        x = (places[..., 0] + 1) * (width - 1) / 2
        y = (places[..., 1] + 1) * (height - 1) / 2
        left, top = ops.floor(x), ops.floor(y)
        flat, total = ops.reshape(image, (batch, height * width, channels)), 0.0
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = ops.clip(left + dx, 0, width - 1), ops.clip(top + dy, 0, height - 1)
                weight = (1 - ops.abs(x - left - dx)) * (1 - ops.abs(y - top - dy))
                index = ops.reshape(ops.cast(row * width + column, "int32"), (batch, height * width, 1))
                cells = ops.take_along_axis(flat, index, axis=1)
                total = total + ops.reshape(cells, (batch, height, width, channels)) * ops.expand_dims(weight, -1)
        return total


def pictures():
    """A spatial transformer before a network of standardised convolutions with quantised features."""
    image = keras.Input((6, 5, 3), name="image")
    theta = layers.Dense(6, name="theta")(layers.Flatten(name="flat")(image))
    x = Sampler(name="sampler")([image, 0.1 * ops.tanh(theta) + np.array([1, 0, 0, 0, 1, 0], "float32")])
    x = layers.Activation("relu", name="relu")(Standardised(name="standardised")(x))
    x = Quantiser(name="quantiser")(layers.Conv2D(4, 1, name="narrow")(x))
    return keras.Model(image, layers.GlobalAveragePooling2D(name="pool")(x))


NETWORKS = (classifier, translation, conformer, forecast, pictures)


def given(model, seed=0):
    """Random inputs; of words with padding at their ends."""
    rng = np.random.default_rng(seed)
    found = []
    for x in model.inputs:
        shape = [3, *(7 if n is None else n for n in x.shape[1:])]
        array = rng.integers(1, 20, shape) if "int" in x.dtype else rng.normal(size=shape)
        if "int" in x.dtype:
            array[0, 5:], array[1, 2:] = 0, 0
        found.append(array.astype(x.dtype))
    return found


@pytest.mark.parametrize("make", NETWORKS)
def test_both_ways(check, make):
    model = check.randomise(make())
    module = bridge.to_torch(model)
    arrays = given(model)
    report = bridge.verify(model, module, inputs=arrays)
    assert report.passed, str(report)
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == sum(
        int(np.prod(w.shape)) for w in model.trainable_weights
    )
    assert not report.names or all(report.names.values())
