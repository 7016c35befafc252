"""What normalizing flows reach on the digits with noise, against probabilistic PCA, and on two moons.

    .venv/bin/python tests/acceptance/normalizing_flow.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

About five minutes on two cores. Of every seed the held-out digits must have a log-likelihood of 68 nats and one above
that of probabilistic PCA. On two moons a flow must be above a mixture of 10 normal distributions, come to 1 +- .01 when
it is summed over the plane, and give back what went in to 1e-5.
"""

import sys

from _runs import Own, Wanted, main

from apps.recipes import normalizing_flow

COMPONENTS = 32
INTEGRAL, INVERSE = 0.01, 1e-5
POINTS, NOISE = 40_000, 0.1  # of two moons: for the mixture, too
STEPS, BATCH = 4000, 500


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
    """Train a flow on two moons, and a mixture of 10 normal distributions on the same; judge both by other moons."""
    import keras
    import numpy as np
    from sklearn.datasets import make_moons
    from sklearn.mixture import GaussianMixture

    import tfzoo

    sizes = {2 * seed: POINTS, 2 * seed + 1: 4000}
    x, judged = (make_moons(n, noise=NOISE, random_state=i)[0].astype("float32") for i, n in sizes.items())
    keras.utils.set_random_seed(seed)
    model = tfzoo.build("normalizing_flow", "plane")
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, STEPS)))
    order = np.concatenate(
        [np.random.default_rng([seed, i]).permutation(POINTS) for i in range(STEPS * BATCH // POINTS)]
    )
    model.fit(x[order], batch_size=BATCH, epochs=1, verbose=0, shuffle=False)
    line = np.linspace(-4, 5, 451)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype("float32")
    back = model.inverse(np.asarray(model.flow(judged)["latent"]))
    return {
        "log_likelihood": float(model.log_prob(judged).mean()),
        "mixture": float(GaussianMixture(10, n_init=3, random_state=seed).fit(x).score(judged)),
        "exact": exact(judged.astype("float64")),
        "integral": float(np.exp(model.log_prob(grid).astype("float64")).sum() * (line[1] - line[0]) ** 2),
        "inverse_error": float(np.abs(back - judged).max()),
    }


def exact(points) -> float:
    """Give the log-likelihood in nats of points by what two moons are drawn from, by 1,000 places on each arc."""
    import numpy as np
    from scipy.special import logsumexp

    angle = (np.arange(1000) + 0.5) / 1000 * np.pi
    arcs = [np.stack([np.cos(angle), np.sin(angle)], -1), np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], -1)]
    squares = ((points[:, None] - np.concatenate(arcs)) ** 2).sum(-1) / NOISE**2
    return float((logsumexp(-squares / 2, 1) - np.log(2000 * 2 * np.pi * NOISE**2)).mean())


def each(runs: list[dict], name: str) -> str:
    """Give a figure of every seed, from the lowest to the highest, as docs/figures.py does."""
    return " ".join(f"{value:.3f}" for value in sorted(run[name] for run in runs))


def falls_short(run: dict) -> bool:
    """Tell whether a flow is not above the mixture, sums to another number than 1, or does not give back its input."""
    good = run["log_likelihood"] > run["mixture"] and abs(run["integral"] - 1) <= INTEGRAL
    return not (good and run["inverse_error"] <= INVERSE)


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


MOONS = Own(
    {
        "what": f"two moons, {POINTS:,} points, log-likelihood in nats, above the mixture's",
        "figure": "log_likelihood",
        "command": "tests/acceptance/normalizing_flow.py two_moons",
        "published": "none",
        "best": lambda runs: (
            f"{each(runs, 'exact')}, exact; {each(runs, 'mixture')}, a mixture of 10 normal distributions"
        ),
        "steps": STEPS,
        "baseline": None,
    },
    moons,
    falls_short,
)


if __name__ == "__main__":
    sys.exit(main(__doc__, "normalizing_flow", RUNS, {"two_moons": MOONS}, least=lambda: held_out(COMPONENTS)))
