"""A weight by itself is trained, saved, and the same whatever the model is given."""

import keras
import numpy as np
import pytest

import bridge
from tfzoo.layers.weight import weight


def network(shape=(1, 3, 2)):
    x = keras.Input((3, 2))
    return keras.Model(x, x * weight(x, shape, "scale", "random_normal"), name="net")


@pytest.mark.parametrize("shape", [(2,), (3, 2), (1, 3, 2), (1, 3, 1)])
def test_it_is_its_value(shape):
    model = network(shape)
    value = np.random.default_rng(0).normal(size=shape).astype("float32")
    model.get_layer("scale").kernel.assign(value)
    for x in (np.random.default_rng(1).normal(size=(4, 3, 2)).astype("float32"), np.full((1, 3, 2), 1e30, "float32")):
        np.testing.assert_allclose(model(x), x * value, rtol=1e-6)


def test_it_is_trained_saved_and_carried(tmp_path):
    model = network()
    model.compile("sgd", "mse")
    before = model.get_layer("scale").kernel.numpy()
    model.fit(np.ones((8, 3, 2)), np.zeros((8, 3, 2)), verbose=0)
    assert (abs(model.get_layer("scale").kernel.numpy()) < abs(before)).all()
    model.save(tmp_path / "a.keras")
    x = np.random.default_rng(1).normal(size=(4, 3, 2)).astype("float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "a.keras")(x), model(x))
    module = bridge.to_torch(network())
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {"scale": (1, 3, 2)}


def test_an_empty_batch():
    assert network()(np.zeros((0, 3, 2), "float32")).shape == (0, 3, 2)
