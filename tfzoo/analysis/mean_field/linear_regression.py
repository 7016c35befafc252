"""Bayesian linear regression, by q(w) q(alpha) q(beta) and by quadrature (Bishop, 2006, section 10.3).

    y_n ~ N(w . x_n, 1/beta),   w_j ~ N(0, 1/alpha),   alpha ~ Gamma(a0, rate b0),   beta ~ Gamma(c0, rate d0)

    q(w)     = N(m, S):      S^-1 = E[alpha] I + E[beta] X'X,   m = E[beta] S X'y
    q(alpha) = Gamma(a, b):  a = a0 + D/2,   b = b0 + E[w'w]/2
    q(beta)  = Gamma(c, d):  c = c0 + N/2,   d = d0 + E[|y - Xw|^2]/2

Either precision may be given instead. With both, q(w) is the exact posterior and the ELBO is the log evidence.
Otherwise the posterior is a mixture of Gaussians over alpha and beta, which `exact` sums on a grid:

    p(alpha, beta | y) ~ N(y; 0, I/beta + XX'/alpha) p(alpha) p(beta)
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.special import digamma, gammaln, logsumexp

from tfzoo.analysis.mean_field import ascent, checks
from tfzoo.layers import arguments


@dataclass(frozen=True)
class Prior:
    """The priors of the precisions; the defaults say little about columns and targets of scale 1.

    Attributes:
        weight: `(a0, b0)` of alpha, or alpha itself.
        noise: `(c0, d0)` of beta, or beta itself.
    """

    weight: tuple[float, float] | float = (0.01, 0.01)
    noise: tuple[float, float] | float = (0.01, 0.01)


@dataclass(frozen=True)
class MeanField:
    """q(w) = N(mean, covariance), and what is known of the precisions.

    Attributes:
        mean: `(D,)`.
        covariance: `(D, D)`.
        weight: `(a, b)` of q(alpha), or alpha.
        noise: `(c, d)` of q(beta), or beta.
        elbo: In nats, after every update `(T,)`.
        converged: Whether the tolerance was reached.
    """

    mean: np.ndarray
    covariance: np.ndarray
    weight: tuple[float, float] | float
    noise: tuple[float, float] | float
    elbo: np.ndarray
    converged: bool


class Exact(NamedTuple):
    """The exact posterior's moments: mean `(D,)`, covariance `(D, D)`, and ln p(y) in nats."""

    mean: np.ndarray
    covariance: np.ndarray
    log_evidence: float


def fit(
    x: np.ndarray, y: np.ndarray, prior: Prior | None = None, tolerance: float = 1e-12, iterations: int = 1000
) -> MeanField:
    """Fit q(w) q(alpha) q(beta) by coordinate ascent.

    Args:
        x: `(N, D)`; a column of ones for an intercept, which has the prior of the others.
        y: `(N,)`.
        prior: None for `Prior()`.
        tolerance: As `ascent.ascend` has it; near rounding, as an update costs one inverse of D x D.
        iterations: The most updates.

    Returns:
        The factors, and the ELBO after every update.

    Raises:
        ValueError: Names everything that cannot be.
    """
    prior = prior or Prior()
    x, y = check(x, y, prior)
    gram, cross = x.T @ x, x.T @ y

    def update(state):
        (alpha, beta) = mean_of(state[2]), mean_of(state[3])
        covariance = np.linalg.inv(alpha * np.eye(len(gram)) + beta * gram)
        mean = beta * covariance @ cross
        squares = mean @ mean + np.trace(covariance)  # E[w'w]
        residual = y - x @ mean
        errors = residual @ residual + np.trace(gram @ covariance)  # E[|y - Xw|^2]
        weight, noise = after(prior.weight, len(mean), squares), after(prior.noise, len(y), errors)
        elbo = (len(mean) * (1 + math.log(2 * math.pi)) + np.linalg.slogdet(covariance)[1]) / 2
        elbo += expected(prior.weight, weight, len(mean), squares) + expected(prior.noise, noise, len(y), errors)
        return (mean, covariance, weight, noise), elbo

    start = (None, None, before(prior.weight, 1.0), before(prior.noise, float(y.var()) or 1.0))
    state, elbo, converged = ascent.ascend(update, start, tolerance, iterations)
    return MeanField(*state, elbo, converged)


def mean_of(precision) -> float:
    """Give the mean of a Gamma distribution, or the number."""
    return precision[0] / precision[1] if isinstance(precision, tuple) else precision


def before(prior, variance: float):
    """Give what the ascent begins with: a precision of the scale of the data, or the given one."""
    return 1 / variance if isinstance(prior, tuple) else prior


