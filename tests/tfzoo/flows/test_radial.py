"""Radial steps: invertible whatever the weights are, by a closed form."""

import keras
import numpy as np
import pytest

from tfzoo.flows import radial

RNG = np.random.default_rng


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_constraint_holds_for_any_weights(check, scale):
    with check.float64():
        a, s = (np.asarray(p) for p in radial.positive(*scale * RNG(0).normal(size=(2, 1000, 1))))
    assert (a > 0).all() and (s > -a).all()
    assert (s < 0).any() and (s > 0).any()


def test_values_worked_out_by_hand(check):
    with check.float64():
        zero, center = np.zeros((1, 2)), np.array([[1.0, 1.0]])
        y, log_determinant = radial.forward(np.array([[4.0, 5.0]]), center, zero, zero + 2)
        still, none = radial.forward(np.array([[4.0, 5.0]]), center, zero, zero)
    a = np.log(2)
    s = np.log1p(np.exp(2)) - a
    h = 1 / (a + 5)  # at a distance of 5
    np.testing.assert_allclose(y, [[4 + 3 * s * h, 5 + 4 * s * h]], rtol=1e-12)
    # equation 14: (1 + s h)^(D - 1) (1 + s h + s h' r), of h' = -h^2
    np.testing.assert_allclose(log_determinant, [np.log((1 + s * h) * (1 + s * h - s * h**2 * 5))], rtol=1e-12)
    np.testing.assert_allclose(still, [[4, 5]], rtol=1e-12)
    np.testing.assert_allclose(none, 0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_inverse(check, scale):
    x, center = RNG(0).normal(size=(2, 500, 4))
    x[:5] = center[:5]  # at the center itself
    width, strength = (np.repeat(scale * RNG(i).normal(size=(500, 1)), 4, 1) for i in (1, 2))
    with check.float64():
        y, _ = radial.forward(x, center, width, strength)
        back = radial.inverse(y, lambda _: (center, width, strength))
    assert np.abs(np.asarray(y) - x).max() > 0.05
    np.testing.assert_allclose(back, x, atol=1e-9)


def test_its_slope_at_the_center_is_finite():
    import tensorflow as tf

    x = tf.Variable(np.zeros((1, 3), "float32"))
    with tf.GradientTape() as tape:
        y, log_determinant = radial.forward(x, *np.zeros((2, 1, 3), "float32"), np.ones((1, 3), "float32"))
        total = tf.reduce_sum(y) + tf.reduce_sum(log_determinant)
    assert np.isfinite(tape.gradient(total, x)).all()


def test_weights():
    x = keras.Input((5,))
    model = keras.Model(x, radial.parameters(x))
    assert model.count_params() == 5 + 1 + 1
    assert all(p.shape == (3, 5) for p in model(np.zeros((3, 5), "float32")))
