"""Densities whose best Gaussian is known: with a correlation, bent, positive."""

import numpy as np
import pytest

from tfzoo.analysis.mean_field import advi
from tfzoo.analysis.mean_field.targets import Banana, Gaussian, correlated


def test_mean_field_comes_to_the_optimum_of_a_correlated_gaussian():
    target, found = correlated(0.9), advi.fit(correlated(0.9).log_density, 2)
    assert 0.8304 <= target.divergence(found.mean, found.covariance) < 0.8304 + 0.01
    np.testing.assert_allclose(found.deviations**2, 0.19, rtol=0.1)
    assert found.scale[1, 0] == found.scale[0, 1] == 0
    assert abs(found.elbo + 0.8304) < 4 * found.error + 0.01 and found.error < 0.02


def test_full_rank_reaches_a_gaussian():
    covariance = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
    target = Gaussian(covariance)
    found = advi.fit(lambda z: target.log_density(z - [1.0, -2.0, 0.5]), 3, full_rank=True)
    assert target.divergence(found.mean - [1.0, -2.0, 0.5], found.covariance) < 0.01
    np.testing.assert_allclose(found.covariance, covariance, atol=0.1)
    assert found.scale[0, 2] == 0 and abs(found.elbo) < 4 * found.error + 0.01


def test_mean_field_comes_to_the_optimum_of_a_banana():
    target, found = Banana(), advi.fit(Banana().log_density, 2)
    best = target.mean_field().divergence
    assert best <= target.divergence(found.mean, found.deviations) < best + 0.01


def test_positive_variables_go_through_a_bijector():
    """Of a log-normal density, the logarithm is a Gaussian: nothing is lost."""
    import tensorflow_probability as tfp

    mean, deviations = np.array([0.3, -0.5]), np.array([0.6, 0.2])
    target = tfp.distributions.Independent(tfp.distributions.LogNormal(mean, deviations), 1)
    found = advi.fit(target.log_prob, 2, bijector=tfp.bijectors.Exp(), steps=1500)
    np.testing.assert_allclose(found.mean, mean, atol=0.02)
    np.testing.assert_allclose(found.deviations, deviations, rtol=0.05)
    assert abs(found.elbo) < 0.01


def test_the_seed_gives_the_same_again():
    one, other, third = (advi.fit(Banana().log_density, 2, steps=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.mean, other.mean)
    assert (one.history == other.history).all() and (one.history != third.history).all() and len(one.history) == 20


def test_what_cannot_be_is_said_at_once():
    with pytest.raises(ValueError, match="dimensions must(.|\n)*steps must(.|\n)*learning_rate must(.|\n)*full_rank"):
        advi.fit(Banana().log_density, 0, full_rank=1, steps=0, learning_rate=0.0)
    with pytest.raises(ValueError, match="samples must be even, as they are pairs. Received: samples=3"):
        advi.fit(Banana().log_density, 2, samples=3)
    with pytest.raises(ValueError, match=r"one number for each row, \(S,\). Received: \(8, 2\)"):
        advi.fit(lambda z: z, 2, samples=8)


def test_a_density_that_is_not_finite():
    import tensorflow as tf

    with pytest.raises(ValueError, match="must be finite wherever(.|\n)*an ELBO of nan at step 0; a bijector says"):
        advi.fit(lambda z: tf.math.log(z[:, 0]), 1, steps=5)
