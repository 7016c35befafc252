"""Rational-quadratic splines: where they go through, that they rise, their slope, and the way back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.flows import coupling, spline

RNG = np.random.default_rng
BOUND, BINS = 2.0, 5


def knots(seed=0, count=3):
    """Knots and slopes of random numbers, float64 `(count, 1, K + 1)`."""
    rng = RNG(seed)
    across, up = (np.asarray(spline.knots(0.7 * rng.normal(size=(count, 1, BINS)), BOUND)) for _ in range(2))
    return across, up, np.asarray(spline.slopes(0.7 * rng.normal(size=(count, 1, BINS - 1))))


def test_it_goes_through_its_knots_with_their_slopes(check):
    with check.float64():
        across, up, slope = knots()
        assert (np.diff(across) > 0).all() and (np.diff(up) > 0).all() and (slope > 0).all()
        for ends in (across, up):
            np.testing.assert_allclose(ends[..., [0, -1]], np.tile([-BOUND, BOUND], (3, 1, 1)), rtol=1e-12)
        np.testing.assert_array_equal(slope[..., [0, -1]], 1)
        assert np.std(slope[..., 1:-1]) > 0.1
        for k in range(BINS):
            x = tf.Variable(across[..., k])
            with tf.GradientTape() as tape:
                y, log_determinant = spline.forward(x, across, up, slope)
            np.testing.assert_allclose(y, up[..., k], atol=1e-9)
            np.testing.assert_allclose(tape.gradient(y, x), slope[..., k], rtol=1e-6)
            np.testing.assert_allclose(log_determinant, np.log(slope[:, 0, k]), atol=1e-6)


def test_it_rises_and_its_slope_is_that_of_differences(check):
    with check.float64():
        (across, up, slope), x = knots(1, 1), np.linspace(-2.5, 2.5, 4001)[:, None]
        y, log_slope = (np.asarray(v).ravel() for v in spline.forward(x, across, up, slope))
    assert (np.diff(y) > 0).all()
    outside = np.abs(x.ravel()) > BOUND
    np.testing.assert_array_equal(y[outside], x.ravel()[outside])
    assert (log_slope[outside] == 0).all() and np.abs(y - x.ravel())[~outside].max() > 0.1
    found = np.gradient(y, x.ravel())
    np.testing.assert_allclose(found[1:-1], np.exp(log_slope)[1:-1], rtol=0.02, atol=0.01)


def test_a_bin_by_hand(check):
    """From (0, 0) to (1, 1) with slopes 1 and 1 it is a line; with 2 and 1/2 it is at 2/3 in the middle."""
    across = up = np.array([[[-1.0, 0.0, 1.0]]])
    with check.float64():
        y, log_slope = spline.forward(np.array([[0.25]]), across, up, np.ones((1, 1, 3)))
        np.testing.assert_allclose([y[0, 0], log_slope[0]], [0.25, 0], atol=1e-12)
        # t = 1/2, s = 1, d = 2, 1/2: (1/4 + 2/4) / (1 + (2.5 - 2) / 4) = 2/3
        y, _ = spline.forward(np.array([[0.5]]), across, up, np.array([[[1.0, 2.0, 0.5]]]))
        np.testing.assert_allclose(y, [[2 / 3]], rtol=1e-12)


def test_the_way_back(check):
    x = np.linspace(-2.5, 2.5, 501)[:, None]
    with check.float64():
        for seed in range(4):
            made = knots(seed, 1)
            y, _ = spline.forward(x, *made)
            np.testing.assert_allclose(spline.inverse(np.asarray(y), lambda _, made=made: made), x, atol=1e-9)
    y, _ = spline.forward(x.astype("float32"), *made)
    assert y.dtype == "float32"
    np.testing.assert_allclose(spline.inverse(np.asarray(y), lambda _: made), x, atol=1e-5)


@pytest.fixture
def network(check):
    x, kept = keras.Input((6,)), coupling.mask((6,), 0)
    made = keras.Model(x, spline.parameters(x, kept, (7,), "tanh", 0.0, BOUND, BINS))
    return made, kept


def test_it_begins_as_nothing(network):
    model, _ = network
    x = RNG(0).normal(size=(50, 6)).astype("float32")
    y, log_determinant = spline.forward(x, *model(x))
    np.testing.assert_allclose(y, x, atol=1e-6)
    np.testing.assert_allclose(log_determinant, 0, atol=1e-6)
    assert model.count_params() == 6 * 7 + 7 + 2 * (7 * 6 * BINS + 6 * BINS) + 7 * 6 * (BINS - 1) + 6 * (BINS - 1)


def test_what_is_changed_is_told_of_what_is_kept_alone(check, network):
    model, kept = network
    check.randomize(model, 0.5)
    x = RNG(0).normal(size=(20, 6)).astype("float32")
    other = np.where(kept, x, RNG(1).normal(size=x.shape)).astype("float32")
    for a, b in zip(model(x), model(other), strict=True):
        np.testing.assert_array_equal(a, b)
    y, _ = spline.forward(x, *model(x))
    np.testing.assert_array_equal(np.asarray(y)[:, kept == 1], x[:, kept == 1])
    assert np.abs(np.asarray(y) - x)[:, kept == 0].max(0).min() > 0.01
