"""Random numbers in inference: the sampling layers of variational networks."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops


class Sampling(layers.Layer):
    """The reparameterisation trick (Kingma and Welling, 2014), as Keras' own example has it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, given):
        mean, log_variance = given
        batch, size = ops.shape(mean)[0], ops.shape(mean)[1]
        epsilon = keras.random.normal(shape=(batch, size), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * epsilon


class Uniform(layers.Layer):
    """Numbers in a range, for each example and channel."""

    def call(self, x):
        shape = (ops.shape(x)[0], 1, 1, x.shape[-1])
        return x * keras.random.uniform(shape, minval=0.5, maxval=1.5) + keras.random.normal(ops.shape(x), stddev=0.1)


def variational(check):
    x = keras.Input((6,), name="x")
    mean, log_variance = layers.Dense(4, name="mean")(x), layers.Dense(4, name="log_variance")(x)
    z = Sampling(name="sampling")([mean, log_variance])
    return check.randomise(keras.Model(x, layers.Dense(3, name="decoder")(z)))


def test_a_variational_network(check):
    model = variational(check)
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert any("random numbers" in note for note in report.notes)
    x = torch.randn(4, 6)
    assert not torch.equal(module(x), module(x))


def test_pictures(check):
    x = keras.Input((5, 4, 3), name="x")
    model = check.randomise(keras.Model(x, layers.Conv2D(2, 3, name="c")(Uniform(name="u")(x))))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


def test_the_numbers_have_the_right_moments(check):
    x = keras.Input((2000,), name="x")

    def call(x):
        shape = ops.shape(x)
        return keras.random.normal(shape, mean=2.0, stddev=3.0), keras.random.uniform(shape, minval=-1.0, maxval=3.0)

    module = bridge.to_torch(keras.Model(x, layers.Lambda(call)(x)))
    normal, uniform = module(torch.zeros(50, 2000))
    np.testing.assert_allclose([normal.mean(), normal.std()], [2, 3], atol=0.05)
    np.testing.assert_allclose([uniform.mean(), uniform.std()], [1, 4 / np.sqrt(12)], atol=0.05)
    assert uniform.min() >= -1 and uniform.max() <= 3


def test_a_wrong_scale_is_told(check):
    model = variational(check)
    module = bridge.to_torch(model)
    right = torch.randn_like
    try:
        torch.randn_like = lambda x: 2 * right(x)
        assert not bridge.verify(model, module).passed
    finally:
        torch.randn_like = right


def test_refused(check):
    x = keras.Input((6,), name="x")
    y = layers.Lambda(lambda x: x + keras.random.normal((6,)))(x)
    with pytest.raises(bridge.BridgeError, match=r"random numbers of the shape \(6,\), whatever it is given"):
        bridge.to_torch(keras.Model(x, y))
    with pytest.raises(bridge.BridgeError, match="randn is random, in inference too; give the network what it is to"):
        bridge.to_keras(bridge.to_torch(variational(check)), (torch.randn(2, 6),))
