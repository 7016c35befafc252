"""Which direction of a flow is one parallel pass and which goes number by number: densities against samples.

    .venv/bin/python benchmarks/flows.py [--output FILE]        a minute on two cores

MAF gives the density of pictures of D numbers in one pass of its networks, and samples in D of them; RealNVP does both
in one. An inverse autoregressive flow samples in one, by a pass like that of MAF's density.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from _measure import compare, finish, options  # noqa: E402  first: it quietens TensorFlow

COUNT, ROUNDS = 256, 15
GOALS = {"maf: density / samples": 0.2, "realnvp: samples / density": 1.5, "iaf: samples / maf: density": 1.5}


def main() -> int:
    """Measure, print and write; the exit code."""
    import numpy as np
    import tensorflow as tf

    import tfzoo
    from tfzoo.variational.model import normal

    options().parse_args()
    x, z = np.random.default_rng(0).random((COUNT, 8, 8, 1), "float32"), normal(COUNT, (64,), 0)
    maf, realnvp = (tfzoo.build("normalizing_flow", size) for size in ("digits", "realnvp"))
    iaf = tfzoo.build("iaf_vae", latents=64, blocks=5, flow_units=(256,), context=1).flow  # of as many blocks as MAF
    given = {"start": tf.constant(z), "context": tf.zeros((COUNT, 1))}
    of_iaf = tf.function(lambda: iaf(given, training=False))
    results = {
        "maf: density / samples": compare(lambda: maf.log_prob(x), lambda: maf.inverse(z), ROUNDS),
        "realnvp: samples / density": compare(lambda: realnvp.inverse(z), lambda: realnvp.log_prob(x), ROUNDS),
        "iaf: samples / maf: density": compare(of_iaf, lambda: maf.log_prob(x), ROUNDS),
    }
    return finish(results, GOALS)


if __name__ == "__main__":
    sys.exit(main())
