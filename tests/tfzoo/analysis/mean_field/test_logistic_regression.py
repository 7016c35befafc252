"""The bound against quadrature, and q against a chain on three columns of the breast-cancer data."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, log_expit
from sklearn.datasets import load_breast_cancer

from tfzoo.analysis.mean_field import advi, hmc, logistic_regression


def data(seed=0, n=20, d=2):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) @ random.normal(size=(d, d))
    return x, (random.uniform(size=n) < expit(x @ random.normal(0, 2, d))).astype(float)


def breast_cancer(columns):
    x, y = load_breast_cancer(return_X_y=True)
    x = x[:, columns]
    return np.c_[(x - x.mean(0)) / x.std(0), np.ones(len(x))], y


@pytest.mark.parametrize("factorised", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_the_bound_never_decreases_and_stays_below_the_elbo(seed, factorised):
    random = np.random.default_rng(seed)
    x, y = data(seed, *random.integers([3, 1], [40, 5]))
    precision = random.uniform(0.1, 3)
    found = logistic_regression.fit(x, y, precision, factorised)
    assert found.converged and (np.diff(found.elbo) >= -1e-9 * np.abs(found.elbo[1:])).all()
    assert found.elbo[-1] < logistic_regression.elbo(x, y, found.mean, found.covariance, precision)
    assert (found.covariance == np.diag(np.diag(found.covariance))).all() or not factorised


@pytest.mark.parametrize("factorised", [True, False])
def test_the_elbo_is_below_the_evidence(factorised):
    x, y = data()

    at, weights = np.polynomial.legendre.leggauss(200)
    w = 9 * np.stack(np.meshgrid(at, at), -1)
    joint = log_expit((2 * y - 1) * (w @ x.T)).sum(-1) + stats.norm.logpdf(w, 0, 0.5**-0.5).sum(-1)
    evidence = np.log(81 * weights @ np.exp(joint) @ weights)
    found = logistic_regression.fit(x, y, 0.5, factorised)
    elbo = logistic_regression.elbo(x, y, found.mean, found.covariance, 0.5)
    assert evidence - (1.0 if factorised else 0.3) < elbo < evidence
    assert found.elbo[-1] < elbo


def test_the_bound_and_the_elbo_are_those_of_the_densities():
    """By 100,000 samples of q; the bound with Jaakkola and Jordan's in the place of the likelihood."""
    x, y = data()
    found = logistic_regression.fit(x, y, 0.5)
    q = stats.multivariate_normal(found.mean, found.covariance)
    w = q.rvs(100_000, np.random.default_rng(1))
    a, rest = w @ x.T, stats.norm.logpdf(w, 0, 0.5**-0.5).sum(1) - q.logpdf(w)
    t = np.sqrt((x @ found.mean) ** 2 + np.diag(x @ found.covariance @ x.T))
    signed = (2 * y - 1) * a
    below = log_expit(t) + (signed - t) / 2 - np.tanh(t / 2) / (4 * t) * (a**2 - t**2)
    assert (below <= log_expit(signed) + 1e-12).all()
    for terms, claimed in (
        (below.sum(1) + rest, found.elbo[-1]),
        (log_expit(signed).sum(1) + rest, logistic_regression.elbo(x, y, found.mean, found.covariance, 0.5)),
    ):
        assert abs(terms.mean() - claimed) < 4 * terms.std() / len(w) ** 0.5


def test_l_is_an_eighth_at_nothing():
    t = np.array([0.0, 1e-5, 1e-4, 2.0])
    np.testing.assert_allclose(logistic_regression.slope(t), [0.125, 0.125, 0.125, np.tanh(1) / 8], rtol=1e-8)


def test_the_log_density_is_scipys():
    x, y = data()
    w = np.random.default_rng(1).normal(size=(5, 2))
    wanted = stats.norm.logpdf(w, 0, 0.5**-0.5).sum(1) + log_expit((2 * y - 1) * (w @ x.T)).sum(1)
    np.testing.assert_allclose(logistic_regression.log_density(x, y, 0.5)(w), wanted, rtol=1e-12)


def test_predictions_are_averages_over_q():
    x, _ = data()
    mean, covariance = np.array([1.0, -0.5]), np.array([[0.5, 0.2], [0.2, 0.3]])
    w = np.random.default_rng(0).multivariate_normal(mean, covariance, 200_000)
    np.testing.assert_allclose(logistic_regression.predict(x, mean, covariance), expit(w @ x.T).mean(0), atol=4e-3)


def test_breast_cancer_against_a_chain():
    x, y = breast_cancer([0, 1, 4])
    density = logistic_regression.log_density(x, y)
    chain = hmc.sample(density, 4, chains=4, burn_in=300, samples=1000, leapfrogs=8)
    assert (chain.r_hat < 1.02).all()
    for q in (
        logistic_regression.fit(x, y, factorised=False),
        logistic_regression.fit(x, y),
        advi.fit(density, 4, steps=1500),
    ):
        assert (np.abs(q.mean - chain.mean) < 0.2 * chain.deviations).all()
        assert (q.deviations < 1.03 * chain.deviations).all() and (q.deviations > 0.3 * chain.deviations).all()


def test_what_cannot_be_is_said_at_once():
    with pytest.raises(ValueError, match=r"x must(.|\n)*y must be 0 or 1. Received: 2.0(.|\n)*precision must"):
        logistic_regression.fit([1.0], [0, 2], 0.0)
    with pytest.raises(ValueError, match="x and y must be as many. Received: 1 rows of x, 2 of y"):
        logistic_regression.log_density([[1.0]], [0, 1])
    with pytest.raises(ValueError, match="factorised must be True or False"):
        logistic_regression.fit([[1.0]], [1], factorised=1)
    with pytest.raises(ValueError, match=r"x must be finite numbers \(N, D\)"):
        logistic_regression.predict([1.0], np.zeros(1), np.eye(1))
