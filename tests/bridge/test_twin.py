"""The float64 twin: layers of another precision with the same weights and flags, in a model's own graph."""

from collections import OrderedDict

import keras
import numpy as np
import pytest

from bridge import walk
from bridge.twin import Twin

layers = keras.layers


def run(model, x, twin=None, training=False):
    """The first output of a model, or of its twin."""
    return np.asarray(keras.tree.flatten(walk.run(model, [x], twin, training)[0])[0])


def network():
    x = keras.Input((6, 5, 3), name="x")
    inner = keras.Sequential(
        [keras.Input((6, 5, 3)), layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization(trainable=False)]
    )
    y = layers.Dropout(0.4, name="d")(layers.SpatialDropout2D(0.3)(inner(x)))
    return keras.Model(x, layers.Dense(2, name="fc")(layers.Flatten()(y * 2)), name="net")


def test_weights_precision_and_flags(check):
    model, twin = check.randomise(network()), Twin()
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3))
    double = run(model, x, twin)
    assert double.dtype == "float64" and 0 < check.relative(model(x.astype("float32")), double) < 1e-5
    for mine in model.weights:
        other = twin.variables[id(mine)]
        assert other.dtype == "float64" and other.trainable == mine.trainable
        np.testing.assert_array_equal(np.asarray(mine, "float64"), np.asarray(other))
    frozen = [x for x in twin.layers.values() if isinstance(x, layers.BatchNormalization)]
    assert [x.trainable for x in frozen] == [False]
    model.weights[0].assign(model.weights[0] * 2)
    np.testing.assert_array_equal(run(model, x, twin), double)


def test_deterministic(check):
    model = check.randomise(network())
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3))
    twin, random = Twin(deterministic=True), Twin()
    np.testing.assert_array_equal(run(model, x, twin, training=True), run(model, x, twin, training=True))
    assert not np.array_equal(run(model, x, random, training=True), run(model, x, random, training=True))
    assert model.get_layer("d").rate == 0.4


def test_a_training_step_changes_the_twin_alone(check):
    x = keras.Input((5,))
    model = check.randomise(keras.Model(x, layers.BatchNormalization(name="n")(x)))
    before, twin = np.array(model.get_layer("n").moving_mean), Twin()
    run(model, np.random.default_rng(0).normal(3, 1, size=(4, 5)), twin, training=True)
    np.testing.assert_array_equal(before, model.get_layer("n").moving_mean)
    assert np.abs(before - np.asarray(twin.variables[id(model.get_layer("n").moving_mean)])).min() > 1e-3


class Net(keras.Model):
    """Functional, by a class that Keras cannot make from its configuration."""

    def __init__(self):
        x = keras.Input((4,), name="x")
        super().__init__(x, layers.Dense(4, activation="relu")(x))


def shared():
    """A layer both inside a nested model and beside it."""
    dense, a, b = layers.Dense(4), keras.Input((4,)), keras.Input((4,))
    return keras.Model(b, keras.Model(a, dense(a))(layers.ReLU()(dense(b))))


def sequential():
    model = keras.Sequential([layers.Dense(3, activation="relu"), layers.Dense(2)])
    model.build((None, 4))
    return model


def ordered():
    """Keras' configuration sorts an OrderedDict of outputs, and the layers with it."""
    x = keras.Input((4,))
    return keras.Model(x, OrderedDict([("q", layers.Dense(2)(x)), ("b", layers.Dense(2)(x))]))


@pytest.mark.parametrize("make", [Net, shared, sequential, ordered])
def test_kinds_of_models(check, make):
    model = check.randomise(make())
    x = np.random.default_rng(0).normal(size=(2, 4))
    want = keras.tree.flatten(model(x))[0]
    assert check.relative(want, run(model, x, Twin())) < 1e-5
