"""Planar steps: invertible whatever the weights are, and the number that the inverse looks for."""

import keras
import numpy as np
import pytest

from tfzoo.flows import planar

RNG = np.random.default_rng


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_constraint_holds_for_any_weights(check, scale):
    u, w = scale * RNG(0).normal(size=(2, 1000, 5))
    with check.float64():
        kept = np.asarray(planar.invertible(u, w))
    along = (u * w).sum(-1)
    np.testing.assert_allclose((kept * w).sum(-1), np.logaddexp(0, along) - 1, atol=1e-9)  # m(w.u) of the paper
    assert (along < -1).any() or scale < 1  # else nothing had to be changed
    across = kept - u - w * ((kept - u) * w).sum(-1, keepdims=True) / (w * w).sum(-1, keepdims=True)
    np.testing.assert_allclose(across, 0, atol=1e-9)  # u is changed along w alone


def test_a_normal_of_nothing_is_no_step(check):
    x = RNG(0).normal(size=(3, 4))
    with check.float64():
        y, log_determinant = planar.forward(x, np.ones((3, 4)), np.zeros((3, 4)), np.zeros((3, 4)))
    np.testing.assert_allclose(log_determinant, 0, atol=1e-12)
    np.testing.assert_allclose(y, x, atol=1e-12)


def test_values_worked_out_by_hand(check):
    with check.float64():
        x, u, w, b = (np.array([v]) for v in ([0.5, -1.0], [2.0, 0.0], [1.0, 0.0], [0.25, 0.25]))
        y, log_determinant = planar.forward(x, u, w, b)
    strength = np.log1p(np.exp(2.0)) - 1  # u' = (m(2), 0)
    np.testing.assert_allclose(y, [[0.5 + strength * np.tanh(0.75), -1.0]], rtol=1e-12)
    np.testing.assert_allclose(log_determinant, [np.log(1 + strength * (1 - np.tanh(0.75) ** 2))], rtol=1e-12)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_the_inverse(check, scale):
    u, w, b = scale * RNG(1).normal(size=(3, 500, 4))
    x, b = RNG(2).normal(size=(500, 4)), np.repeat(b[:, :1], 4, 1)
    with check.float64():
        y, log_determinant = planar.forward(x, u, w, b)
        back = planar.inverse(y, lambda _: (u, w, b))
    steep = np.asarray(log_determinant) > np.log(1e-3)  # where it is flat, a number has lost its last digits
    assert steep.mean() > 0.5
    np.testing.assert_allclose(np.asarray(back)[steep], x[steep], atol=1e-9)


def test_weights():
    x = keras.Input((5,))
    model = keras.Model(x, planar.parameters(x))
    assert model.count_params() == 5 + 5 + 1
    u, w, b = model(np.zeros((3, 5), "float32"))
    assert u.shape == w.shape == b.shape == (3, 5) and np.ptp(b, axis=1).max() == 0
