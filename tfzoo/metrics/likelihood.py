"""How likely a model takes data to be: nats for each example, and bits for each dimension.

A density of continuous variables depends on their unit. For data of whole levels that were made continuous with
uniform noise (x + u, u in [0, 1): Theis et al., 2016, https://arxiv.org/abs/1511.01844) and scaled so that `scale`
levels are one unit, the bound on the discrete log-likelihood is

    bits/dim = (nll / D + ln(scale)) / ln 2         nll in nats for each example of D dimensions

`scale` is 256 for bytes in [0, 1], 128 for bytes in [-1, 1], 17 for digits of levels 0..16 in [0, 1], and 1 where the
model gives probabilities of the levels themselves.
"""

import math

import keras
from keras import ops


def bits_per_dimension(nll: float, dimensions: int, scale: float) -> float:
    """Give bits for each dimension by the formula above.

    Args:
        nll: Negative log-likelihood in nats for each example; a number or a tensor.
        dimensions: Values in an example, such as `H * W * C`.
        scale: Levels in one unit of the variable that the density is of; 1 for probabilities.

    Returns:
        Bits for each dimension, of the type of `nll`.

    Raises:
        ValueError: dimensions or scale cannot be.
    """
    if dimensions < 1 or not 0 < scale < math.inf:
        raise ValueError(
            "bits for each dimension need a positive number of dimensions and of levels in one unit (256 for bytes in "
            f"[0, 1], 128 for [-1, 1], 1 for probabilities). Received: dimensions={dimensions}, scale={scale}"
        )
    return (nll / dimensions + math.log(scale)) / math.log(2)


@keras.saving.register_keras_serializable(package="tfzoo")
class NegativeLogLikelihood(keras.metrics.Mean):
    """The mean negative log-likelihood in nats for each example.

    Args:
        name: As Keras has it.
        dtype: Of the sums.
    """

    def __init__(self, name: str = "nll", dtype="float64"):
        super().__init__(name=name, dtype=dtype)
        self._direction = "down"

    def update_state(self, log_likelihood, sample_weight=None):
        """Add examples.

        Args:
            log_likelihood: Of each example, not negated, in nats `(B,)`: summed over its dimensions.
            sample_weight: `(B,)`; None for 1.

        Raises:
            ValueError: There is more than one value, or none, for an example.
        """
        log_likelihood = ops.convert_to_tensor(log_likelihood)
        if len(log_likelihood.shape) != 1:
            raise ValueError(
                f"{self.name} takes one log-likelihood for each example, (B,), summed over its dimensions. "
                f"Received: {tuple(log_likelihood.shape)}"
            )
        super().update_state(-log_likelihood, sample_weight)


@keras.saving.register_keras_serializable(package="tfzoo")
class BitsPerDimension(NegativeLogLikelihood):
    """The mean negative log-likelihood in bits for each dimension.

    Args:
        dimensions: Values in an example, such as `H * W * C`.
        scale: Levels in one unit of the variable that the density is of; 1 for probabilities.
        name: As Keras has it.
        dtype: Of the sums.

    Raises:
        ValueError: dimensions or scale cannot be.
    """

    def __init__(self, dimensions: int, scale: float, name: str = "bits_per_dimension", dtype="float64"):
        super().__init__(name=name, dtype=dtype)
        bits_per_dimension(0.0, dimensions, scale)  # checks both
        self.dimensions, self.scale = dimensions, scale

    def result(self):
        """Give bits for each dimension; 0 where nothing was added."""
        bits = bits_per_dimension(super().result(), self.dimensions, self.scale)
        return ops.where(self.count > 0, bits, 0.0)

    def get_config(self):
        """Return what makes the same metric."""
        return {**super().get_config(), "dimensions": self.dimensions, "scale": self.scale}
