"""Samples of densities whose moments are known."""

import numpy as np
import pytest

from tfzoo.analysis.mean_field import hmc
from tfzoo.analysis.mean_field.targets import Banana, Gaussian


def test_a_gaussian():
    covariance = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])
    target = Gaussian(covariance)
    found = hmc.sample(lambda z: target.log_density(z - [1.0, -2.0, 0.5]), 3, samples=1000, burn_in=300, leapfrogs=5)
    assert found.samples.shape == (1000, 8, 3) and (found.r_hat < 1.01).all() and 0.6 < found.accepted < 0.95
    error = np.sqrt(np.diag(covariance) / np.minimum(found.effective, 8000))
    assert (np.abs(found.mean - [1.0, -2.0, 0.5]) < 5 * error).all() and error.max() < 0.05
    np.testing.assert_allclose(found.deviations, np.sqrt(np.diag(covariance)), rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(found.samples.reshape(-1, 3).T)[0, 1], 0.6 / 2**0.5, atol=0.05)


def test_a_bent_density():
    """z_2 has the mean c and the variance 2 c^2 + s^2."""
    found = hmc.sample(Banana(0.5, 1.0).log_density, 2, samples=2000, burn_in=300, leapfrogs=8)
    np.testing.assert_allclose(found.mean, [0, 0.5], atol=0.08)
    np.testing.assert_allclose(found.deviations, [1, 1.5**0.5], rtol=0.08)


def test_the_way_there_is_left_out():
    """The chains begin around 0."""
    found = hmc.sample(lambda z: -((z[:, 0] - 40) ** 2) / 2, 1, chains=4, samples=200, burn_in=200, leapfrogs=5)
    assert found.samples.min() > 34 and abs(found.mean[0] - 40) < 0.3


def test_what_cannot_be_is_said_at_once():
    with pytest.raises(ValueError, match="dimensions must(.|\n)*samples must(.|\n)*leapfrogs must"):
        hmc.sample(Banana().log_density, 0, samples=0, leapfrogs=0)
    with pytest.raises(ValueError, match="chains must be at least 2, to be compared. Received: chains=1"):
        hmc.sample(Banana().log_density, 2, chains=1)


def test_a_density_that_is_not_finite():
    with pytest.raises(ValueError, match="must be finite where the chains begin"):
        hmc.sample(lambda z: z[:, 0] * np.nan, 1, chains=2, burn_in=5, samples=5, leapfrogs=2)
