"""Masked autoregressive steps: every number is told of those before it, of all of them, and of no other."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.flows import autoregressive

RNG = np.random.default_rng


def network(check, size, units):
    x = keras.Input((size,))
    return check.randomize(keras.Model(x, autoregressive.parameters(x, units, "tanh", 0.0, 3.0)), 0.3)


def test_masks_by_hand():
    np.testing.assert_array_equal(autoregressive.degrees(4, 5), [1, 2, 3, 1, 2])
    np.testing.assert_array_equal(autoregressive.mask(np.array([1, 2, 3]), np.array([1, 2])), [[1, 1], [0, 1], [0, 0]])


@pytest.mark.parametrize("size, units", [(5, (8,)), (4, (9, 7)), (2, (3,)), (1, (4,))])
def test_the_jacobian_is_triangular_and_full_below(check, size, units):
    with check.float64():
        model = network(check, size, units)
        x = tf.Variable(RNG(0).normal(size=(3, size)))
        with tf.GradientTape(persistent=True) as tape:
            shift, log_scale = model(x)
            y, log_determinant = autoregressive.forward(x, shift, log_scale)
        for made in (shift, log_scale):
            jacobian = np.asarray(tape.batch_jacobian(made, x))
            assert (np.triu(jacobian) == 0).all()  # not its own, either
            assert (np.abs(jacobian[:, *np.tril_indices(size, -1)]) > 0).all()
        jacobian = np.asarray(tape.batch_jacobian(y, x))
    assert (np.triu(jacobian, 1) == 0).all()
    np.testing.assert_allclose(np.log(np.diagonal(jacobian, 0, 1, 2)).sum(-1), log_determinant, atol=1e-9)


def test_a_step_by_hand(check):
    with check.float64():
        x, shift, log_scale = np.array([[1.0, 2.0]]), np.array([[0.0, 0.5]]), np.array([[0.0, np.log(3)]])
        y, log_determinant = autoregressive.forward(x, shift, log_scale)
    np.testing.assert_allclose(y, [[1, 0.5]], rtol=1e-12)
    np.testing.assert_allclose(log_determinant, [-np.log(3)], rtol=1e-12)


def test_the_inverse_is_as_many_passes_as_numbers(check):
    with check.float64():
        model, x = network(check, 5, (8,)), RNG(0).normal(size=(7, 5))
        y, _ = autoregressive.forward(x, *model(x))
        asked = []

        def given(some):
            tf.py_function(lambda: asked.append(1), [], [])
            return model(some)

        np.testing.assert_allclose(autoregressive.inverse(y, given), x, atol=1e-9)
    assert len(asked) == 5


def test_counts_and_where_it_begins():
    x = keras.Input((5,))
    model = keras.Model(x, autoregressive.parameters(x, (7, 3), "relu", 0.0, 3.0))
    assert model.count_params() == (5 * 7 + 7) + (7 * 3 + 3) + 2 * (3 * 5 + 5)
    assert all((np.asarray(p) == 0).all() for p in model(RNG(0).normal(size=(4, 5))))
