"""Files of a small model of every kind that is read."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers


@pytest.fixture(scope="session")
def model():
    """A model with a named layer, layers without names, a model inside, and an optimizer that has taken a step."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(3, name="a"), layers.Dropout(0.5)], name="inner")
    image = keras.Input((6, 6, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, name="stem")(image))
    x = layers.Dense(5)(layers.Dense(7)(layers.Flatten()(x)))
    model = keras.Model(image, inner(x), name="net")
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(4, 6, 6, 3)), rng.normal(size=(4, 3)), verbose=0)
    return model


@pytest.fixture(scope="session")
def files(model, tmp_path_factory):
    """Its files by ending, and the prefix of a checkpoint of TensorFlow."""
    folder = tmp_path_factory.mktemp("checkpoints")
    model.save(folder / "m.keras")
    model.save_weights(folder / "m.weights.h5")
    model.save(folder / "m.h5")
    prefix = tf.train.Checkpoint(model=model).save(folder / "tf" / "ckpt")
    return {".keras": folder / "m.keras", ".weights.h5": folder / "m.weights.h5", ".h5": folder / "m.h5", "tf": prefix}
