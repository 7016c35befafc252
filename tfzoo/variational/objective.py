"""What variational models learn by: log-likelihood less the Kullback-Leibler divergence from posterior to prior.

    loss = -log p(x|z) + beta * KL             the ELBO for beta = 1 (Kingma & Welling, 2014,
                                               https://arxiv.org/abs/1312.6114), beta-VAE's for others (Higgins et al.,
                                               2017, https://openreview.net/forum?id=Sy2fzU9gl)
    loss = -log p(x|z) + beta * |KL - C|       C from 0 to `capacity` nats in `capacity_steps` (Burgess et al., 2018,
                                               https://arxiv.org/abs/1804.03599)
    loss = -log p(x|z) + beta * sum_j max(free_bits, KL_j)       j: latents, or groups of them (Kingma et al., 2016,
                                               https://arxiv.org/abs/1606.04934, equation 15)

While the model warms up, beta rises from 0 (Sonderby et al., 2016, https://arxiv.org/abs/1602.02282). Of the last two
the divergence is the mean over the batch, on several devices over all of it.
"""

import math
from dataclasses import dataclass

import keras
import tensorflow as tf
from keras import ops

from tfzoo.training.distributed_fit import scale_loss


@dataclass(frozen=True)
class Objective:
    """A loss.

    Attributes:
        beta: Weight of the divergence.
        warm_up: Steps in which it rises from 0.
        capacity: Nats that the divergence is to have in the end; None for as few as the data asks for.
        capacity_steps: Steps in which they rise from 0.
        free_bits: Nats up to which the divergence of a latent costs the same.
        analytic: Take the divergence's closed form where there is one, not one sample of it.
    """

    beta: float = 1.0
    warm_up: int = 0
    capacity: float | None = None
    capacity_steps: int = 0
    free_bits: float = 0.0
    analytic: bool = True

    def loss(self, log_likelihood: tf.Tensor, divergence: tf.Tensor, step: tf.Tensor | None = None) -> tf.Tensor:
        """Give each example's loss.

        Args:
            log_likelihood: `(B,)` in nats.
            divergence: Of each latent, or group of them, `(B, K)` in nats.
            step: How many steps there have been; None for the loss at the end of all rising.

        Returns:
            `(B,)`.
        """
        beta = self.beta * risen(step, self.warm_up)
        if self.capacity is not None:
            aim = self.capacity * risen(step, self.capacity_steps)
            return beta * ops.abs(ops.sum(over_the_batch(divergence)) - aim) - log_likelihood
        if self.free_bits:
            return beta * ops.sum(ops.maximum(over_the_batch(divergence), self.free_bits)) - log_likelihood
        return beta * ops.sum(divergence, -1) - log_likelihood


def risen(step: tf.Tensor | None, steps: int):
    """Give how far something has risen behind so many steps, in [0, 1]."""
    if step is None or not steps:
        return 1.0
    return ops.minimum(ops.cast(step, keras.backend.floatx()) / steps, 1.0)


def over_the_batch(values: tf.Tensor) -> tf.Tensor:
    """Give the mean over all examples of the batch, whichever device has them: `(B, K)` to `(K,)`."""
    mean = ops.mean(values, 0)
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return mean
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, scale_loss(mean))


def arguments(beta, warm_up, capacity, capacity_steps, free_bits, divergence) -> list[str]:
    """Give the sentences about what of the arguments cannot be."""

    def number(value) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf

    problems = [
        f"{name} must be a number from 0. Received: {name}={value!r}"
        for name, value in {"beta": beta, "free_bits": free_bits}.items()
        if not number(value)
    ]
    problems += [
        f"{name} must be a number of steps from 0. Received: {name}={value!r}"
        for name, value in {"warm_up": warm_up, "capacity_steps": capacity_steps}.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 0
    ]
    if capacity is not None and not number(capacity):
        problems.append(f"capacity must be a number of nats from 0, or None. Received: capacity={capacity!r}")
    if capacity is None and capacity_steps:
        problems.append(f"capacity_steps is of no effect without a capacity. Received: {capacity_steps}")
    if capacity is not None and free_bits:
        problems.append("capacity and free_bits are two ways to the same end: give one of them. Received both")
    if divergence not in ("analytic", "monte_carlo"):
        problems.append(f"divergence must be 'analytic' or 'monte_carlo'. Received: divergence={divergence!r}")
    return problems
