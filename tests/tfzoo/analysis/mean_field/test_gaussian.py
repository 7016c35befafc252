"""The ELBO by quadrature with scipy's densities, the evidence by Student's t, and the fixed point by hand."""

import numpy as np
import pytest
from scipy import stats

from tfzoo.analysis.mean_field import gaussian

PRIOR = gaussian.Prior(mean=0.7, strength=0.5, shape=1.5, rate=2.0)


def data(seed=0, n=7):
    return np.random.default_rng(seed).normal(1.3, 2.0, n)


@pytest.mark.parametrize("seed", range(20))
def test_the_elbo_never_decreases_and_stays_below_the_evidence(seed):
    random = np.random.default_rng(seed)
    x = random.normal(random.normal(0, 5), random.uniform(0.1, 10), random.integers(1, 40))
    prior = gaussian.Prior(random.normal(), *random.uniform(0.01, 3, 3))
    found = gaussian.fit(x, prior)
    assert found.converged
    assert (np.diff(found.elbo) >= -1e-9 * np.abs(found.elbo[1:])).all()
    assert found.elbo[-1] < gaussian.exact(x, prior).log_evidence


def test_the_elbo_is_that_of_the_densities():
    x, found = data(), gaussian.fit(data(), PRIOR)
    mu_density = stats.norm(found.mean, found.precision**-0.5)
    tau_density = stats.gamma(found.shape, scale=1 / found.rate)
    mu, mu_weights = by_legendre(*mu_density.ppf([1e-13, 1 - 1e-13]))
    tau, tau_weights = by_legendre(*tau_density.ppf([1e-13, 1 - 1e-13]))
    mu, tau = mu[:, None], tau[None]
    log_q = mu_density.logpdf(mu) + tau_density.logpdf(tau)
    joint = stats.norm.logpdf(x[:, None, None], mu, tau**-0.5).sum(0)
    joint = joint + stats.norm.logpdf(mu, PRIOR.mean, (PRIOR.strength * tau) ** -0.5)
    joint = joint + stats.gamma.logpdf(tau, PRIOR.shape, scale=1 / PRIOR.rate)
    elbo = mu_weights @ (np.exp(log_q) * (joint - log_q)) @ tau_weights
    np.testing.assert_allclose(found.elbo[-1], elbo, rtol=1e-8)


def by_legendre(low, high):
    """Give 200 points and weights between two ends."""
    at, weights = np.polynomial.legendre.leggauss(200)
    return (high - low) / 2 * at + (high + low) / 2, (high - low) / 2 * weights


def test_the_evidence_is_the_product_of_the_predictions():
    x = data()
    wanted = 0.0
    for i in range(len(x)):
        before = gaussian.exact(x[:i], PRIOR) if i else PRIOR
        scale = np.sqrt(before.rate * (before.strength + 1) / (before.shape * before.strength))
        wanted += stats.t.logpdf(x[i], 2 * before.shape, before.mean, scale)
    np.testing.assert_allclose(gaussian.exact(x, PRIOR).log_evidence, wanted, rtol=1e-12)


def test_the_fixed_point_of_a_flat_prior_by_hand():
    """b = (S + b/a)/2 with a = (N + 1)/2 and S the sum of squares, so 1/E[tau] = S/N, and q(mu) has a share N of it."""
    x = data(n=12)
    found = gaussian.fit(x, gaussian.Prior(0.0, 1e-12, 1e-12, 1e-12))
    np.testing.assert_allclose(found.rate / found.shape, x.var(), rtol=1e-6)
    np.testing.assert_allclose(1 / found.precision, x.var() / 12, rtol=1e-6)
    np.testing.assert_allclose(found.mean, x.mean(), rtol=1e-9)


def test_the_mean_is_exact_and_the_variance_too_small_by_a_known_share():
    """At the fixed point E[tau] is the exact one, a/b, so q(mu) has the variance b/(l a) where it is b/(l (a - 1))."""
    x = data()
    found, exact = gaussian.fit(x, PRIOR), gaussian.exact(x, PRIOR)
    np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-12)
    np.testing.assert_allclose(found.shape / found.rate, exact.shape / exact.rate, rtol=1e-6)
    np.testing.assert_allclose(1 / found.precision, exact.variance * (exact.shape - 1) / exact.shape, rtol=1e-6)


def test_what_cannot_be_is_said_at_once():
    prior = gaussian.Prior(mean=np.nan, strength=0.0, shape=-1.0)
    for function in (gaussian.fit, gaussian.exact):
        with pytest.raises(ValueError, match=r"x must(.|\n)*strength must(.|\n)*shape must(.|\n)*mean must be a fin"):
            function([1.0, np.inf], prior)
