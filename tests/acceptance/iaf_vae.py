"""What inverse autoregressive flows reach: on the digits beside a diagonal posterior, and on densities of the plane.

    .venv/bin/python tests/acceptance/iaf_vae.py [RUN ...] [--output FILE] [--runs DIR] [--seeds N]

About half an hour on two cores. Of every seed both bounds must be above those of the same networks without a flow, and
these above the log-likelihood by a mixture of 50 components. With four steps the divergence from a Gaussian of
correlation .9 and from the banana, whose best mean fields have .8304 and .7794, must be .01 at most.
"""

import sys

from _digits import independent, mixture
from _runs import Own, Wanted, main

from apps.recipes import iaf_vae

PUBLISHED = "-79.10 on MNIST, other data and size (Kingma et al., 2016, table 1, importance-weighted)"
NEAR = 0.01  # nats
STEPS, SAMPLES = 4000, 1000
BEST = f"{mixture():.2f}, a mixture of 50 components of independent pixels"


def wanted(what: str, goal: float, command: str, **options) -> Wanted:
    """Say what a run on the digits should reach."""
    options = {**iaf_vae.DEFAULTS, **options}
    return Wanted(what, "elbo", goal, command, PUBLISHED, BEST, options)


RUNS = {
    "dense": wanted("black and white digits, ELBO in nats", -17.9, "tfzoo train iaf_vae"),
    "no_flow": wanted(
        "the same without a flow",
        -18.3,
        "tfzoo train iaf_vae --set blocks=0",
        settings={"blocks": 0},
    ),
    "ladder": wanted(
        "a ladder of two levels", -18.3, "tfzoo train iaf_vae --size ladder --epochs 80", size="ladder", epochs=80
    ),
}


def fitted(target, seed: int) -> float:
    """Fit a flow of four steps to a density of the plane, and give KL(q || p) in nats by 100,000 samples."""
    import keras
    import numpy as np
    import tensorflow as tf

    import tfzoo
    from tfzoo.iaf_vae import inferred

    keras.utils.set_random_seed(seed)
    model = tfzoo.build(
        "iaf_vae", latents=2, blocks=4, flow_units=(64, 64), activation="silu", encoder_units=(), context=1
    )
    networks = model.networks()
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, STEPS))
    weights = [w for name in ("encoder", "flow") for w in networks[name].trainable_variables]
    optimizer.build(weights)

    def log_ratio(noise):
        """log q - log p of the latents of noise `(S, 2)`; of no picture at all, only biases count."""
        made = inferred(networks, tf.zeros((len(noise), 8, 8, 1)), noise)
        from tensorflow_probability import distributions as tfd

        start = tfd.Normal(made["start_mean"], tf.exp(made["start_log_scale"])).log_prob(made["start"])
        return tf.reduce_sum(start - made["log_determinant"], -1) - target.log_density(made["latent"])

    @tf.function
    def step(number):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(log_ratio(tf.random.stateless_normal((SAMPLES, 2), [seed, number])))
        optimizer.apply(tape.gradient(loss, weights), weights)

    for number in tf.range(STEPS):
        step(number)
    noise = np.random.default_rng(seed).normal(size=(100, 1000, 2)).astype("float32")
    return float(np.mean([log_ratio(some) for some in noise]))


def planes(seed: int) -> dict[str, float]:
    """Give the divergences from both densities."""
    from tfzoo.analysis.mean_field.targets import Banana, correlated

    found = {"gaussian": fitted(correlated(0.9), seed), "banana": fitted(Banana(), seed)}
    return {**found, "greatest": max(found.values())}


PLANE = Own(
    {
        "what": "a Gaussian of correlation .9 and the banana, the greater divergence in nats, at most .01",
        "figure": "greatest",
        "command": "tests/acceptance/iaf_vae.py plane",
        "published": "none",
        "best": "0; the best mean fields .8304 and .7794",
        "steps": STEPS,
        "baseline": 0.8304,
    },
    planes,
    lambda run: run["greatest"] > NEAR,
)


def short(results: dict[str, dict]) -> list[str]:
    """Say where a flow, none, and the mixture do not come in this order."""
    beside, wrong = mixture(), []
    for flow, none in zip(results["dense"]["runs"], results["no_flow"]["runs"], strict=True):
        for figure in ("elbo", "importance_weighted"):
            some = [flow[figure], none[figure], beside]
            if some != sorted(some, reverse=True):
                wrong.append(
                    f"seed {flow['seed']}: {figure} with a flow, without one, a mixture: {some}, in no such order"
                )
    return wrong


if __name__ == "__main__":
    sys.exit(main(__doc__, "iaf_vae", RUNS, {"plane": PLANE}, least=independent, short=short))
