"""What a decoder says of a picture, against SciPy's densities."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfzoo.variational import likelihood as likelihoods
from tfzoo.variational.likelihood import Likelihood, picture

RNG = np.random.default_rng(0)
X = RNG.integers(0, 2, (3, 2, 2, 1)).astype("float32")
Z = RNG.normal(size=(3, 2, 2, 1)).astype("float32")


def summed(values):
    return values.reshape(len(values), -1).sum(-1)


def test_bernoulli():
    p = 1 / (1 + np.exp(-Z))
    wanted = summed(np.where(X == 1, np.log(p), np.log(1 - p)))
    np.testing.assert_allclose(Likelihood().log_prob({"logits": tf.constant(Z)}, X), wanted, rtol=1e-5)
    np.testing.assert_allclose(picture({"logits": tf.constant(Z)}), p, rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.3, "learned"])
def test_gaussian(sigma):
    log_scale = np.full_like(Z, -0.7)
    given = {"mean": Z} if sigma == 0.3 else {"mean_and_log_scale": np.concatenate([Z, log_scale], -1)}
    wanted = summed(stats.norm.logpdf(X, Z, 0.3 if sigma == 0.3 else np.exp(-0.7)))
    np.testing.assert_allclose(Likelihood("gaussian", sigma).log_prob(given, X), wanted, rtol=1e-5)
    np.testing.assert_allclose(picture(given), Z)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretised_logistic(levels):
    """The mass around each level, what is beyond at both ends; all levels together have 1."""
    top, mean, scale = levels - 1, np.float32(0.43), np.float32(np.exp(-2.0))
    values = np.linspace(0, 1, levels, dtype="float32").reshape(-1, 1, 1, 1)
    given = {"mean_and_log_scale": np.concatenate([np.full_like(values, mean), np.full_like(values, -2.0)], -1)}
    found = Likelihood("discretised_logistic", levels=levels).log_prob(given, values).numpy()
    edges = (np.arange(levels + 1) - 0.5) / top
    edges[0], edges[-1] = -np.inf, np.inf
    mass = np.diff(stats.logistic.cdf(edges, mean, scale))
    np.testing.assert_allclose(np.exp(found), mass, rtol=2e-3, atol=1e-6)
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-4)


def test_far_from_a_level_it_is_finite_and_has_a_gradient():
    mean = tf.Variable([[[[50.0]]]])
    with tf.GradientTape() as tape:
        given = {"mean_and_log_scale": tf.concat([mean, tf.fill((1, 1, 1, 1), -3.0)], -1)}
        found = Likelihood("discretised_logistic").log_prob(given, tf.zeros((1, 1, 1, 1)))
    assert np.isfinite(found).all() and -2000 < float(found[0]) < -900 and tape.gradient(found, mean) < 0


def test_pictures_are_brought_to_what_can_be_given():
    grey = tf.constant([[0.0, 0.2, 0.5, 0.501, 1.0]])
    np.testing.assert_array_equal(Likelihood().prepared(grey), [[0, 0, 1, 1, 1]])
    np.testing.assert_allclose(Likelihood("discretised_logistic", levels=3).prepared(grey), [[0, 0, 0.5, 0.5, 1]])
    np.testing.assert_array_equal(Likelihood("gaussian").prepared(grey), grey)


@pytest.mark.parametrize(
    "kind, values, text",
    [
        ("bernoulli", [0, 0.5], "a Bernoulli decoder is of pixels that are 0 or 1: .* values from 0 to 0.5"),
        ("discretised_logistic", [0, 1.5], "is of 256 levels 0, 1/255, ..., 1: .* values from 0 to 1.5"),
        ("discretised_logistic", [0, 0.5 / 255], "is of 256 levels"),
        ("discretised_logistic", [-1, 0, 1], "is of 256 levels .* values from -1 to 1"),
        ("bernoulli", [], "there are no pictures"),
        ("gaussian", [0, np.inf], "1 value.s. of the pictures are NaN or infinite"),
    ],
)
def test_what_it_cannot_give(kind, values, text):
    import re

    (said,) = Likelihood(kind).check(np.array(values))
    assert re.search(text, said), said
    assert not Likelihood(kind).check(np.array([0.0, 1.0]))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32"])
def test_pictures_of_any_kind_of_numbers(dtype):
    assert not Likelihood().check(np.array([0, 1], dtype))
    if dtype != "bool":
        (said,) = Likelihood().check(np.array([0, 255], dtype))
        assert "Received: values from 0 to 255" in said


def test_options_without_effect():
    assert likelihoods.arguments("gaussian", 0.1, 256) == likelihoods.arguments("discretised_logistic", 0.1, 4) == []
    assert "sigma is of no effect with likelihood='bernoulli'" in likelihoods.arguments("bernoulli", 0.1, 256)[0]
    assert "levels is of no effect with likelihood='gaussian'" in likelihoods.arguments("gaussian", 0.1, 4)[0]
