"""All measures of generated pictures at once, from one pass through the classifier."""

from collections.abc import Iterable

import numpy as np
from keras import ops

from tfzoo.metrics.feature_distance import frechet_distance, kernel_distance
from tfzoo.metrics.features import Features
from tfzoo.metrics.precision_recall import precision_recall


def evaluate(
    real: Iterable,
    generated: Iterable,
    features: Features,
    *,
    neighbours: int = 3,
    subsets: int = 0,
    subset_size: int = 1000,
    seed: int = 0,
) -> dict[str, float | int | str]:
    """Compare generated pictures with real ones; best with some that the classifier was not trained on.

    Args:
        real: Batches of pictures `(B, ...)`: a finite `tf.data.Dataset`, or a list of arrays.
        generated: The same, in the same range of values.
        features: Of the classifier.
        neighbours: As `precision_recall` has it.
        subsets: As `kernel_distance` has it.
        subset_size: The same.
        seed: The same.

    Returns:
        `frechet_distance`, `kernel_distance`, `precision`, `recall`; `real` and `generated`, the numbers of pictures;
        `classifier`, `layer`, `weights` and `dimensions`, without which the figures mean nothing.

    Raises:
        ValueError: A set has too few pictures for one of the measures.
    """
    rows = {name: rows_of(batches, features) for name, batches in (("real", real), ("generated", generated))}
    least = max(2, neighbours + 1, subset_size if subsets else 0)
    if min(len(found) for found in rows.values()) < least:
        raise ValueError(
            f"with neighbours={neighbours}, subsets={subsets}, subset_size={subset_size} either set needs {least} "
            f"pictures. Received: {len(rows['real'])} real, {len(rows['generated'])} generated"
        )
    moments = [moment for found in rows.values() for moment in (found.mean(0), np.atleast_2d(np.cov(found.T)))]
    precision, recall = precision_recall(*rows.values(), neighbours)
    return {
        "frechet_distance": frechet_distance(*moments),
        "kernel_distance": kernel_distance(*rows.values(), subsets, subset_size, seed),
        "precision": precision,
        "recall": recall,
        **{name: len(found) for name, found in rows.items()},
        **features.describe(),
    }


def rows_of(batches: Iterable, features: Features) -> np.ndarray:
    """Give the features of all pictures `(N, D)`, float64."""
    found = [ops.convert_to_numpy(features(batch)) for batch in batches]
    return np.concatenate([np.zeros((0, features.dimensions)), *found]).astype("float64")
