"""How far two sets of pictures lie apart in a classifier's features: Frechet and kernel distance.

    Frechet distance = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))
    kernel distance  = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),    k(a, b) = (a b / D + 1)^3

Frechet (Heusel et al., 2017, https://arxiv.org/abs/1706.08500) is that of two Gaussians with the sets' means and
covariances; it is biased upwards for few pictures, and of fewer than D the covariance is singular. The kernel distance
(Binkowski et al., 2018, https://arxiv.org/abs/1801.01401) is the unbiased estimate of a squared maximum mean
discrepancy: the first two means leave the pairs of a row with itself out, so it is around 0, and as often below, where
the two sets are of one kind.
"""

import numpy as np
import scipy.linalg

from tfzoo.metrics.accumulators import Moments, Rows
from tfzoo.metrics.features import FeatureMetric, Features

BLOCK = 1024  # rows whose kernel is held at once


class FrechetDistance(FeatureMetric):
    """The Frechet distance of real and generated pictures, from 0. It is for evaluation, as `FeatureMetric` says.

    Args:
        features: Of the classifier; a table of D x D float64 is kept for either set, by every replica.
        name: As Keras has it.
    """

    def __init__(self, features: Features, name: str = "frechet_distance"):
        super().__init__(features, name)
        self._direction = "down"
        self.real = Moments(features.dimensions, "real")
        self.generated = Moments(features.dimensions, "generated")

    def compute(self) -> dict[str, float]:
        """Give the distance by its name; NaN for fewer than 2 pictures in a set."""
        return {self.name: frechet_distance(*self.real.moments(), *self.generated.moments())}


class KernelDistance(FeatureMetric):
    """The kernel distance of real and generated pictures. It is for evaluation, as `FeatureMetric` says.

    Args:
        features: Of the classifier.
        room: Pictures of either set that are kept, as `Rows` says.
        subsets: As `kernel_distance` has it.
        subset_size: The same.
        seed: The same.
        name: As Keras has it.
    """

    def __init__(
        self,
        features: Features,
        room: int,
        subsets: int = 0,
        subset_size: int = 1000,
        seed: int = 0,
        name: str = "kernel_distance",
    ):
        super().__init__(features, name)
        self._direction = "down"
        self.options = {"subsets": subsets, "subset_size": subset_size, "seed": seed}
        self.real = Rows(room, features.dimensions, "real")
        self.generated = Rows(room, features.dimensions, "generated")

    def compute(self) -> dict[str, float]:
        """Give the distance by its name; NaN for fewer than 2 pictures in a set."""
        return {self.name: kernel_distance(self.real.rows(), self.generated.rows(), **self.options)}


def frechet_distance(mean1, covariance1, mean2, covariance2) -> float:
    """Give the squared Frechet distance of two Gaussians; NaN where one has no numbers.

    With S = F F^T, Tr (S1 S2)^(1/2) is the sum of the singular values of F1^T F2, which needs no root of a matrix that
    is not symmetric.

    Args:
        mean1: `(D,)`.
        covariance1: `(D, D)`, symmetric.
        mean2: `(D,)`.
        covariance2: `(D, D)`.
    """
    if not all(np.isfinite(values).all() for values in (mean1, covariance1, mean2, covariance2)):
        return float("nan")
    cross = scipy.linalg.svdvals(factor(covariance1).T @ factor(covariance2)).sum()
    distance = np.square(mean1 - mean2).sum() + np.trace(covariance1) + np.trace(covariance2) - 2 * cross
    return max(float(distance), 0.0)  # below only by rounding


def factor(covariance: np.ndarray) -> np.ndarray:
    """Give F with F F^T the covariance `(D, D)`; eigenvalues that are only rounding become 0."""
    values, vectors = scipy.linalg.eigh(covariance)
    rounding = len(values) * np.finfo(float).eps * max(values[-1], 0)
    return vectors * np.sqrt(np.where(values > rounding, values, 0))


def kernel_distance(
    real: np.ndarray, generated: np.ndarray, subsets: int = 0, subset_size: int = 1000, seed: int = 0
) -> float:
    """Give the unbiased squared maximum mean discrepancy; NaN for fewer than 2 rows.

    Args:
        real: `(N, D)`.
        generated: `(M, D)`.
        subsets: Draw so many subsets of either set, without replacement in each, and give the mean of their distances,
            as published figures are (100 subsets of 1000); 0 takes all rows at once.
        subset_size: Rows of a subset; no more than there are.
        seed: Decides the subsets, together with the rows, whatever order they come in.

    Raises:
        ValueError: A subset has fewer than 2 rows, or more than there are.
    """
    if min(len(real), len(generated)) < 2:
        return float("nan")
    if not subsets:
        return discrepancy(real, generated)
    if not 2 <= subset_size <= min(len(real), len(generated)):
        raise ValueError(
            "a subset has at least 2 rows and no more than either set. Received: "
            f"subset_size={subset_size}, {len(real)} real rows, {len(generated)} generated"
        )
    real, generated = (rows[np.lexsort(rows.T[::-1])] for rows in (real, generated))
    rng = np.random.default_rng(seed)
    draws = [
        [rows[rng.choice(len(rows), subset_size, replace=False)] for rows in (real, generated)] for _ in range(subsets)
    ]
    return float(np.mean([discrepancy(*draw) for draw in draws]))


def discrepancy(real: np.ndarray, generated: np.ndarray) -> float:
    """Give the unbiased estimate of all rows, `(N, D)` and `(M, D)`, N and M from 2."""
    own = [
        (sum_of_kernels(rows, rows) - sum_of_own(rows)) / (len(rows) * (len(rows) - 1)) for rows in (real, generated)
    ]
    return float(sum(own) - 2 * sum_of_kernels(real, generated) / (len(real) * len(generated)))


def sum_of_kernels(a: np.ndarray, b: np.ndarray) -> float:
    """Sum the kernel of all pairs of rows, block by block."""
    blocks = (a[start : start + BLOCK] for start in range(0, len(a), BLOCK))
    return sum(np.sum((block @ b.T / a.shape[1] + 1) ** 3) for block in blocks)


def sum_of_own(rows: np.ndarray) -> float:
    """Sum the kernel of each row with itself."""
    return np.sum((np.square(rows).sum(1) / rows.shape[1] + 1) ** 3)