def after(prior, count: int, squares: float):
    """Give q of a precision whose `count` normal variables have a sum of expected squares."""
    return (prior[0] + count / 2, prior[1] + squares / 2) if isinstance(prior, tuple) else prior


def expected(prior, q, count: int, squares: float) -> float:
    """Give E[ln N(values; 0, 1/precision)] - KL(q || prior) of the precision."""
    if not isinstance(prior, tuple):
        return count / 2 * math.log(prior / (2 * math.pi)) - prior / 2 * squares
    (a0, b0), (a, b) = prior, q
    log_mean = digamma(a) - math.log(b)
    divergence = (a - a0) * digamma(a) - gammaln(a) + gammaln(a0) + a0 * math.log(b / b0) + a * (b0 / b - 1)
    return count / 2 * (log_mean - math.log(2 * math.pi)) - a / b / 2 * squares - divergence


def exact(x: np.ndarray, y: np.ndarray, prior: Prior | None = None, points: int = 100) -> Exact:
    """Give the exact posterior of the weights, summed over the unknown precisions.

    Args:
        x: `(N, D)`.
        y: `(N,)`.
        prior: None for `Prior()`.
        points: On the logarithm of each unknown precision, where the trapezoidal rule converges exponentially; 100 and
            150 agree to 1e-10 nats on the diabetes data.

    Raises:
        ValueError: Names everything that cannot be.
    """
    prior = prior or Prior()
    x, y = check(x, y, prior)
    arguments.refuse(arguments.positive(points=points))
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    squares = singular**2  # (K,)
    along = left.T @ y
    rest = max(y @ y - along @ along, 0.0)
    alpha, alpha_weight = grid(prior.weight, points, span(fit(x, y, prior).weight))
    beta, beta_weight = grid(prior.noise, points, span(fit(x, y, prior).noise))
    alpha, beta = alpha[:, None, None], beta[None, :, None]
    variance = 1 / beta + squares / alpha  # of y along each singular vector (A, B, K)
    log_joint = -(np.log(2 * math.pi * variance) + along**2 / variance).sum(-1) / 2
    log_joint += ((len(y) - len(squares)) / 2 * np.log(beta / (2 * math.pi)) - beta / 2 * rest)[..., 0]
    log_joint += alpha_weight[:, None] + beta_weight[None]  # (A, B)
    log_evidence = logsumexp(log_joint)
    share = np.exp(log_joint - log_evidence)[..., None]
    precision = alpha + beta * squares
    means = beta * singular * along / precision  # in the basis of the right singular vectors
    mean = (share * means).sum((0, 1))
    spread = (share * means).reshape(-1, len(squares)).T @ means.reshape(-1, len(squares)) - np.outer(mean, mean)
    covariance = right.T @ (spread + np.diag((share / precision).sum((0, 1)))) @ right
    # What no row of x lies along keeps the prior's variance.
    covariance += (share[..., 0] / alpha[..., 0]).sum() * (np.eye(x.shape[1]) - right.T @ right)
    return Exact(right.T @ mean, covariance, float(log_evidence))


def span(q) -> tuple[float, float]:
    """Give the ends of a grid over the logarithm of a precision: far beyond q, whose tails are too short."""
    if not isinstance(q, tuple):
        return 0.0, 0.0
    middle, deviation = digamma(q[0]) - math.log(q[1]), q[0] ** -0.5
    return middle - 12 * deviation - 1, middle + 12 * deviation + 1


def grid(prior, points: int, ends: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Give precisions and the logarithms of what their prior has of each; one point for a given precision."""
    if not isinstance(prior, tuple):
        return np.array([prior], "float64"), np.zeros(1)
    a, b = prior
    logs = np.linspace(*ends, points)
    log_density = a * math.log(b) - gammaln(a) + a * logs - b * np.exp(logs)  # of the logarithm
    return np.exp(logs), log_density + math.log(logs[1] - logs[0])


def check(x, y, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Raise a ValueError for data or a prior that cannot be; give the data in float64."""
    problems = checks.finite(2, x=x) + checks.finite(1, y=y)
    problems += [] if problems else checks.as_many(x, y)
    for name, value in (("weight", prior.weight), ("noise", prior.noise)):
        if isinstance(value, tuple) and len(value) == 2:
            problems += arguments.factors(**{f"{name}_shape": value[0], f"{name}_rate": value[1]})
        elif not isinstance(value, Real) or arguments.factors(**{name: value}):
            problems.append(f"{name} must be a tuple (shape, rate) or a precision above 0. Received: {name}={value!r}")
    arguments.refuse(problems)
    return np.asarray(x, "float64"), np.asarray(y, "float64")
