"""Densities whose best mean-field Gaussian is known in closed form.

Of N(0, C) with the precision P = 1/C, the best q has the variances 1/P_jj (Bishop, 2006, section 10.1.2), and

    KL(q || p) = (sum_j ln P_jj + ln |C|) / 2           -ln(1 - r^2)/2 for two of correlation r: .8304 for r = .9

Of the banana z_1 ~ N(0, 1), z_2 | z_1 ~ N(c z_1^2, s^2) it is centred at (0, c u), with the variances u and s^2. Only
the bend k = c/s matters:

    KL(q || p) = u/2 - ln(u)/2 - 1/2 + k^2 u^2,   u = (sqrt(1 + 16 k^2) - 1) / (8 k^2)

The default is c = 1.7 and s = .5, of bend 3.4 and divergence .7794. A bend of 10/3 (c = 1, s = .3) has .7708, and 3,
that of Haario et al. (1999), with z_1 of variance 100 and c = .03 there, has .7258.
"""

import math
from dataclasses import dataclass

import numpy as np

from tfzoo.layers import arguments


@dataclass(frozen=True)
class MeanField:
    """The best Gaussian of independent variables: mean `(D,)`, deviations `(D,)`, KL(q || p) in nats."""

    mean: np.ndarray
    deviations: np.ndarray
    divergence: float


class Gaussian:
    """N(0, C).

    Args:
        covariance: C `(D, D)`.

    Raises:
        ValueError: That is no covariance.
    """

    def __init__(self, covariance: np.ndarray):
        self.covariance = covariance = np.asarray(covariance, "float64")
        square = covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1] > 0
        if not square or not np.array_equal(covariance, covariance.T) or not (np.linalg.eigvalsh(covariance) > 0).all():
            raise ValueError(
                f"a covariance must be (D, D), symmetric and positive definite. Received: {covariance.tolist()}"
            )
        self.precision = np.linalg.inv(covariance)
        self.log_normaliser = float(np.linalg.slogdet(2 * math.pi * covariance)[1]) / 2

    def log_density(self, z):
        """Give ln p `(S,)` of `(S, D)`, arrays or tensors: it is made of their own arithmetic."""
        rows = enumerate(self.precision)
        quadratic = sum(p * z[..., i] * z[..., j] for i, row in rows for j, p in enumerate(row.tolist()))
        return -quadratic / 2 - self.log_normaliser

    def divergence(self, mean: np.ndarray, covariance: np.ndarray) -> float:
        """Give KL(q || p) in nats of a Gaussian q with a mean `(D,)` and a covariance `(D, D)`."""
        ratio = self.precision @ covariance
        quadratic = np.trace(ratio) + mean @ self.precision @ mean
        return float(quadratic - len(ratio) - np.linalg.slogdet(ratio)[1]) / 2

    def mean_field(self) -> MeanField:
        """Give the best Gaussian of independent variables."""
        precisions = np.diag(self.precision)
        divergence = (np.log(precisions).sum() + np.linalg.slogdet(self.covariance)[1]) / 2
        return MeanField(np.zeros(len(precisions)), precisions**-0.5, float(divergence))


def correlated(correlation: float = 0.9) -> Gaussian:
    """Give two variables of variance 1.

    Args:
        correlation: Between -1 and 1.

    Raises:
        ValueError: It is not.
    """
    if not -1 < correlation < 1:
        raise ValueError(f"correlation must be between -1 and 1. Received: correlation={correlation!r}")
    return Gaussian([[1.0, correlation], [correlation, 1.0]])


class Banana:
    """z_1 ~ N(0, 1), z_2 | z_1 ~ N(c z_1^2, s^2).

    Args:
        curvature: c.
        deviation: s.

    Raises:
        ValueError: curvature or deviation is not above 0.
    """

    def __init__(self, curvature: float = 1.7, deviation: float = 0.5):
        arguments.refuse(arguments.factors(curvature=curvature, deviation=deviation))
        self.curvature, self.deviation = curvature, deviation

    def log_density(self, z):
        """Give ln p `(S,)` of `(S, 2)`, arrays or tensors: it is made of their own arithmetic."""
        first = z[..., 0]
        second = (z[..., 1] - self.curvature * first**2) / self.deviation
        return -(first**2 + second**2) / 2 - math.log(2 * math.pi * self.deviation)

    def divergence(self, mean: np.ndarray, deviations: np.ndarray) -> float:
        """Give KL(q || p) in nats of a Gaussian q of independent variables: mean `(2,)`, deviations `(2,)`."""
        (m, other), (v, w) = mean, np.square(deviations)
        # z_1^2 has the mean m^2 + v and the variance 2 v^2 + 4 m^2 v.
        apart = w + (other - self.curvature * (m**2 + v)) ** 2 + self.curvature**2 * (2 * v**2 + 4 * m**2 * v)
        return float(m**2 + v + apart / self.deviation**2 - 2 - math.log(v * w / self.deviation**2)) / 2

    def mean_field(self) -> MeanField:
        """Give the best Gaussian of independent variables."""
        bend = (self.curvature / self.deviation) ** 2
        variance = (math.sqrt(1 + 16 * bend) - 1) / (8 * bend)
        divergence = variance / 2 - math.log(variance) / 2 - 0.5 + bend * variance**2
        mean, deviations = [0.0, self.curvature * variance], [math.sqrt(variance), self.deviation]
        return MeanField(np.array(mean), np.array(deviations), divergence)
