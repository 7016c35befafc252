"""The masks of Keras as tensors that flow."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, walk

layers, ops = keras.layers, keras.ops


def words():
    return keras.Input((7,), dtype="int32", name="words")


def embedded(x):
    return layers.Dense(6, name="d")(layers.Embedding(11, 6, mask_zero=True, name="e")(x))


def attended(h):
    return layers.MultiHeadAttention(2, 3, name="m")(h, h)


def after_attention(h):
    """It takes the mask of its query away, and hangs it on what it makes."""
    return layers.Maximum(name="largest")([attended(h), h])


NETWORKS = {
    "attention": attended,
    "after attention": after_attention,
    "causal": lambda h: layers.MultiHeadAttention(2, 3)(h, h, use_causal_mask=True),
    "mean": lambda h: layers.GlobalAveragePooling1D()(layers.Dropout(0.1)(h)),
    "product": lambda h: layers.Multiply()([h, layers.Dense(6)(h)]),
    "sum": lambda h: layers.GlobalAveragePooling1D()(layers.Add()([h, layers.Dense(6)(h)])),
    "plain attention": lambda h: layers.Attention()([h, h]),
    "additive": lambda h: layers.AdditiveAttention()([h, h]),
    "nested": lambda h: keras.Sequential(
        [keras.Input((7, 6)), layers.Dense(4), layers.GlobalAveragePooling1D()], name="nested"
    )(h),
    "normalised": lambda h: layers.GlobalAveragePooling1D()(layers.BatchNormalization()(h)),
    "masking": lambda h: layers.GlobalAveragePooling1D()(layers.Masking(0.0)(layers.ReLU()(h))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(check, name):
    x = words()
    model = check.randomise(keras.Model(x, layers.Dense(3, name="head")(NETWORKS[name](embedded(x)))))
    module = bridge.to_torch(model)
    given = np.random.default_rng(0).integers(0, 11, (3, 7)).astype("int32")
    given[:, 5:] = 0
    given[0, :3] = 0
    report = bridge.verify(model, module, given)
    assert report.passed, str(report)
    other = np.where(given == 0, 4, given)  # with nothing masked it is another network
    assert check.relative(module(torch.from_numpy(given)).detach(), model(other)) > 1e-3
    again = bridge.to_keras(module, (torch.from_numpy(given),))
    np.testing.assert_allclose(again(given), model(given), rtol=1e-4, atol=1e-5)


def test_a_mask_that_nothing_takes_is_not_made():
    x = words()
    graph = keras_reader.read(keras.Model(x, layers.Dense(2)(layers.Flatten()(embedded(x)))))
    assert "comparison" not in [n.operator for n in graph.nodes]


def test_the_walk_is_what_keras_does():
    x = words()
    model = keras.Model(x, [after_attention(h := embedded(x)), layers.GlobalAveragePooling1D()(h)])
    given = np.array([[1, 2, 0, 3, 0, 0, 0], [4, 0, 0, 0, 0, 5, 6]], "int32")
    for have, want in zip(walk.run(model, [given])[0], model(given), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-7)


def test_a_mask_that_is_given(check):
    x, mask = keras.Input((7, 6), name="x"), keras.Input((7,), dtype="bool", name="mask")
    model = check.randomise(keras.Model([x, mask], layers.GlobalAveragePooling1D()(layers.Dense(4)(x), mask=mask)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


HEADS = {
    "mean": lambda x: ops.mean(x, axis=1),
    "another layer": lambda x: layers.LSTM(3, name="second")(ops.tanh(x)),
    "softmax": lambda x: ops.sum(ops.softmax(layers.Dense(1, name="score")(x), axis=1) * x, axis=1),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_mask_ends_where_a_function_reads_on(check, name):
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.Embedding(20, 6, mask_zero=True, name="table")(words)
    x = layers.LSTM(5, return_sequences=True, name="first")(x)
    model = check.randomise(keras.Model(words, HEADS[name](x)))
    module = bridge.to_torch(model)
    given = torch.tensor([[3, 4, 5, 0, 0], [6, 0, 0, 0, 0], [1, 2, 3, 4, 5]], dtype=torch.int32)
    again = bridge.to_keras(module, (given,), [{0, 1}])
    np.testing.assert_allclose(again(given.numpy()), model(given.numpy()), rtol=1e-4, atol=1e-5)
    report = bridge.verify(again, module)
    assert report.passed, str(report)


class Pooled(layers.Layer):
    """The mean of what is not masked, of any length."""

    supports_masking = True

    def call(self, x, mask=None):
        given = ops.expand_dims(ops.cast(mask, x.dtype), -1)
        rows = ops.reshape(x * given, (ops.shape(x)[0], -1, 6))
        return ops.sum(rows, axis=1) / ops.maximum(ops.sum(given, axis=1), 1.0)

    def compute_mask(self, x, mask=None):
        return None


def test_a_mask_has_the_open_sizes_of_what_it_masks(check):
    words = keras.Input((None,), dtype="int32", name="words")
    x = layers.Embedding(20, 6, mask_zero=True, name="table")(words)
    x = layers.TimeDistributed(keras.Sequential([layers.Input((6,)), layers.Dense(6, name="d")], name="n"), name="t")(x)
    model = check.randomise(keras.Model(words, Pooled(name="pool")(x)))
    given = np.array([[3, 4, 5, 0, 0], [6, 0, 0, 0, 0], [1, 2, 3, 4, 5]], "int32")
    report = bridge.verify(model, bridge.to_torch(model), inputs=[given])
    assert report.passed, str(report)
