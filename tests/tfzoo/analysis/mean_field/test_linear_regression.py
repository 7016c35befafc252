"""Against scipy's densities, quadrature by other means, and the conjugate posterior of the diabetes data."""

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_diabetes

from tfzoo.analysis.mean_field import linear_regression
from tfzoo.analysis.mean_field.linear_regression import Prior

PRIORS = [Prior(), Prior(2.0, (1.5, 0.5)), Prior((0.5, 2.0), 3.0), Prior(0.7, 1.3)]
IDS = ["both unknown", "noise unknown", "weight unknown", "both given"]


def data(seed=0, n=9, d=3):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, d)) @ random.normal(size=(d, d))
    return x, x @ random.normal(size=d) + random.normal(0, 0.5, n)


def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return x / x.std(0), (y - y.mean()) / y.std()


@pytest.mark.parametrize("prior", PRIORS, ids=IDS)
@pytest.mark.parametrize("seed", range(6))
def test_the_elbo_never_decreases_and_stays_below_the_evidence(seed, prior):
    x, y = data(seed, *np.random.default_rng(seed).integers([2, 1], [20, 6]))
    found, exact = linear_regression.fit(x, y, prior, iterations=20_000), linear_regression.exact(x, y, prior)
    assert found.converged
    assert (np.diff(found.elbo) >= -1e-9 * np.abs(found.elbo[1:])).all()
    assert found.elbo[-1] <= exact.log_evidence + 1e-9 * abs(exact.log_evidence)


@pytest.mark.parametrize("prior", PRIORS, ids=IDS)
def test_the_elbo_is_that_of_the_densities(prior):
    """By 200,000 samples of q; what is averaged varies little, as q is near to the posterior."""
    x, y = data()
    found, random = linear_regression.fit(x, y, prior), np.random.default_rng(1)
    w = random.multivariate_normal(found.mean, found.covariance, 200_000)
    terms = -stats.multivariate_normal(found.mean, found.covariance).logpdf(w)
    precisions = []
    for own, q in ((prior.weight, found.weight), (prior.noise, found.noise)):
        if isinstance(own, tuple):
            precisions.append(random.gamma(q[0], 1 / q[1], len(w)))
            terms += stats.gamma.logpdf(precisions[-1], own[0], scale=1 / own[1])
            terms -= stats.gamma.logpdf(precisions[-1], q[0], scale=1 / q[1])
        else:
            precisions.append(np.full(len(w), own))
    terms += stats.norm.logpdf(w, 0, precisions[0][:, None] ** -0.5).sum(1)
    terms += stats.norm.logpdf(y, w @ x.T, precisions[1][:, None] ** -0.5).sum(1)
    assert abs(terms.mean() - found.elbo[-1]) < 4 * terms.std() / len(w) ** 0.5 + 1e-9


def test_with_both_precisions_it_is_the_conjugate_posterior():
    x, y = diabetes()
    found = linear_regression.fit(x, y, Prior(2.0, 1.5))
    covariance = np.linalg.inv(2.0 * np.eye(10) + 1.5 * x.T @ x)
    evidence = stats.multivariate_normal(np.zeros(len(y)), np.eye(len(y)) / 1.5 + x @ x.T / 2.0).logpdf(y)
    exact = linear_regression.exact(x, y, Prior(2.0, 1.5))
    for one in (found, exact):
        np.testing.assert_allclose(one.covariance, covariance, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(one.mean, 1.5 * covariance @ x.T @ y, rtol=1e-8)
    np.testing.assert_allclose([found.elbo[-1], exact.log_evidence], evidence, rtol=1e-10)


def test_the_evidence_of_unknown_precisions_is_an_integral():
    x, y = data()
    prior = Prior((1.5, 2.0), (2.5, 0.5))

    at, weights = np.polynomial.legendre.leggauss(50)

    def joint(log_alpha, log_beta):
        alpha, beta = np.exp(log_alpha), np.exp(log_beta)
        of_y = stats.multivariate_normal(np.zeros(len(y)), np.eye(len(y)) / beta + x @ x.T / alpha).pdf(y)
        precisions = stats.gamma.pdf(alpha, 1.5, scale=1 / 2.0) * stats.gamma.pdf(beta, 2.5, scale=1 / 0.5)
        return of_y * precisions * alpha * beta

    values = np.array([[joint(5.5 * a - 1.5, 4 * b + 1) for b in at] for a in at])
    wanted = 5.5 * 4 * weights @ values @ weights  # from -7 to 4, and from -3 to 5
    np.testing.assert_allclose(linear_regression.exact(x, y, prior).log_evidence, np.log(wanted), atol=2e-4)


def test_the_moments_are_those_of_the_weights_own_density():
    """Without alpha, the prior of the weights is a Student's t of 2 a0 degrees (Bishop, 2006, section 2.3.7)."""
    x, y = data(n=4, d=2)
    at, weights = np.polynomial.legendre.leggauss(300)
    w = 12 * np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    log_joint = stats.multivariate_t(np.zeros(2), np.eye(2) * 0.5 / 1.5, 2 * 1.5).logpdf(w)
    log_joint += stats.norm.logpdf(y, w @ x.T, 0.8**-0.5).sum(1)
    mass = np.exp(log_joint) * 144 * np.outer(weights, weights).ravel()
    share = mass / mass.sum()
    exact = linear_regression.exact(x, y, Prior((1.5, 0.5), 0.8))
    np.testing.assert_allclose(exact.log_evidence, np.log(mass.sum()), rtol=1e-5)
    np.testing.assert_allclose(exact.mean, share @ w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(exact.covariance, (w * share[:, None]).T @ w - np.outer(share @ w, share @ w), rtol=1e-3)


def test_diabetes_against_the_exact_posterior():
    x, y = diabetes()
    found, exact = linear_regression.fit(x, y), linear_regression.exact(x, y)
    deviations = np.sqrt(np.diag(exact.covariance))
    assert 0 < exact.log_evidence - found.elbo[-1] < 0.5
    assert (np.abs(found.mean - exact.mean) < 0.15 * deviations).all()
    ratio = np.sqrt(np.diag(found.covariance)) / deviations
    assert (ratio < 1.005).all() and (ratio > 0.85).all()
    np.testing.assert_allclose(linear_regression.exact(x, y, points=150).log_evidence, exact.log_evidence, atol=1e-10)


def test_more_columns_than_rows_leave_the_prior_where_nothing_was_seen():
    x, y = np.array([[1.0, 0.0, 0.0]]), np.array([2.0])
    exact = linear_regression.exact(x, y, Prior(4.0, 1.0))
    np.testing.assert_allclose(exact.covariance, np.diag([1 / 5, 1 / 4, 1 / 4]), atol=1e-12)


def test_what_cannot_be_is_said_at_once():
    with pytest.raises(
        ValueError, match=r"x must(.|\n)*y must(.|\n)*weight_rate must(.|\n)*noise must be a tuple \(shape"
    ):
        linear_regression.fit([1.0], [np.nan], Prior((1.0, 0.0), (1.0,)))
    with pytest.raises(
        ValueError, match=r"weight must be a tuple(.|\n)*noise must be .* above 0. Received: noise=-1.0"
    ):
        linear_regression.fit([[1.0]], [1.0], Prior([1.0, 1.0], -1.0))
    with pytest.raises(ValueError, match="x and y must be as many. Received: 1 rows of x, 2 of y"):
        linear_regression.exact([[1.0]], [1.0, 2.0])
