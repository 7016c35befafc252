"""Intersection over union and Dice of segmentations, pooled over all pixels.

    IoU  = |A and B| / |A or B|            (Jaccard, 1901)
    Dice = 2 |A and B| / (|A| + |B|)       (Dice, 1945, https://doi.org/10.2307/1932409)

for the pixels A that are of a class and B that were taken for it. Keras has no Dice. Its BinaryIoU and IoU count in
int32, which ends at 2e9 pixels, cut weights to whole numbers, take none for a whole picture, and leave out labels that
do not exist; both measures are made here from the same three counts.
"""

import keras
from keras import ops

from tfzoo.metrics._inputs import chosen, labels_and_scores


class Overlap(keras.Metric):
    """What IoU and Dice share: for each class the pixels of it, those taken for it, and those of which both hold.

    Args:
        classes: How many there are, the background among them; from 2.
        targets: The classes that the result is the mean of; None for all but 0, the background. One that has no pixels
            in truth and guess alike is left out of the mean.
        threshold: Of a single output: foreground lies above it. As Keras has it, 0.5, for probabilities; 0 for logits.
        ignore: A label that is not judged, such as 255.
        name: As Keras has it; by default that of the class, `iou` or `dice`.
        dtype: Of the counts.

    Raises:
        ValueError: There are fewer than 2 classes, or a target is none of them.
    """

    def __init__(
        self,
        classes: int = 2,
        targets: tuple[int, ...] | None = None,
        threshold: float = 0.5,
        ignore: int | None = None,
        name: str | None = None,
        dtype="float64",
    ):
        super().__init__(name=name or type(self).__name__.lower(), dtype=dtype)
        targets = tuple(range(1, classes)) if targets is None else tuple(targets)
        if classes < 2 or not targets or not set(targets) <= set(range(classes)):
            raise ValueError(
                "an overlap is of at least 2 classes, the background and another, and its targets are some of them. "
                f"Received: classes={classes}, targets={targets}"
            )
        self.classes, self.targets, self.threshold, self.ignore = classes, targets, threshold, ignore
        self._direction = "up"
        self.both = self.add_variable((classes,), "zeros", dtype=self.dtype, name="both")
        self.truth = self.add_variable((classes,), "zeros", dtype=self.dtype, name="truth")
        self.guess = self.add_variable((classes,), "zeros", dtype=self.dtype, name="guess")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count pixels.

        Args:
            y_true: Labels `(B, H, W)` or `(B, H, W, 1)`, or one-hot `(B, H, W, classes)`.
            y_pred: Scores `(B, H, W, classes)`; of two classes also `(B, H, W, 1)`.
            sample_weight: Of each picture `(B,)` or of each pixel; None for 1.

        Raises:
            ValueError: The shapes do not fit.
        """
        truth, scores, weights = labels_and_scores(y_true, y_pred, sample_weight, self.classes, self.ignore)
        guess = chosen(scores, self.threshold)
        for counts, labels, counted in (
            (self.both, truth, ops.where(truth == guess, weights, 0.0)),
            (self.truth, truth, weights),
            (self.guess, guess, weights),
        ):
            counts.assign_add(ops.segment_sum(counted, labels, num_segments=self.classes))

    def parts(self):
        """Give numerator and denominator of each class, `(classes,)`."""
        raise NotImplementedError

    def by_class(self):
        """Give the measure of each class, `(classes,)`; 0 for one without pixels."""
        return ops.divide_no_nan(*self.parts())

    def result(self):
        """Give the mean over the targets that have pixels, in [0, 1]."""
        targets = list(self.targets)
        present = ops.cast(ops.take(self.parts()[1], targets) > 0, self.dtype)
        return ops.divide_no_nan(ops.sum(ops.take(self.by_class(), targets) * present), ops.sum(present))

    def get_config(self):
        """Return what makes the same metric."""
        names = ("classes", "targets", "threshold", "ignore")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="tfzoo")
class IoU(Overlap):
    """Intersection over union, pooled over pixels; the arguments are those of `Overlap`."""

    def parts(self):
        """Give numerator and denominator of each class, `(classes,)`."""
        return self.both + 0, self.truth + self.guess - self.both


@keras.saving.register_keras_serializable(package="tfzoo")
class Dice(Overlap):
    """The Dice coefficient, also F1 of the pixels, pooled over pixels; the arguments are those of `Overlap`."""

    def parts(self):
        """Give numerator and denominator of each class, `(classes,)`."""
        return 2 * self.both, self.truth + self.guess
