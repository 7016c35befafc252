"""A Gaussian with unknown mean and precision, by q(mu) q(tau) and exactly (Bishop, 2006, section 10.1.3).

    x_n ~ N(mu, 1/tau),   mu | tau ~ N(m0, 1/(l0 tau)),   tau ~ Gamma(a0, rate b0)

    q(mu)  = N(m, 1/l):    m = (l0 m0 + N mean(x)) / (l0 + N),   l = (l0 + N) E[tau]
    q(tau) = Gamma(a, b):  a = a0 + (N + 1)/2,   b = b0 + E[sum (x_n - mu)^2 + l0 (mu - m0)^2] / 2

The exact posterior is Normal-Gamma, in which mu and tau are uncorrelated but not independent: what q misses is the
widening of mu where tau is small.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln

from tfzoo.analysis.mean_field import ascent, checks
from tfzoo.layers import arguments


@dataclass(frozen=True)
class Prior:
    """The Normal-Gamma prior; the defaults say little about data of scale 1.

    Attributes:
        mean: m0, in the data's unit.
        strength: l0, in observations.
        shape: a0.
        rate: b0, in the data's unit squared.
    """

    mean: float = 0.0
    strength: float = 0.01
    shape: float = 0.01
    rate: float = 0.01


@dataclass(frozen=True)
class NormalGamma:
    """The exact posterior.

    Attributes:
        mean: Of mu.
        strength: l, in observations: the variance of mu given tau is 1/(l tau).
        shape: a of tau.
        rate: b of tau.
        log_evidence: ln p(x) in nats.
    """

    mean: float
    strength: float
    shape: float
    rate: float
    log_evidence: float

    @property
    def variance(self) -> float:
        """The variance of mu, that of a Student's t; infinite where a <= 1."""
        return self.rate / (self.strength * (self.shape - 1)) if self.shape > 1 else math.inf


@dataclass(frozen=True)
class MeanField:
    """q(mu) = N(mean, 1/precision), q(tau) = Gamma(shape, rate).

    Attributes:
        mean: Of mu.
        precision: Of mu.
        shape: Of tau.
        rate: Of tau.
        elbo: In nats, after every update `(T,)`.
        converged: Whether the tolerance was reached.
    """

    mean: float
    precision: float
    shape: float
    rate: float
    elbo: np.ndarray
    converged: bool


def fit(x: np.ndarray, prior: Prior | None = None, tolerance: float = 1e-12, iterations: int = 1000) -> MeanField:
    """Fit q(mu) q(tau) by coordinate ascent.

    Args:
        x: The data `(N,)`.
        prior: None for `Prior()`.
        tolerance: As `ascent.ascend` has it; near rounding, as an update costs nothing.
        iterations: The most updates.

    Returns:
        The factors, and the ELBO after every update.

    Raises:
        ValueError: Names everything that cannot be.
    """
    prior = prior or Prior()
    x = check(x, prior)
    n, middle = len(x), x.mean()
    strength = prior.strength + n
    mean = (prior.strength * prior.mean + n * middle) / strength
    shape = prior.shape + (n + 1) / 2
    # The sum of squares around mu is what it is around m, plus (l0 + N) times the variance of mu.
    around = ((x - mean) ** 2).sum() + prior.strength * (mean - prior.mean) ** 2

    def update(rate):
        precision = strength * shape / rate
        rate = prior.rate + (around + strength / precision) / 2
        return rate, bound(n, around, strength, precision, shape, rate, prior)

    start = prior.rate + around / 2 or 1.0
    rate, elbo, converged = ascent.ascend(update, start, tolerance, iterations)
    # q(mu) by the last q(tau), so that both are the fixed point's.
    return MeanField(float(mean), float(strength * shape / rate), shape, float(rate), elbo, converged)


def bound(n, around, strength, precision, shape, rate, prior) -> float:
    """Give the ELBO: E[ln p(x | mu, tau)] + E[ln p(mu | tau)] + E[ln p(tau)] + H[q(mu)] + H[q(tau)]."""
    tau, log_tau = shape / rate, digamma(shape) - math.log(rate)
    joint = (n + 1) / 2 * (log_tau - math.log(2 * math.pi)) + math.log(prior.strength) / 2
    joint -= tau / 2 * (around + strength / precision)
    joint += prior.shape * math.log(prior.rate) - gammaln(prior.shape) + (prior.shape - 1) * log_tau - prior.rate * tau
    of_mean = (1 + math.log(2 * math.pi / precision)) / 2
    of_precision = shape - math.log(rate) + gammaln(shape) + (1 - shape) * digamma(shape)
    return joint + of_mean + of_precision


def exact(x: np.ndarray, prior: Prior | None = None) -> NormalGamma:
    """Give the exact posterior and the log evidence.

    Args:
        x: The data `(N,)`.
        prior: None for `Prior()`.

    Raises:
        ValueError: Names everything that cannot be.
    """
    prior = prior or Prior()
    x = check(x, prior)
    n, middle = len(x), x.mean()
    strength, shape = prior.strength + n, prior.shape + n / 2
    rate = prior.rate + ((x - middle) ** 2).sum() / 2
    rate += prior.strength * n * (middle - prior.mean) ** 2 / (2 * strength)
    log_evidence = gammaln(shape) - gammaln(prior.shape) + prior.shape * math.log(prior.rate) - shape * math.log(rate)
    log_evidence += math.log(prior.strength / strength) / 2 - n / 2 * math.log(2 * math.pi)
    mean = (prior.strength * prior.mean + n * middle) / strength
    return NormalGamma(float(mean), strength, shape, float(rate), float(log_evidence))


def check(x, prior: Prior) -> np.ndarray:
    """Raise a ValueError for data or a prior that cannot be; give the data in float64."""
    arguments.refuse(
        checks.finite(1, x=x),
        arguments.factors(strength=prior.strength, shape=prior.shape, rate=prior.rate),
        [] if np.isfinite(prior.mean) else [f"mean must be a finite number. Received: mean={prior.mean!r}"],
    )
    return np.asarray(x, "float64")
