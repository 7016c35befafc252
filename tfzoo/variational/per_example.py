"""Amortised against per-example inference: what it costs that one encoder gives the posteriors of all pictures.

    amortisation gap  = ELBO by the best normal posterior of each picture - ELBO by the encoder's
    approximation gap = log p(x) - ELBO by the best normal posterior of each picture

(Cremer et al., 2018, https://arxiv.org/abs/1801.03558). The decoder stays as it is. The gradient is that of the latents
alone, which has no noise where a normal posterior is exact (Roeder et al., 2017, https://arxiv.org/abs/1703.09194).
"""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfzoo.variational.bounds import AT_ONCE, Bounds, bounds
from tfzoo.variational.model import Variational, in_chunks

STEPS = 500  # of Adam: four times as many raise the ELBO of the digits by less than .01 nats
RATE = 0.03  # at the first of them; it falls to 0 by half a cosine
EPSILON = 1e-3  # nats: with Adam's usual 1e-7 what rounding leaves of a gradient would count as one
DRAWS = 8  # latents of each picture in a step


@dataclass(frozen=True)
class PerExample:
    """The two ways to infer, judged by the same draws, none of which any posterior was fitted to.

    Attributes:
        amortised: Bounds by the encoder's posteriors.
        per_example: Bounds by the posteriors that were fitted to each picture.
        mean: Of the latter, `(N, K)`.
        log_variance: The same.
    """

    amortised: Bounds
    per_example: Bounds
    mean: np.ndarray
    log_variance: np.ndarray


def per_example(
    model: Variational, pictures: np.ndarray, samples: int = 500, steps: int = STEPS, seed: int = 0
) -> PerExample:
    """Fit a normal posterior to each picture, from the encoder's on, and bound the log-likelihood by both.

    Args:
        model: A `tfzoo.vae.Vae`; it is not changed.
        pictures: `(N, H, W, C)`.
        samples: Latents for each picture that is judged.
        steps: Of Adam.
        seed: Any integer from 0; decides the draws.

    Raises:
        ValueError: The decoder cannot give the pictures.
    """
    model.check(pictures)
    beside = Beside(model)
    rows = in_chunks(beside.encoded, pictures)
    at_once = AT_ONCE // DRAWS
    parts = [fit(beside, rows[i : i + at_once], steps, seed) for i in range(0, len(rows), at_once)]
    fitted = np.concatenate(parts)
    _, mean, log_variance = beside.parts(fitted)
    judged = (bounds(beside, some, samples, seed) for some in (rows, fitted))
    return PerExample(*judged, mean.numpy(), log_variance.numpy())


@dataclass(frozen=True)
class Beside:
    """A model for `bounds` whose posteriors are given, not encoded: a row is a picture, its mean, its log variance."""

    model: Variational

    def encoded(self, pictures: tf.Tensor) -> tf.Tensor:
        """Give pictures `(B, H, W, C)` with the encoder's posteriors beside them, as rows."""
        posterior = self.model.posterior(pictures).distribution
        pixels = tf.reshape(pictures, (tf.shape(pictures)[0], -1))
        return tf.concat([pixels, posterior.loc, 2 * tf.math.log(posterior.scale)], -1)

    def parts(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Give the pictures, means and log variances of rows."""
        (latents,) = self.model.decoder.input_shape[1:]
        pixels, mean, log_variance = tf.split(rows, [-1, latents, latents], -1)
        return tf.reshape(pixels, (-1, *self.model.input_shape[1:])), mean, log_variance

    def terms(self, rows, draw, analytic=False):
        """Give what `Variational.terms` does, the divergence always by the one draw."""
        from tensorflow_probability import distributions as tfd

        pictures, mean, log_variance = self.parts(rows)
        latent = mean + tf.exp(log_variance / 2) * draw(mean.shape[1:])
        # the gradient is that of the latent alone
        posterior = tfd.Normal(tf.stop_gradient(mean), tf.exp(tf.stop_gradient(log_variance) / 2))
        log_likelihood = self.model.likelihood.log_prob(self.model.decoder(latent, training=False), pictures)
        return log_likelihood, posterior.log_prob(latent) - self.model.prior().distribution.log_prob(latent)


def fit(beside: Beside, rows: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """Raise the ELBO of each row by its mean and log variance; gives the rows with what was found."""
    latents = 2 * beside.model.decoder.input_shape[1]
    pixels, posterior = tf.constant(rows[:, :-latents]), keras.Variable(rows[:, -latents:])
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps), epsilon=EPSILON)
    adam.build([posterior])

    @tf.function
    def step(number):
        noise = tf.random.stateless_normal((DRAWS * len(rows), latents // 2), [seed, number], dtype=pixels.dtype)
        with tf.GradientTape() as tape:
            some = tf.tile(tf.concat([pixels, posterior.value], -1), (DRAWS, 1))
            log_likelihood, divergence = beside.terms(some, lambda shape: noise)
            loss = -tf.reduce_sum(log_likelihood - tf.reduce_sum(divergence, -1)) / DRAWS
        adam.apply(tape.gradient(loss, [posterior.value]), [posterior])

    for number in range(steps):
        step(tf.constant(-1 - number, tf.int64))  # below 0, where `bounds` draws nothing
    return np.concatenate([pixels, posterior.numpy()], -1)
