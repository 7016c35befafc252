"""Gated inverse autoregressive steps: the Jacobian is triangular, and the log determinant is its own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.flows import inverse_autoregressive

RNG = np.random.default_rng


def network(check, shape, units, forget_bias=1.5):
    z, context = keras.Input(shape, name="z"), keras.Input((*shape[:-1], 3), name="context")
    made = inverse_autoregressive.step(z, context, units, "tanh", forget_bias, "step")
    return check.randomize(keras.Model([z, context], made), 0.3)


@pytest.mark.parametrize(
    "shape, units", [((5,), (8,)), ((4,), (9, 7)), ((1,), (4,)), ((3, 4, 2), (5, 6)), ((2, 3, 1), (4,))]
)
def test_the_jacobian_is_triangular_and_full_below(check, shape, units):
    size = int(np.prod(shape))
    with check.float64():
        model = network(check, shape, units)
        z = tf.Variable(RNG(0).normal(size=(3, *shape)))
        context = tf.Variable(RNG(1).normal(size=(3, *shape[:-1], 3)))
        with tf.GradientTape(persistent=True) as tape:
            made, log_determinant = model([z, context])
        jacobian = np.asarray(tape.batch_jacobian(made, z)).reshape(3, size, size)
        told = np.asarray(tape.batch_jacobian(made, context)).reshape(3, size, -1)
    assert made.shape == log_determinant.shape == z.shape
    assert (np.triu(jacobian, 1) == 0).all()
    np.testing.assert_allclose(
        np.log(np.diagonal(jacobian, 0, 1, 2)), np.reshape(log_determinant, (3, size)), atol=1e-9
    )
    _, exact = np.linalg.slogdet(jacobian)
    np.testing.assert_allclose(np.reshape(log_determinant, (3, size)).sum(-1), exact, atol=1e-9)
    below = np.abs(jacobian).max(0)[np.tril_indices(size, -1)]
    if len(shape) == 1:
        assert (below > 0).all()  # of all before it
    assert (np.abs(told[:, 1:]).max((0, 2)) > 0).all()  # the first number has only constants


def test_a_convolution_sees_the_pixels_before_and_of_its_own_what_is_kept(check):
    """Of 3x3 pixels about the middle one: four before it, its own first channel, nothing behind."""
    with check.float64():
        x = keras.Input((3, 3, 2))
        made = inverse_autoregressive.convolution(x, np.array([[1.0], [0.0]]), "conv")
        model = check.randomize(keras.Model(x, made), 0.3)
        given = tf.Variable(RNG(0).normal(size=(1, 3, 3, 2)))
        with tf.GradientTape() as tape:
            middle = model(given)[0, 1, 1, 0]
        seen = np.asarray(tape.gradient(middle, given))[0] != 0
    wanted = np.zeros((3, 3, 2), bool)
    wanted[0] = wanted[1, 0] = True
    wanted[1, 1, 0] = True
    np.testing.assert_array_equal(seen, wanted)


def test_a_step_by_hand(check):
    """With weights of 0 the gate is that of its bias, and the mean is 0."""
    with check.float64():
        model = network(check, (4,), (3,), forget_bias=2.0)
        for weight in model.weights:
            weight.assign(np.zeros(weight.shape))
        z = RNG(0).normal(size=(2, 4))
        made, log_determinant = model([z, np.ones((2, 3))])
    gate = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(made, gate * z, rtol=1e-12)
    np.testing.assert_allclose(log_determinant, np.full((2, 4), np.log(gate)), rtol=1e-12)


def test_counts():
    z, context = keras.Input((5,)), keras.Input((3,))
    model = keras.Model([z, context], inverse_autoregressive.step(z, context, (7, 6), "relu", 1.0, "step"))
    assert model.count_params() == (5 * 7 + 7 + 3 * 7) + (7 * 6 + 6 + 3 * 6) + 2 * (6 * 5 + 5)
