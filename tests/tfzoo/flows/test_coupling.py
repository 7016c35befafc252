"""Affine couplings: which numbers are kept, of what the others are told, and that none runs away."""

import keras
import numpy as np
import pytest

from tfzoo.flows import coupling

RNG = np.random.default_rng


@pytest.mark.parametrize("shape", [(2,), (5,), (3, 4), (4, 3, 1), (3, 3, 3), (1, 1, 3), (1, 1, 1, 2), (2, 1, 1)])
def test_half_is_kept_and_the_other_half_next(shape):
    first, second = (coupling.mask(shape, i) for i in (0, 1))
    np.testing.assert_array_equal(first + second, 1)
    assert abs(first.mean() - 0.5) < 0.5 and first.size == np.prod(shape)
    np.testing.assert_array_equal(coupling.mask(shape, 2), first)


def test_a_checkerboard():
    np.testing.assert_array_equal(coupling.mask((2, 3), 0), [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(coupling.mask((2, 2, 3), 0).reshape(2, 2, 3)[..., 1], [[0, 1], [1, 0]])
    assert (np.ptp(coupling.mask((2, 2, 3), 0).reshape(2, 2, 3), axis=-1) == 0).all()  # of a pixel all or none


def network(check, size=6, bound=2.0, scale=0.3):
    x = keras.Input((size,))
    kept = coupling.mask((size,), 0)
    made = coupling.parameters(x, kept, (7,), "tanh", 0.0, bound)
    return check.randomize(keras.Model(x, made), scale), kept


def test_what_is_changed_is_told_of_what_is_kept_alone(check):
    model, kept = network(check)
    x = RNG(0).normal(size=(4, 6)).astype("float32")
    other = np.where(kept, x, RNG(1).normal(size=x.shape)).astype("float32")
    for a, b in zip(model(x), model(other), strict=True):
        np.testing.assert_array_equal(a, b)
        assert (np.asarray(a)[:, kept == 1] == 0).all() and np.std(np.asarray(a)[:, kept == 0], axis=0).min() > 0.01


def test_a_step_by_hand_and_back(check):
    with check.float64():
        x, shift, log_scale = np.array([[1.0, 2.0]]), np.array([[0.0, 0.5]]), np.array([[0.0, np.log(3)]])
        y, log_determinant = coupling.forward(x, shift, log_scale)
        np.testing.assert_allclose(y, [[1, 6.5]], rtol=1e-12)
        np.testing.assert_allclose(log_determinant, [np.log(3)], rtol=1e-12)
        np.testing.assert_allclose(coupling.inverse(y, lambda _: (shift, log_scale)), x, rtol=1e-12)


def test_no_scale_is_beyond_the_bound(check):
    model, _ = network(check, scale=1000.0)
    _, log_scale = model(RNG(0).normal(size=(50, 6)).astype("float32"))
    assert 1.9 < np.abs(log_scale).max() <= 2.0
    small = np.linspace(-0.01, 0.01, 9)
    np.testing.assert_allclose(coupling.bounded(small, 2.0), small, atol=1e-6)
