"""What the vector-quantised autoencoder reaches on the digits, beside k-means of pictures and of patches.

    .venv/bin/python tests/acceptance/vq_vae.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

About five minutes on two cores. The fair yardstick is k-means of 2x2 patches: 16 codes of 64 for a picture, as the
model has, which it must beat. k-means of whole pictures gives them one code. The prior must need fewer nats than
positions that are independent of one another.
"""

import functools
import sys
from pathlib import Path

import numpy as np
from _digits import grey
from _runs import Wanted, main

from apps.recipes import vq_vae

CODES = 64


def decibels(error: float) -> float:
    """Give the PSNR of a squared error, of a largest pixel of 1."""
    return float(-10 * np.log10(error))


def k_means(training: np.ndarray, held_out: np.ndarray, codes: int) -> float:
    """Give the mean squared error of held-out rows, by k-means of those for training."""
    from sklearn.cluster import KMeans

    found = KMeans(codes, n_init=3, random_state=0).fit(training)
    return float(np.square(held_out - found.cluster_centers_[found.predict(held_out)]).mean())


@functools.cache
def of_pictures(codes: int) -> float:
    """Give the error of k-means of whole pictures."""
    return k_means(grey("training"), grey("held_out"), codes)


@functools.cache
def of_patches() -> float:
    """Give the PSNR of k-means of 2x2 patches."""

    def patches(part):
        return grey(part).reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4)

    return decibels(k_means(patches("training"), patches("held_out"), CODES))


def independent(folder: Path) -> dict[str, float]:
    """Measure a picture's codes in nats by positions that are independent, counted in the data for training."""
    from apps import run_folder

    model = run_folder.load(folder)
    rows = [
        model.encode(grey(part).reshape(-1, 8, 8, 1).astype("float32")).reshape(-1, 16)
        for part in ("training", "held_out")
    ]
    counts = np.stack([np.bincount(column, minlength=CODES) for column in rows[0].T]) + 0.5
    share = counts / counts.sum(1, keepdims=True)
    return {"independent_nats": float(-np.log(share[np.arange(16), rows[1]]).sum(1).mean())}


RUNS = {
    "digits": Wanted(
        what="digits in greys, 16 codes of 64 for a picture, PSNR in dB",
        figure="psnr",
        goal=23.5,
        command="tfzoo train vq_vae",
        published="none on this data",
        best=(
            f"{of_patches():.2f}, k-means of 2x2 patches, as many bits; of whole pictures, one code for each, "
            f"{decibels(of_pictures(64)):.2f} (64 codes) and {decibels(of_pictures(128)):.2f} (128)"
        ),
        options=vq_vae.DEFAULTS,
        besides=independent,
    ),
}


def short(results: dict[str, dict]) -> list[str]:
    """Say what falls short."""
    return [
        f"seed {run['seed']}: the prior's {run['prior_nats']:.2f} nats, not below {run['independent_nats']:.2f}"
        for run in results["digits"]["runs"]
        if run["prior_nats"] >= run["independent_nats"]
    ]


if __name__ == "__main__":
    sys.exit(main(__doc__, "vq_vae", RUNS, least=of_patches, short=short))
