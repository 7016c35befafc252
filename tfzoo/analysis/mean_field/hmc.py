"""Hamiltonian Monte Carlo (Neal, 2011, https://arxiv.org/abs/1206.1901), what q is held against.

Several chains, from points drawn apart, by tensorflow-probability; the step size is adapted while they burn in (dual
averaging, Hoffman and Gelman, 2014). Whether they agree says `r_hat` (Gelman and Rubin, 1992): the samples can be
trusted where it is below 1.01 and the effective samples are some thousands. As trajectories are of one length, they may
come back to where they began along some direction, which `r_hat` shows; another number of leapfrogs mends it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfzoo.layers import arguments

ACCEPTED = 0.75  # what the step size is adapted to, as Hoffman and Gelman (2014) advise


@dataclass(frozen=True)
class Chains:
    """Samples, and how far they can be trusted.

    Attributes:
        samples: `(S, C, D)`.
        accepted: The share of the proposals.
        r_hat: `(D,)`; 1 for chains that agree.
        effective: How many independent samples are worth as much, of all chains together `(D,)`.
    """

    samples: np.ndarray
    accepted: float
    r_hat: np.ndarray
    effective: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """`(D,)`."""
        return self.samples.mean((0, 1))

    @property
    def deviations(self) -> np.ndarray:
        """`(D,)`."""
        return self.samples.std((0, 1))


def sample(
    log_density: Callable,
    dimensions: int,
    chains: int = 8,
    burn_in: int = 1000,
    samples: int = 2000,
    leapfrogs: int = 16,
    seed: int = 0,
) -> Chains:
    """Sample a log density on the real numbers.

    Args:
        log_density: From float64 tensors `(C, D)` to ln p `(C,)`, up to a constant.
        dimensions: D.
        chains: C; at least 2, as one alone agrees with itself.
        burn_in: Samples that are left out; the step size is adapted in the first four fifths of them.
        samples: S of each chain.
        leapfrogs: Steps of a trajectory.
        seed: Of everything random.

    Returns:
        The samples, and how far they can be trusted.

    Raises:
        ValueError: Names every argument that cannot be, or says that the log density was not finite.
    """
    counts = {"burn_in": burn_in, "samples": samples, "leapfrogs": leapfrogs, "chains": chains}
    problems = arguments.positive(dimensions=dimensions, **counts)
    if not problems and chains < 2:
        problems.append(f"chains must be at least 2, to be compared. Received: chains={chains}")
    arguments.refuse(problems)
    import tensorflow as tf
    import tensorflow_probability as tfp

    @tf.function
    def run(start):
        kernel = tfp.mcmc.HamiltonianMonteCarlo(log_density, tf.constant(0.05, "float64"), leapfrogs)
        kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(kernel, int(0.8 * burn_in), ACCEPTED)
        found, accepted = tfp.mcmc.sample_chain(
            samples,
            start,
            kernel=kernel,
            num_burnin_steps=burn_in,
            trace_fn=lambda state, results: results.inner_results.is_accepted,
            seed=[seed, 0],
        )
        return found, tf.reduce_mean(tf.cast(accepted, "float64"))

    start = np.random.default_rng(seed).normal(size=(chains, dimensions))
    found, accepted = run(tf.constant(start))
    if not np.isfinite(found).all() or float(accepted) == 0:
        raise ValueError(
            "the log density and its gradient must be finite where the chains begin, at standard normal points. "
            f"Received: a share of {float(accepted)} accepted, {int((~np.isfinite(found)).sum())} values not finite"
        )
    r_hat = tfp.mcmc.potential_scale_reduction(found).numpy()
    effective = tfp.mcmc.effective_sample_size(found, cross_chain_dims=1).numpy()
    return Chains(found.numpy(), float(accepted), r_hat, effective)
