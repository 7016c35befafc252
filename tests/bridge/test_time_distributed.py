"""TimeDistributed: the layer inside for each step."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers

CASES = {
    "dense": (lambda: layers.Dense(4, activation="relu"), (5, 6)),
    "dense, open": (lambda: layers.Dense(4), (None, 6)),
    "convolution": (lambda: layers.Conv2D(2, 3), (3, 5, 4, 2)),
    "convolution, open": (lambda: layers.Conv2D(2, 3), (None, 5, 4, 2)),
    "flat": (lambda: layers.Flatten(), (3, 2, 4)),
    "recurrent": (lambda: layers.GRU(3), (3, 4, 2)),
    "network": (lambda: keras.Sequential([layers.Input((6,)), layers.Dense(3), layers.Dropout(0.2)]), (5, 6)),
    "picture of a norm": (lambda: layers.LayerNormalization(), (3, 4, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_carried(check, name):
    make, shape = CASES[name]
    x = keras.Input(shape, name="x")
    model = check.randomise(keras.Model(x, layers.TimeDistributed(make(), name="each")(x)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


def test_masks_of_steps(check):
    words = keras.Input((3, 4), dtype="int32", name="words")
    x = layers.Embedding(9, 5, mask_zero=True, name="table")(words)
    model = check.randomise(keras.Model(words, layers.TimeDistributed(layers.LSTM(3), name="each")(x)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


def convolutions():
    inside = [layers.Conv2D(3, 3, name="c"), layers.BatchNormalization(name="n", momentum=0.8), layers.ReLU(name="r")]
    return keras.Sequential([layers.Input((5, 4, 2)), *inside, layers.GlobalAveragePooling2D(name="g")], name="frame")


class Own(layers.Layer):
    """A layer of one's own with a normalisation inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norm = layers.BatchNormalization(name="n", momentum=0.8)

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return keras.ops.tanh(self.norm(x))

    def compute_output_shape(self, shape):
        return shape


def divided():
    return layers.SpectralNormalization(layers.Conv2D(2, 3, name="inner"), name="n")


EACH = {
    "norm": (lambda: layers.BatchNormalization(name="n", momentum=0.8), (4, 5)),
    "axis": (lambda: layers.BatchNormalization(name="n", momentum=0.8, axis=1, scale=False), (3, 4, 5)),
    "one step": (lambda: layers.BatchNormalization(name="n", momentum=0.8), (1, 5)),
    "convolutions": (convolutions, (3, 5, 4, 2)),
    "one's own": (lambda: Own(name="own"), (3, 4)),
    "divided kernel": (divided, (3, 5, 4, 2)),
}


def trained(check, model, module, given):
    """One step of training on each side: what comes out, and the new statistics, are those of Keras' own run."""
    want = model(given, training=True)
    have = module.train()(*(torch.from_numpy(check.to_first(x)) for x in given)).detach().numpy()
    assert check.relative(check.to_last(have), want) < 1e-4
    there = {k: v for k, v in module.state_dict().items() if k.endswith(("running_mean", "running_var", "vector_u"))}
    assert len(there) == len(model.non_trainable_weights)
    for (name, value), kept in zip(there.items(), model.non_trainable_weights, strict=True):
        np.testing.assert_allclose(value.numpy(), np.asarray(kept), rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", EACH)
def test_what_a_step_of_training_changes(check, name):
    """It changes once for each step, from the first to the last, by that step's own examples."""
    make, shape = EACH[name]
    x = keras.Input(shape, name="x")
    model = check.randomise(keras.Model(x, layers.TimeDistributed(make(), name="each")(x)))
    module = bridge.to_torch(model, exact_training=True)
    given = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    given += np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))  # the order of the steps matters
    report = bridge.verify(model, module, [given])
    assert report.passed, str(report)
    again = bridge.to_keras(module, (torch.from_numpy(check.to_first(given)),))
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    report = bridge.verify(again, module, [given])
    assert report.passed, str(report)
    trained(check, model, module, [given])
    again(given, training=True)
    for a, b in zip(model.non_trainable_weights, again.non_trainable_weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_mask_of_steps_in_their_statistics(check):
    x = keras.Input((4, 5), name="x")
    norm = layers.TimeDistributed(layers.BatchNormalization(name="n", momentum=0.8), name="each")
    y = layers.LSTM(3, name="last")(norm(layers.Masking(0.0, name="masking")(x)))
    model, given = check.randomise(keras.Model(x, y)), np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    given[0, 1:] = given[1, 3:] = 0
    module = bridge.to_torch(model)
    report = bridge.verify(model, module, [given])
    assert report.passed, str(report)
    trained(check, model, module, [given])


def test_training_as_fit_does(check):
    """Three steps of `fit` leave the statistics that three steps in torch leave, at a rate of 0."""
    x = keras.Input((3, 5, 4, 2), name="x")
    model = check.randomise(keras.Model(x, layers.TimeDistributed(convolutions(), name="each")(x)))
    module = bridge.to_torch(model, exact_training=True).train()
    given = np.random.default_rng(0).normal(size=(6, 3, 5, 4, 2)).astype("float32")
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(given, np.zeros((6, 3, 3)), batch_size=2, shuffle=False, verbose=0)
    for part in np.split(given, 3):
        module(torch.from_numpy(check.to_first(part)))
    norm = module.get_submodule("each.frame.n")
    np.testing.assert_allclose(norm.running_mean, model.non_trainable_weights[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(norm.running_var, model.non_trainable_weights[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [3, None])
def test_frozen_statistics_are_those_of_all_steps(check, steps):
    x = keras.Input((steps, 5, 4, 2), name="x")
    inner = convolutions()
    model = check.randomise(keras.Model(x, layers.TimeDistributed(inner, name="each")(x)))
    inner.get_layer("n").trainable = False
    module = bridge.to_torch(model)
    assert "FrozenBatchNorm2d" in str(module) and "cat" not in bridge.convert.source(model).text
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize("steps, text", [(None, "an open number of steps"), (65, "65 steps")])
def test_refused(steps, text):
    x = keras.Input((steps, 4), name="x")
    y = layers.TimeDistributed(layers.BatchNormalization())(x)
    with pytest.raises(bridge.BridgeError, match=f"its BatchNormalization once for each of {text}; give it an input"):
        bridge.to_torch(keras.Model(x, y))
