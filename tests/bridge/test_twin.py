"""The float64 twin: the same network in another precision, weights and flags included."""

from collections import OrderedDict

import keras
import numpy as np
import pytest

from bridge.twin import twin

layers = keras.layers


def network():
    x = keras.Input((6, 5, 3), name="x")
    inner = keras.Sequential(
        [keras.Input((6, 5, 3)), layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization(trainable=False)]
    )
    y = layers.Dropout(0.4, name="d")(layers.SpatialDropout2D(0.3)(inner(x)))
    return keras.Model(x, layers.Dense(2, name="fc")(layers.Flatten()(y * 2)), name="net")


def test_weights_precision_and_flags(check):
    model = check.randomise(network())
    other = twin(model)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3))
    assert {w.dtype for w in other.weights} == {"float64"} and other(x).dtype == "float64"
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a, "float64"), np.asarray(b))
        assert a.trainable == b.trainable
    assert 0 < check.relative(model(x.astype("float32")), other(x)) < 1e-5
    model.weights[0].assign(model.weights[0] * 2)
    assert not np.array_equal(np.asarray(model.weights[0]), np.asarray(other.weights[0]))


def test_deterministic(check):
    other = twin(check.randomise(network()), deterministic=True)
    assert {x.rate for x in other._flatten_layers() if hasattr(x, "rate")} == {0.0}
    assert {x.rate for x in twin(network())._flatten_layers() if hasattr(x, "rate")} == {0.3, 0.4}
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3))
    np.testing.assert_array_equal(other(x, training=True), other(x, training=True))


@pytest.mark.parametrize("kind", [keras.Sequential, keras.Model])
def test_kinds_of_models(check, kind):
    if kind is keras.Sequential:
        model = keras.Sequential([layers.Dense(3, activation="relu"), layers.Dense(2)])
        model.build((None, 4))
    else:
        inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
        model = keras.Model(inputs, {"sum": layers.Dense(3)(inputs["a"]) + layers.Dense(3)(inputs["b"])})
    check.randomise(model)
    x = np.random.default_rng(0).normal(size=(2, 4))
    x = x if kind is keras.Sequential else {"b": x, "a": 2 * x}
    have, want = twin(model)(x), model(x)
    for h, w in zip(keras.tree.flatten(have), keras.tree.flatten(want), strict=True):
        assert check.relative(w, h) < 1e-5


def test_layers_in_another_order(check):
    """Keras' configuration sorts an OrderedDict of outputs, and the layers with it."""
    x = keras.Input((4,))
    outputs = OrderedDict([("q", layers.Dense(2, name="one")(x)), ("b", layers.Dense(2, name="two")(x))])
    model = check.randomise(keras.Model(x, outputs))
    other = twin(model)
    for name in ("one", "two"):
        np.testing.assert_array_equal(np.asarray(model.get_layer(name).kernel, "float64"), other.get_layer(name).kernel)
