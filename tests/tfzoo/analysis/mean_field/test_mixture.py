"""Against the densities of scipy, the sum over all assignments, and Student's t; and known clusters are found."""

import numpy as np
import pytest
from scipy import stats

from tfzoo.analysis.mean_field import mixture
from tfzoo.analysis.mean_field.mixture import Prior

PRIOR = Prior(0.8, np.array([0.3, -0.2]), 0.5, 1.7, 3.5)


def clusters(seed=0, each=(12, 20, 15), distance=6.0):
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal((distance * i, -distance * i**2 / 2), 1, (n, 2)) for i, n in enumerate(each)])


@pytest.mark.parametrize("seed", range(15))
def test_the_elbo_never_decreases(seed):
    random = np.random.default_rng(seed)
    d = random.integers(1, 4)
    x = random.normal(size=(random.integers(5, 60), d)) * random.uniform(0.1, 5) + random.normal(size=d)
    found = mixture.fit(x, int(random.integers(1, 6)), Prior(*random.uniform(0.05, 3, 4)), seed)
    assert found.converged
    assert (np.diff(found.elbo) >= -1e-9 * np.abs(found.elbo[1:])).all()


def test_the_elbo_is_that_of_the_densities():
    """By samples and scipy: as q is conjugate, E_r[ln p(x, Z, theta)] - ln q(theta) is one number wherever theta is."""
    x = clusters(each=(3, 5, 4), distance=2.0)
    found = mixture.fit(x, 3, PRIOR)
    r = found.responsibilities
    q = mixture.posterior(x, r, PRIOR)
    random, count = np.random.default_rng(1), 20
    pi = stats.dirichlet(q.concentration).rvs(count, random)
    terms = stats.dirichlet([PRIOR.concentration] * 3).logpdf(pi.T) - stats.dirichlet(q.concentration).logpdf(pi.T)
    terms += np.log(pi) @ r.sum(0) - (r * np.log(r)).sum()
    for k in range(3):
        own = stats.wishart(q.degrees[k], np.linalg.inv(q.inverse_scale[k]))
        precision = own.rvs(count, random)
        terms += stats.wishart(PRIOR.degrees, np.eye(2) / PRIOR.scale).logpdf(np.moveaxis(precision, 0, -1))
        terms -= own.logpdf(np.moveaxis(precision, 0, -1))
        for i in range(count):
            covariance = np.linalg.inv(precision[i])
            mean = random.multivariate_normal(q.mean[k], covariance / q.strength[k])
            at = stats.multivariate_normal(mean, covariance)
            terms[i] += stats.multivariate_normal(PRIOR.mean, covariance / PRIOR.strength).logpdf(mean)
            terms[i] -= stats.multivariate_normal(q.mean[k], covariance / q.strength[k]).logpdf(mean)
            terms[i] += r[:, k] @ at.logpdf(x)
    np.testing.assert_allclose(terms, mixture.bound(x, r, q, PRIOR), rtol=1e-10)


def test_the_responsibilities_are_the_expected_densities():
    """By samples again: softmax of E[ln pi_k + ln N(x_n; mu_k, 1/Lambda_k)]."""
    x = clusters(each=(3, 5), distance=2.0)
    q, random, log_r = mixture.fit(x, 2, PRIOR).parameters, np.random.default_rng(2), []
    pi = np.log(stats.dirichlet(q.concentration).rvs(4000, random)).mean(0)
    for k in range(2):
        precision = stats.wishart(q.degrees[k], np.linalg.inv(q.inverse_scale[k])).rvs(4000, random)
        root = np.linalg.cholesky(np.linalg.inv(precision) / q.strength[k])
        apart = x[:, None] - q.mean[k] - np.einsum("sij,sj->si", root, random.normal(size=(4000, 2)))
        quadratic = np.einsum("nsi,sij,nsj->ns", apart, precision, apart)
        log_r.append(pi[k] + (np.linalg.slogdet(precision)[1] - quadratic).mean(1) / 2)
    wanted = np.exp(log_r) / np.exp(log_r).sum(0)
    np.testing.assert_allclose(mixture.assign(x, q), wanted.T, atol=0.02)


def test_one_component_is_exact():
    """Its evidence is the product of the predictions, which are Student's t (Murphy, 2007)."""
    x, wanted = clusters(each=(6,)), 0.0
    for i in range(len(x)):
        q = mixture.posterior(x[:i], np.ones((i, 1)), PRIOR)
        free = q.degrees[0] - 1
        scale = q.inverse_scale[0] * (q.strength[0] + 1) / (q.strength[0] * free)
        wanted += stats.multivariate_t(q.mean[0], scale, free).logpdf(x[i])
    np.testing.assert_allclose(mixture.fit(x, 1, PRIOR).elbo[-1], wanted, rtol=1e-12)
    np.testing.assert_allclose(mixture.log_evidence(x, 1, PRIOR), wanted, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_elbo_is_below_the_evidence_by_little_more_than_the_orders(seed):
    x = clusters(seed, each=(4, 5), distance=8.0)
    found = mixture.fit(x, 2, PRIOR, starts=5)
    gap = mixture.log_evidence(x, 2, PRIOR) - found.elbo[-1]
    assert 0 < gap < np.log(2) + 0.3


def test_clusters_are_found_and_what_is_too_many_is_emptied():
    x = clusters()
    found = mixture.fit(x, 6, Prior(1e-3), starts=5)
    kept = np.flatnonzero(found.parameters.weights > 0.01)
    assert len(kept) == 3
    order = kept[np.argsort(found.parameters.mean[kept, 0])]
    np.testing.assert_allclose(found.parameters.weights[order], np.array([12, 20, 15]) / 47, atol=0.01)
    for k, part in zip(order, np.split(x, [12, 32]), strict=True):
        np.testing.assert_allclose(found.parameters.mean[k], part.mean(0), atol=0.05)
        assert np.abs(found.parameters.covariance[k] - np.cov(part.T)).max() < 0.6


def test_more_starts_are_no_worse():
    x = clusters(distance=2.0)
    assert mixture.fit(x, 4, starts=6).elbo[-1] >= mixture.fit(x, 4).elbo[-1]


def test_rows_that_are_all_the_same():
    assert np.isfinite(mixture.fit(np.ones((4, 2)), 3).elbo).all()


def test_what_cannot_be_is_said_at_once():
    with pytest.raises(ValueError, match=r"x must(.|\n)*components must(.|\n)*starts must(.|\n)*strength must"):
        mixture.fit([1.0], 0, Prior(strength=0.0), starts=0)
    with pytest.raises(ValueError, match=r"mean must be finite, one number or 2(.|\n)*degrees must be above D - 1 = 1"):
        mixture.fit([[1.0, 2.0]], 2, Prior(mean=np.zeros(3), degrees=1.0))
    with pytest.raises(ValueError, match="200,000 can be. Received: 2 components, 47 rows"):
        mixture.log_evidence(clusters(), 2)
