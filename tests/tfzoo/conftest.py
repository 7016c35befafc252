"""What the tests of several families share: random weights, pictures, and the dtype that they are compared in."""

import contextlib
import re

import numpy as np
import pytest


@contextlib.contextmanager
def float64():
    """Build in float64 what is built inside."""
    import keras

    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(policy)


def trainable(model):
    """Count the parameters that are trained: no statistics."""
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def images(batch, *shape):
    """Noise about a colour of each picture's own, which a mean over all pixels still tells from another's."""
    rng = np.random.default_rng(1)
    colour = rng.normal(size=(batch, 1, 1, shape[-1]))
    return colour + rng.normal(size=(batch, *shape)) * np.linspace(0.5, 1.5, batch).reshape(-1, 1, 1, 1)


def first(x):
    """Channels first, as a tensor."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def randomize(model, scale=0.3):
    """Give every weight of a Keras model a random value that keeps the signal alive; biases are of this scale."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        fan_in = max(int(np.prod(weight.shape[:-1])), 1)
        value = rng.normal(0, (2 / fan_in) ** 0.5 if len(weight.shape) > 1 else scale, weight.shape)
        weight.assign(abs(value) + 0.7 if weight.name in ("gamma", "moving_variance") else value)
    return model


def depends_on_the_image(y):
    """Assert that outputs differ from picture to picture; else a comparison could not fail."""
    assert np.std(y, axis=0).mean() > 0.05 * np.std(y) > 1e-3


def architecture(model):
    """Give all that makes a model, without the numbers of its operations, which Keras goes on counting."""
    return re.sub(r'_\d+(?=")', "", model.to_json())


@pytest.fixture(scope="session")
def check():
    """The functions of this file, as attributes, as test files cannot import one another."""
    import types

    return types.SimpleNamespace(
        architecture=architecture,
        depends_on_the_image=depends_on_the_image,
        first=first,
        float64=float64,
        images=images,
        randomize=randomize,
        trainable=trainable,
    )
