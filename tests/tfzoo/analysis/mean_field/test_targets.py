"""The closed forms against scipy's densities, an optimiser and quadrature."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from tfzoo.analysis.mean_field.targets import Banana, Gaussian, correlated

COVARIANCE = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])


def test_the_gaussian_is_scipys():
    z = np.random.default_rng(0).normal(size=(7, 3))
    wanted = stats.multivariate_normal(np.zeros(3), COVARIANCE).logpdf(z)
    np.testing.assert_allclose(Gaussian(COVARIANCE).log_density(z), wanted, rtol=1e-12)


def test_the_banana_is_scipys():
    z = np.random.default_rng(0).normal(size=(7, 2))
    wanted = stats.norm.logpdf(z[:, 0]) + stats.norm.logpdf(z[:, 1], 1.2 * z[:, 0] ** 2, 0.4)
    np.testing.assert_allclose(Banana(1.2, 0.4).log_density(z), wanted, rtol=1e-12)


def test_a_correlation_of_nine_tenths():
    found = correlated(0.9).mean_field()
    assert round(found.divergence, 4) == 0.8304
    np.testing.assert_allclose(found.divergence, -np.log(1 - 0.81) / 2, rtol=1e-12)
    np.testing.assert_allclose(found.deviations**2, 0.19, rtol=1e-12)


@pytest.mark.parametrize("bend, wanted", [(3.4, 0.7794), (10 / 3, 0.7708), (3.0, 0.7258)])
def test_the_bananas_of_the_docstring(bend, wanted):
    assert round(Banana(bend, 1.0).mean_field().divergence, 4) == wanted
    assert Banana(bend / 2, 0.5).mean_field().divergence == Banana(bend, 1.0).mean_field().divergence


def test_the_divergence_of_a_gaussian_by_samples():
    covariance, mean, target = np.array([[0.5, 0.1], [0.1, 0.3]]), np.array([0.2, -0.4]), correlated(0.5)
    q = stats.multivariate_normal(mean, covariance)
    z = q.rvs(200_000, np.random.default_rng(0))
    terms = q.logpdf(z) - target.log_density(z)
    assert abs(terms.mean() - target.divergence(mean, covariance)) < 4 * terms.std() / len(z) ** 0.5


def test_the_divergence_of_a_banana_by_quadrature():
    target, mean, deviations = Banana(), (0.3, 0.8), (0.5, 0.7)

    def term(b, a):
        log_q = stats.norm.logpdf(a, mean[0], deviations[0]) + stats.norm.logpdf(b, mean[1], deviations[1])
        return np.exp(log_q) * (log_q - target.log_density(np.array([a, b])))

    wanted = integrate.dblquad(term, -4, 5, -6, 8, epsabs=1e-7)[0]
    np.testing.assert_allclose(target.divergence(np.array(mean), np.array(deviations)), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "target", [correlated(), Banana(), Banana(0.3, 1.0)], ids=["gaussian", "banana", "flat banana"]
)
@pytest.mark.parametrize("seed", range(3))
def test_no_optimiser_finds_a_better_mean_field(target, seed):
    def divergence(parameters):
        scale = np.exp(parameters[2:])
        return target.divergence(parameters[:2], scale if isinstance(target, Banana) else np.diag(scale**2))

    start = np.random.default_rng(seed).normal(size=4)
    found, best = optimize.minimize(divergence, start), target.mean_field()
    np.testing.assert_allclose(found.fun, best.divergence, atol=1e-8)
    np.testing.assert_allclose(found.x[:2], best.mean, atol=1e-4)
    np.testing.assert_allclose(np.exp(found.x[2:]), best.deviations, rtol=1e-4)


@pytest.mark.parametrize("wrong", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.4, 1.0]], [1.0], [[1.0, 0.0]]])
def test_what_is_no_covariance(wrong):
    with pytest.raises(ValueError, match=r"a covariance must be \(D, D\), symmetric and positive definite. Received"):
        Gaussian(wrong)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="correlation must be between -1 and 1. Received: correlation=1"):
        correlated(1)
    with pytest.raises(ValueError, match="curvature must(.|\n)*deviation must be a number above 0"):
        Banana(-1.0, 0.0)
