"""How likely a variational model takes pictures to be, by bounds on their log-likelihood.

    log p(x) >= E log (1/k) sum_i p(x, z_i) / q(z_i|x)        z_i ~ q(z|x)

is the ELBO for k = 1, and closer the more samples there are (Burda et al., 2016, https://arxiv.org/abs/1509.00519).
"""

import itertools
import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfzoo.variational.model import Variational

AT_ONCE = 4096  # pictures that the networks are given at once, each as often as it fits
NUMBERS = 2**20  # that these have at most, which large pictures would exceed
ACTIVE = 0.01  # variance over the data of a latent's mean, above which it is in use (Burda et al., section 5.2)


@dataclass(frozen=True)
class Bounds:
    """Bounds of each example, in nats `(N,)`.

    Attributes:
        elbo: The mean over the samples of what one of them gives.
        importance_weighted: With all samples together.
    """

    elbo: np.ndarray
    importance_weighted: np.ndarray


def bounds(model: Variational, pictures: np.ndarray, samples: int = 500, seed: int = 0) -> Bounds:
    """Bound the log-likelihood of pictures.

    Args:
        model: It is not changed.
        pictures: `(N, H, W, C)`.
        samples: Latents for each picture.
        seed: Any integer from 0; decides the draws.

    Raises:
        ValueError: There are no pictures, or no samples.
    """
    if samples < 1 or not len(pictures):
        raise ValueError(
            f"bounds are of one sample or more of one picture or more. Received: {samples=}, {len(pictures)=}"
        )
    at_once = min(AT_ONCE, max(NUMBERS // math.prod(pictures.shape[1:]), 1))

    @tf.function(reduce_retracing=True)
    def log_weights(some, number):
        places = itertools.count()

        def draw(shape):
            key = tf.stack([tf.cast(seed, tf.int64), number * 2**16 + next(places)])
            return tf.random.stateless_normal((tf.shape(some)[0], *shape), key, dtype=some.dtype)

        log_likelihood, divergence = model.terms(some, draw, analytic=False)
        return log_likelihood - tf.reduce_sum(divergence, -1)

    found = []
    for first in range(0, len(pictures), at_once):
        some = np.asarray(pictures[first : first + at_once], keras.backend.floatx())
        times = min(at_once // len(some), samples)  # of each picture, so many samples at once
        rows = tf.constant(np.tile(some, (times, *[1] * (some.ndim - 1))))
        calls = range(-(-samples // times))
        weights = [log_weights(rows, tf.constant(first * samples + i, tf.int64)).numpy() for i in calls]
        found.append(np.concatenate(weights).astype("float64").reshape(-1, len(some))[:samples])
    found = np.concatenate(found, 1)  # (samples, N)
    peak = found.max(0)
    return Bounds(found.mean(0), peak + np.log(np.exp(found - peak).mean(0)))


def active(model: Variational, pictures: np.ndarray) -> int:
    """Count the latents that are in use: whose mean differs from picture to picture."""
    return int((model.encode(pictures).var(0) > ACTIVE).sum())
