import keras
import numpy as np
import tensorflow as tf

from tfzoo.export import weights
from tfzoo.export.signatures import DEFAULT, of_model


def test_folding_keeps_what_nothing_can_take_in(live):
    x = keras.Input((6, 5, 3), name="image")
    y = keras.layers.BatchNormalization(name="first")(x)
    y = keras.layers.BatchNormalization(name="second")(keras.layers.Conv2D(4, 3, name="conv")(y))
    model = live(keras.Model(x, keras.layers.ReLU()(y), name="mine"))
    made = weights.folded(model)
    assert [type(layer).__name__ for layer in made.layers].count("BatchNormalization") == 1 and made.name == "mine"
    image = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")
    np.testing.assert_allclose(made(image), model(image), rtol=1e-4, atol=1e-5)
    assert len(model.layers) == 5  # the model itself is as it was


def test_bfloat16_computes_in_float32(live):
    x = keras.Input((4,), name="x")
    model = live(keras.Model(x, keras.layers.Dense(3, name="d")(x)))
    before = [np.array(w) for w in model.weights]
    signature = weights.in_bfloat16(of_model(model), [model])[DEFAULT]
    value = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    kernel, bias = (np.asarray(tf.cast(tf.cast(w, tf.bfloat16), tf.float32)) for w in before)
    np.testing.assert_allclose(signature.function(x=tf.constant(value))["d"], value @ kernel + bias, rtol=1e-6)
    for w, was in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(w, was)
