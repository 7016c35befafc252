"""Which direction of a flow is one parallel pass and which goes number by number: densities against samples.

    .venv/bin/python benchmarks/flows.py [--output FILE]        a minute on two cores

MAF gives the density of pictures of D numbers in one pass of its networks, and samples in D of them; RealNVP does both
in one. What an inverse autoregressive flow samples by is the pass that MAF has for its density.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from _measure import compare, finish, options  # noqa: E402  first: it quietens TensorFlow

COUNT, ROUNDS = 256, 15
GOALS = {"maf: density / samples": 0.2, "realnvp: samples / density": 1.5}


def main() -> int:
    """Measure, print and write; the exit code."""
    import numpy as np

    import tfzoo
    from tfzoo.variational.model import normal

    options().parse_args()
    results = {}
    for kind, size in (("maf", "digits"), ("realnvp", "realnvp")):
        model = tfzoo.build("normalizing_flow", size)
        x, z = np.random.default_rng(0).random((COUNT, 8, 8, 1), "float32"), normal(COUNT, (64,), 0)

        def density(model=model, x=x):
            return model.log_prob(x)

        def samples(model=model, z=z):
            return model.inverse(z)

        if kind == "maf":
            results["maf: density / samples"] = compare(density, samples, ROUNDS)
        else:
            results["realnvp: samples / density"] = compare(samples, density, ROUNDS)
    return finish(results, GOALS)


if __name__ == "__main__":
    sys.exit(main())
