"""What a decoder says of a picture: a distribution over it, from what the decoder gives for a latent.

    bernoulli             pixels that are 0 or 1; the decoder gives `logits` (B, H, W, C)
    gaussian              any numbers; `mean`, and one sigma for all pixels: fixed, or learned (sigma-VAE: Rybkin et
                          al., 2020, https://arxiv.org/abs/2006.13202), one for each colour, then `mean_and_log_scale`
                          (B, H, W, 2C)
    discretised_logistic  levels 0, 1/(n-1), ..., 1: each has the mass of a logistic around it, the first and the last
                          all that is beyond them (Kingma et al., 2016, https://arxiv.org/abs/1606.04934); the same

Log-likelihoods are in nats and summed over a picture.
"""

import math
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfzoo.layers.weight import weight

KINDS = ("bernoulli", "gaussian", "discretised_logistic")
LEARNED = "learned"
LEVELS = 256  # of a byte
LOGITS, MEAN, BOTH = "logits", "mean", "mean_and_log_scale"  # what a decoder's output may be called


@dataclass(frozen=True)
class Likelihood:
    """A kind of distribution over pictures.

    Attributes:
        kind: One of `KINDS`.
        sigma: Standard deviation of "gaussian", scale of "discretised_logistic", in units of the pixels; "learned" for
            one that is trained with the decoder. Of no meaning for "bernoulli".
        levels: Of "discretised_logistic": values that a pixel may have.
    """

    kind: str = "bernoulli"
    sigma: float | str = LEARNED
    levels: int = LEVELS

    def head(self, x) -> dict[str, object]:
        """End a decoder.

        Args:
            x: What its last layer gives `(B, H, W, C)`, linear.

        Returns:
            The decoder's output by its name.
        """
        if self.kind == "bernoulli":
            return {LOGITS: x}
        if self.sigma != LEARNED:
            return {MEAN: x}
        start = keras.initializers.Constant(math.log(0.5))
        log_scale = ops.zeros_like(x) + weight(x, (1,) * (len(x.shape) - 2) + (x.shape[-1],), "log_scale", start)
        return {BOTH: ops.concatenate([x, log_scale], -1)}

    def of(self, given: dict[str, tf.Tensor]):
        """Give the distribution over pictures, a `tfd.Independent`.

        Args:
            given: What the decoder gives.
        """
        from tensorflow_probability import distributions as tfd

        given = {name: ops.cast(value, keras.backend.floatx()) for name, value in given.items()}
        if self.kind == "bernoulli":
            return over_pictures(tfd.Bernoulli(logits=given[LOGITS], dtype=given[LOGITS].dtype))
        if MEAN in given:
            mean, scale = given[MEAN], tf.fill(tf.shape(given[MEAN]), tf.cast(self.sigma, given[MEAN].dtype))
        else:
            mean, log_scale = ops.split(given[BOTH], 2, -1)
            scale = ops.exp(log_scale)
        if self.kind == "gaussian":
            return over_pictures(tfd.Normal(mean, scale))
        return over_pictures(Levels(self.levels).of(mean, scale))

    def log_prob(self, given: dict[str, tf.Tensor], pictures: tf.Tensor) -> tf.Tensor:
        """Give the log-likelihood of pictures `(B, H, W, C)` by what the decoder gives, in nats `(B,)`."""
        pictures = ops.cast(pictures, keras.backend.floatx())
        if self.kind == "discretised_logistic":
            pictures = ops.round(pictures * (self.levels - 1))
        return self.of(given).log_prob(pictures)

    def prepared(self, pictures: tf.Tensor) -> tf.Tensor:
        """Bring pictures in [0, 1] to what the decoder can give: binarised at 1/2, or to the nearest level."""
        if self.kind == "bernoulli":
            return ops.cast(pictures >= 0.5, pictures.dtype)
        if self.kind == "discretised_logistic":
            return ops.round(pictures * (self.levels - 1)) / (self.levels - 1)
        return pictures

    def check(self, pictures: np.ndarray) -> list[str]:
        """Give sentences about what of some pictures the decoder cannot give.

        Args:
            pictures: Numbers of any shape.
        """
        pictures = np.asarray(pictures)
        pictures = pictures if np.issubdtype(pictures.dtype, np.floating) else pictures.astype("float64")
        if not pictures.size:
            return ["there are no pictures to learn from"]
        if not np.isfinite(pictures).all():
            return [f"{np.sum(~np.isfinite(pictures)):,} value(s) of the pictures are NaN or infinite: leave those out"]
        low, high = pictures.min(), pictures.max()
        found = f"Received: values from {low:g} to {high:g}"
        if self.kind == "bernoulli" and not np.isin(pictures, (0, 1)).all():
            return [f"a Bernoulli decoder is of pixels that are 0 or 1: divide, and binarise them. {found}"]
        if self.kind == "discretised_logistic":
            levels = pictures.astype("float64") * (self.levels - 1)
            if low < 0 or high > 1 or np.abs(levels - np.round(levels)).max() > 0.1:
                return [
                    f"a discretised-logistic decoder is of {self.levels} levels 0, 1/{self.levels - 1}, ..., 1: divide "
                    f"bytes by 255, or name the number of levels (levels=). {found}"
                ]
        return []


@dataclass(frozen=True)
class Levels:
    """Levels 0 .. n - 1, each with the mass that a logistic has around it."""

    count: int

    def of(self, mean, scale):
        """Give the distribution over the levels of a logistic over [0, 1]."""
        from tensorflow_probability import bijectors as tfb
        from tensorflow_probability import distributions as tfd

        top = float(self.count - 1)
        # QuantizedDistribution rounds up: half a level lower, that is to the nearest
        shifted = tfd.TransformedDistribution(
            tfd.Logistic(mean * top, scale * top), tfb.Shift(ops.cast(-0.5, mean.dtype))
        )
        return tfd.QuantizedDistribution(shifted, low=0.0, high=top)


def over_pictures(distribution):
    """Take all axes but the first for one example's."""
    from tensorflow_probability import distributions as tfd

    return tfd.Independent(distribution, len(distribution.batch_shape) - 1)


def picture(given: dict[str, tf.Tensor]) -> tf.Tensor:
    """Give the picture `(B, H, W, C)` of what a decoder gives: probabilities of logits, means, a logistic's middle."""
    if LOGITS in given:
        return ops.sigmoid(given[LOGITS])
    return given[MEAN] if MEAN in given else ops.split(given[BOTH], 2, -1)[0]


def arguments(kind, sigma, levels) -> list[str]:
    """Give the sentences about what of the arguments cannot be."""
    problems = []
    if kind not in KINDS:
        problems.append(f"likelihood must be one of {', '.join(KINDS)}. Received: likelihood={kind!r}")
    if kind == "bernoulli" and sigma != LEARNED:
        problems.append(f"sigma is of no effect with likelihood='bernoulli'. Received: sigma={sigma!r}")
    if kind in ("bernoulli", "gaussian") and levels != LEVELS:
        problems.append(f"levels is of no effect with likelihood={kind!r}. Received: levels={levels!r}")
    is_number = isinstance(sigma, (int, float)) and not isinstance(sigma, bool)
    if sigma != LEARNED and not (is_number and 0 < sigma < math.inf):
        problems.append(f"sigma must be a number above 0, or 'learned'. Received: sigma={sigma!r}")
    if not isinstance(levels, int) or isinstance(levels, bool) or levels < 2:
        problems.append(f"levels must be an integer from 2. Received: levels={levels!r}")
    return problems
