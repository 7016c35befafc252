"""Precision and recall of generated pictures (Kynkaanniemi et al., 2019, https://arxiv.org/abs/1904.06991).

A set's manifold is estimated by balls around its pictures' features, each as large as the distance to the k-th nearest
other one of the set.

    precision = share of the generated pictures that lie in a ball of a real one
    recall    = share of the real pictures that lie in a ball of a generated one
"""

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

from tfzoo.metrics.accumulators import Rows
from tfzoo.metrics.features import FeatureMetric, Features

ROUNDING = 1e-6  # of the largest norm: squared distances come from products of float64


class PrecisionRecall(FeatureMetric):
    """Precision and recall of generated pictures. It is for evaluation, as `FeatureMetric` says.

    Args:
        features: Of the classifier.
        room: Pictures of either set that are kept, as `Rows` says.
        neighbours: k; 3 as in the paper.
        name: As Keras has it; with it begin the names of what `result` gives.

    Raises:
        ValueError: neighbours is less than 1.
    """

    def __init__(self, features: Features, room: int, neighbours: int = 3, name: str = "generated"):
        super().__init__(features, name)
        check(neighbours)
        self.neighbours = neighbours
        self.real = Rows(room, features.dimensions, "real")
        self.generated = Rows(room, features.dimensions, "generated")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the figures."""
        return (f"{self.name}_precision", f"{self.name}_recall")

    def compute(self) -> dict[str, float]:
        """Give both by name; NaN for no more pictures in a set than neighbours."""
        found = precision_recall(self.real.rows(), self.generated.rows(), self.neighbours)
        return dict(zip(self.names, found, strict=True))


def precision_recall(real: np.ndarray, generated: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """Give precision and recall, in [0, 1]; NaN where a set has no more rows than neighbours.

    Args:
        real: `(N, D)`.
        generated: `(M, D)`.
        neighbours: k; 3 as in the paper.

    Raises:
        ValueError: neighbours is less than 1.
    """
    check(neighbours)
    if min(len(real), len(generated)) <= neighbours:
        return float("nan"), float("nan")
    middle = real.mean(0)  # near 0 the products lose less
    real, generated = real - middle, generated - middle
    slack = ROUNDING * max(np.linalg.norm(rows, axis=1).max() for rows in (real, generated))
    return covered(generated, real, neighbours, slack), covered(real, generated, neighbours, slack)


def covered(rows: np.ndarray, centres: np.ndarray, neighbours: int, slack: float) -> float:
    """Give the share of rows that lie in a ball around a centre, as large as its distance to its k-th neighbour."""
    radii = NearestNeighbors(n_neighbors=neighbours).fit(centres).kneighbors()[0][:, -1] + slack
    inside = pairwise_distances_chunked(rows, centres, reduce_func=lambda block, start: (block <= radii).any(1))
    return float(np.concatenate(list(inside)).mean())


def check(neighbours: int) -> None:
    """Raise a ValueError for fewer than one neighbour."""
    if neighbours < 1:
        raise ValueError(f"a ball reaches to the 1st neighbour or one behind it. Received: neighbours={neighbours}")
