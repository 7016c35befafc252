"""What normalizing flows reach on the digits with noise, against probabilistic PCA, and on two moons.

    .venv/bin/python tests/acceptance/normalizing_flow.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

About five minutes on two cores. Of every seed the held-out digits must have a log-likelihood of 68 nats and one above
that of probabilistic PCA. On two moons a flow must be above a mixture of 10 normal distributions, come to 1 +- .01 when
it is summed over the plane, and give back what went in to 1e-5.
"""

import datetime
import sys
import time

from _runs import Wanted, git, main

from apps.recipes import normalizing_flow

COMPONENTS = 32
INTEGRAL, INVERSE = 0.01, 1e-5
STEPS = 2500


def parts() -> dict:
    """Give the digits with noise, as rows: those for training once, and those held out."""
    import numpy as np

    data = normalizing_flow.datasets("digits", (8, 8, 1), batch_size=1257, seed=0, levels=17)
    found = {"training": data.training.take(1), "held_out": data.held_out}
    return {
        k: np.concatenate([batch[0] for batch in part.as_numpy_iterator()]).reshape(-1, 64).astype("float64")
        for k, part in found.items()
    }


def held_out(k: int) -> float:
    """Give the log-likelihood in nats of the held-out digits by probabilistic PCA of k components, 64 for all."""
    import numpy as np
    from scipy import stats

    x, judged = parts().values()
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    variance = values[:-k].mean() if k < len(values) else 0.0
    covariance = (vectors[:, -k:] * (values[-k:] - variance)) @ vectors[:, -k:].T + variance * np.eye(len(values))
    return float(stats.multivariate_normal(x.mean(0), covariance).logpdf(judged).mean())


def moons(seed: int) -> dict[str, float]:
    """Train a flow on two moons, and a mixture of 10 normal distributions; judge both by other moons."""
    import keras
    import numpy as np
    from sklearn.datasets import make_moons
    from sklearn.mixture import GaussianMixture

    import tfzoo

    x, judged = (make_moons(4000, noise=0.1, random_state=2 * seed + i)[0].astype("float32") for i in (0, 1))
    start = time.perf_counter()
    keras.utils.set_random_seed(seed)
    model = tfzoo.build("normalizing_flow", "plane")
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, STEPS)))
    model.fit(np.tile(x, (-(-STEPS * 200 // len(x)), 1)), batch_size=200, epochs=1, verbose=0)
    minutes = (time.perf_counter() - start) / 60
    line = np.linspace(-4, 5, 451)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype("float32")
    back = model.inverse(np.asarray(model.flow(judged)["latent"]))
    return {
        "seed": seed,
        "commit": git("rev-parse", "HEAD").stdout.strip()[:10],
        "trained": datetime.date.today().isoformat(),
        "minutes": minutes,
        "log_likelihood": float(model.log_prob(judged).mean()),
        "mixture": float(GaussianMixture(10, n_init=3, random_state=seed).fit(x).score(judged)),
        "integral": float(np.exp(model.log_prob(grid).astype("float64")).sum() * (line[1] - line[0]) ** 2),
        "inverse_error": float(np.abs(back - judged).max()),
    }


RUNS = {
    "digits": Wanted(
        what="digits with noise between their greys, log-likelihood in nats",
        figure="log_likelihood",
        goal=68.0,
        command="tfzoo train normalizing_flow",
        published="none: MAF's own figures are of other data (Papamakarios et al., 2017, table 1)",
        best=f"{held_out(64):.2f}, a normal distribution with all covariances; {held_out(COMPONENTS):.2f}, "
        f"probabilistic PCA of {COMPONENTS} components",
        options=normalizing_flow.DEFAULTS,
    ),
}


def short(results: dict[str, dict]) -> list[str]:
    """Add two moons, which is no data of the commands, to what is written, and say what falls short."""
    runs = [moons(run["seed"]) for run in results["digits"]["runs"]]
    results["two_moons"] = {
        "what": "two moons, log-likelihood in nats",
        "figure": "log_likelihood",
        "goal": None,  # above the mixture's
        "command": "tests/acceptance/normalizing_flow.py",
        "published": "none",
        "best": f"{max(run['mixture'] for run in runs):.3f}, a mixture of 10 normal distributions",
        "steps": STEPS,
        "baseline": max(run["mixture"] for run in runs),
        "runs": runs,
    }
    wrong = []
    for run in runs:
        said = (
            f"two moons, seed {run['seed']}: {run['log_likelihood']:.4f} nats (mixture {run['mixture']:.4f}), "
            f"integral {run['integral']:.4f}, inverse to {run['inverse_error']:.1e}, {run['minutes']:.1f} minutes"
        )
        print(said)
        good = run["log_likelihood"] > run["mixture"] and abs(run["integral"] - 1) <= INTEGRAL
        wrong += [] if good and run["inverse_error"] <= INVERSE else [said]
    return wrong


if __name__ == "__main__":
    sys.exit(main(__doc__, "normalizing_flow", RUNS, least=lambda: held_out(COMPONENTS), short=short))
