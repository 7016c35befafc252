"""What variational autoencoders reach on the digits: bounds on the log-likelihood, and probabilistic PCA's own.

    .venv/bin/python tests/acceptance/vae.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

About ten minutes on two cores. Of every seed the ELBO must be -18.3 nats, and the importance-weighted bound of 500
samples -17.2 and above a mixture of 50 components. A linear one must come to .02 nats of the most that such a one can,
and by the best posterior of each picture to as much of the log-likelihood, as the exact one is normal there. Where it
is not, an encoder must be below the best posteriors.
"""

import sys
from pathlib import Path

from _digits import independent, mixture, principal
from _runs import Wanted, main

from apps.recipes import vae

WEIGHTED, GAP = -17.2, 0.02  # nats
BEST = principal(8)
LINEAR = {
    **vae.DEFAULTS,
    "size": "linear",
    "epochs": 80,
    "steps_per_epoch": 250,
    "batch_size": 1257,
}


def on_training_data(folder: Path) -> dict[str, float]:
    """Measure the ELBO of what the run learned from, at its end: that is what has a closed form."""
    import numpy as np
    from _digits import grey

    from apps import run_folder
    from tfzoo.variational.bounds import bounds

    last = {name: folder / f"{name}.keras" for name in ("encoder", "decoder")}  # not the best by validation
    model = run_folder.assembled(run_folder.options(folder), last)
    x = grey("training").reshape(-1, 8, 8, 1).astype("float32")
    found = bounds(model, x, 1000)
    return {"training_elbo": float(np.mean(found.elbo))}


RUNS = {
    "digits": Wanted(
        what="black and white digits, ELBO in nats",
        figure="elbo",
        goal=-18.3,
        command="tfzoo train vae",
        published="-86.76 on MNIST, other data and size (Burda et al., 2016, table 1, one layer, k = 1)",
        best=f"{mixture():.2f}, a mixture of 50 components of independent pixels",
        options=vae.DEFAULTS,
    ),
    "linear": Wanted(
        what="digits in greys, a linear model, ELBO of the training data in nats",
        figure="training_elbo",
        goal=round(BEST - GAP, 3),
        command="tfzoo train vae --size linear --epochs 80 --steps-per-epoch 250 --batch-size 1257",
        published="none",
        best=f"{BEST:.3f}, probabilistic PCA in closed form",
        options=LINEAR,
        besides=on_training_data,
    ),
}


def short(results: dict[str, dict]) -> list[str]:
    """Say what falls short."""
    beside = mixture()
    wrong = [
        f"seed {run['seed']}: importance-weighted {run['importance_weighted']:.2f} of {WEIGHTED}"
        for run in results["digits"]["runs"]
        if run["importance_weighted"] < WEIGHTED
    ]
    wrong += [
        f"seed {run['seed']}: {run['importance_weighted']:.2f}, not above the mixture's {beside:.2f}"
        for run in results["digits"]["runs"]
        if run["importance_weighted"] <= beside
    ]
    wrong += [
        f"digits, seed {run['seed']}: an amortisation gap of {run['amortisation_gap']:.3f} nats, not above 0"
        for run in results["digits"]["runs"]
        if run["amortisation_gap"] <= 0
    ]
    return wrong + [
        f"linear, seed {run['seed']}: an approximation gap of {run['approximation_gap']:.3f} nats, above {GAP}"
        for run in results["linear"]["runs"]
        if abs(run["approximation_gap"]) > GAP
    ]


if __name__ == "__main__":
    sys.exit(main(__doc__, "vae", RUNS, least=independent, short=short))
