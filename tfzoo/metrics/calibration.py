"""Whether a classifier is right as often as it says (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

Examples are put into M bins of equal width by their confidence, the probability of the class that was chosen; bin m
holds those in ((m - 1) / M, m / M].

    expected calibration error = sum_m  n_m / n  |accuracy_m - confidence_m|
    maximum calibration error  = max_m           |accuracy_m - confidence_m|     over bins that hold examples
    Brier score                = mean over examples of  sum_c (p_c - y_c)^2      (Brier, 1950)
"""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfzoo.metrics._inputs import labels_and_scores

# How far probabilities may be from [0, 1], as means of several models are, and sums of them from 1: bfloat16's are,
# whose eight bits round each by up to 0.2 %.
WITHIN, SUMS_WITHIN = 1e-6, 1e-2


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram as numbers, one for each bin; of a bin without examples they are NaN.

    Attributes:
        edges: Of the bins `(M + 1,)`, from 0 to 1.
        confidence: Mean confidence `(M,)`.
        accuracy: Share of the examples that were right `(M,)`.
        weight: Number of the examples, or the sum of their weights `(M,)`.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    weight: np.ndarray


@keras.saving.register_keras_serializable(package="tfzoo")
class CalibrationError(keras.Metric):
    """Expected and maximum calibration error.

    Args:
        classes: How many there are.
        bins: How many; 15 as in the paper.
        from_logits: Whether scores are logits, of which the softmax is taken (of one output, the sigmoid), or
            probabilities, whose rows sum to 1.
        name: As Keras has it; with it begin the names of what `result` gives.
        dtype: Of the sums.

    Raises:
        ValueError: There are no bins, or fewer than 2 classes.
    """

    def __init__(
        self, classes: int, bins: int = 15, from_logits: bool = False, name: str = "calibration", dtype="float64"
    ):
        super().__init__(name=name, dtype=dtype)
        if classes < 2 or bins < 1:
            raise ValueError(
                f"calibration needs at least 2 classes and 1 bin. Received: classes={classes}, bins={bins}"
            )
        self.classes, self.bins, self.from_logits = classes, bins, from_logits
        self._direction = "down"
        self.weight = self.add_variable((bins,), "zeros", dtype=self.dtype, name="weight")
        self.confidence = self.add_variable((bins,), "zeros", dtype=self.dtype, name="confidence")
        self.right = self.add_variable((bins,), "zeros", dtype=self.dtype, name="right")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Put examples into bins.

        Args:
            y_true: Labels `(B,)` or `(B, 1)`, or one-hot `(B, classes)`; pixels have more axes before the last.
            y_pred: Probabilities or logits `(B, classes)`; of two classes also `(B, 1)`, that of class 1.
            sample_weight: `(B,)`; None for 1.

        Raises:
            ValueError: The shapes do not fit.
            tf.errors.InvalidArgumentError: A label does not exist, or scores that should be are no probabilities.
        """
        truth, scores, weights = labels_and_scores(y_true, y_pred, sample_weight, self.classes)
        probabilities, weights = of_all(scores, weights, self.from_logits)  # (N, classes)
        confidence = ops.max(probabilities, -1)
        right = ops.cast(ops.cast(ops.argmax(probabilities, -1), "int32") == truth, "float64")
        place = ops.cast(ops.clip(ops.ceil(confidence * self.bins) - 1, 0, self.bins - 1), "int32")
        for sums, values in (
            (self.weight, weights),
            (self.confidence, weights * confidence),
            (self.right, weights * right),
        ):
            sums.assign_add(ops.segment_sum(values, place, num_segments=self.bins))

    def result(self):
        """Give `<name>_expected` and `<name>_maximum`, in [0, 1]."""
        gap = ops.absolute(self.right - self.confidence)
        return {
            f"{self.name}_expected": ops.divide_no_nan(ops.sum(gap), ops.sum(self.weight)),
            f"{self.name}_maximum": ops.max(ops.divide_no_nan(gap, self.weight)),
        }

    def reliability(self) -> Reliability:
        """Give the bins, to draw them."""
        weight = ops.convert_to_numpy(self.weight)
        means = [
            np.divide(ops.convert_to_numpy(sums), weight, out=np.full(self.bins, np.nan), where=weight != 0)
            for sums in (self.confidence, self.right)
        ]
        return Reliability(np.linspace(0, 1, self.bins + 1), *means, weight)

    def get_config(self):
        """Return what makes the same metric."""
        own = {"classes": self.classes, "bins": self.bins, "from_logits": self.from_logits}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="tfzoo")
class BrierScore(keras.metrics.Mean):
    """The mean squared distance of the probabilities from the one-hot label, in [0, 2].

    Summed over all classes, as Brier did; two classes with one output count both, too, which is twice the
    (p - y)^2 that is often given for them.

    Args:
        classes: How many there are.
        from_logits: Whether scores are logits or probabilities, whose rows sum to 1.
        name: As Keras has it.
        dtype: Of the sums.

    Raises:
        ValueError: There are fewer than 2 classes.
    """

    def __init__(self, classes: int, from_logits: bool = False, name: str = "brier", dtype="float64"):
        super().__init__(name=name, dtype=dtype)
        if classes < 2:
            raise ValueError(f"a Brier score needs at least 2 classes. Received: classes={classes}")
        self.classes, self.from_logits = classes, from_logits
        self._direction = "down"

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add examples; the arguments are those of `CalibrationError.update_state`."""
        truth, scores, weights = labels_and_scores(y_true, y_pred, sample_weight, self.classes)
        probabilities, weights = of_all(scores, weights, self.from_logits)
        distance = probabilities - ops.one_hot(truth, self.classes, dtype="float64")
        super().update_state(ops.sum(ops.square(distance), -1), weights)

    def get_config(self):
        """Return what makes the same metric."""
        return {**super().get_config(), "classes": self.classes, "from_logits": self.from_logits}


def of_all(scores, weights, from_logits: bool):
    """Give the probabilities of all classes, and the weights of their rows.

    Args:
        scores: `(N, classes)`, or `(N, 1)`, those of class 1 of two.
        weights: `(N,)`, float64.
        from_logits: Whether scores are logits.

    Returns:
        Probabilities `(N, classes)`, float64, and weights `(N,)`. A row of no probabilities gets the weight NaN, so
        that it shows in the result where XLA drops the assertion.

    Raises:
        tf.errors.InvalidArgumentError: Scores are no probabilities. NaN passes, and the result is NaN: that is for a
            guard of the training to tell.
    """
    scores = ops.cast(scores, "float64")
    if scores.shape[-1] > 1:
        found = ops.softmax(scores) if from_logits else scores
    else:
        scores = ops.sigmoid(scores) if from_logits else scores
        found = ops.concatenate([1 - scores, scores], -1)
    sums = ops.sum(found, -1)
    inside = ops.all((found >= -WITHIN) & (found <= 1 + WITHIN), -1)
    valid = inside & (ops.absolute(sums - 1) <= SUMS_WITHIN)
    said = "probabilities are in [0, 1] and those of an example sum to 1; give logits with from_logits=True. Received:"
    tf.debugging.Assert(ops.all(valid | ops.isnan(sums)), [said, found])
    zeros = ops.zeros_like(found)
    return ops.where(valid[:, None], found, zeros), ops.where(valid, weights, float("nan"))
