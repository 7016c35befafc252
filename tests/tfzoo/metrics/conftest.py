import keras
import numpy as np
import pytest

from tfzoo.metrics.features import Features


@pytest.fixture(scope="session")
def classifier():
    """A small classifier with random weights, of pictures (8, 9, 2); features at `maps`, `pooled` and `hidden`."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 9, 2))
    x = keras.layers.Conv2D(5, 3, activation="relu", bias_initializer="normal", name="maps")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Dense(4, activation="tanh", bias_initializer="normal", name="hidden")(x)
    return keras.Model(image, keras.layers.Dense(3, name="logits")(x), name="judge")


@pytest.fixture(scope="session")
def features(classifier):
    return Features(classifier, "hidden")


@pytest.fixture(scope="session")
def pictures():
    """53 real and 41 generated pictures, of other brightness and contrast."""
    rng = np.random.default_rng(5)
    real, made = rng.normal(size=(53, 8, 9, 2)), 0.2 + 0.7 * rng.normal(size=(41, 8, 9, 2))
    return real.astype("float32"), made.astype("float32")
