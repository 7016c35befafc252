"""What a classifier takes for what: the confusion matrix, and recall and precision of each class.

Top-1 and top-5 are `keras.metrics.SparseCategoricalAccuracy` and `SparseTopKCategoricalAccuracy(5)`, as they are.
"""

from pathlib import Path

import keras
import numpy as np
from keras import ops

from bridge.files import aside
from tfzoo.metrics._inputs import chosen, labels_and_scores

NAMED = 50  # classes up to which the picture names them and writes the counts


@keras.saving.register_keras_serializable(package="tfzoo")
class ConfusionMatrix(keras.Metric):
    """Count how often an example of class i (row) was taken for class j (column).

    Args:
        classes: How many there are; from 2.
        threshold: Of a single output: class 1 lies above it. 0.5, for a probability; 0 for a logit.
        name: As Keras has it; with it begin the names of what `result` gives.
        dtype: Of the counts.

    Raises:
        ValueError: There are fewer than 2 classes.
    """

    def __init__(self, classes: int, threshold: float = 0.5, name: str = "confusion", dtype="float64"):
        super().__init__(name=name, dtype=dtype)
        if classes < 2:
            raise ValueError(f"a confusion needs at least 2 classes. Received: classes={classes}")
        self.classes, self.threshold = classes, threshold
        self.counts = self.add_variable((classes, classes), "zeros", dtype=self.dtype, name="counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count examples.

        Args:
            y_true: Labels `(B,)` or `(B, 1)`, or one-hot `(B, classes)`; pixels have more axes before the last.
            y_pred: Scores `(B, classes)`; of two classes also `(B, 1)`.
            sample_weight: `(B,)`; None for 1.

        Raises:
            ValueError: The shapes do not fit.
        """
        truth, scores, weights = labels_and_scores(y_true, y_pred, sample_weight, self.classes)
        cells = truth * self.classes + chosen(scores, self.threshold)
        counted = ops.segment_sum(weights, cells, num_segments=self.classes**2)
        self.counts.assign_add(ops.reshape(counted, (self.classes, self.classes)))

    def result(self):
        """Give the accuracy and the means of recall and precision over the classes that occur, in [0, 1].

        A class occurs if it is or was guessed. As scikit-learn has it: one that is only guessed has recall 0, one that
        is never guessed precision 0.
        """
        right, counts = ops.diagonal(self.counts), self.counts + 0
        occur = ops.cast((ops.sum(counts, 0) > 0) | (ops.sum(counts, 1) > 0), self.dtype)
        rates = {"accuracy": ops.divide_no_nan(ops.sum(right), ops.sum(counts))}
        for name, axis in (("recall", 1), ("precision", 0)):
            rate = ops.divide_no_nan(right, ops.sum(counts, axis))
            rates[name] = ops.divide_no_nan(ops.sum(rate * occur), ops.sum(occur))
        return {f"{self.name}_{name}": rate for name, rate in rates.items()}

    def matrix(self) -> np.ndarray:
        """Give the counts `(classes, classes)`: rows are what it is, columns what it was taken for."""
        return ops.convert_to_numpy(self.counts)

    def recall(self) -> np.ndarray:
        """Give each class' share of its examples that was found `(classes,)`; NaN without examples."""
        return rate(self.matrix(), 1)

    def precision(self) -> np.ndarray:
        """Give the share of what was taken for each class that is of it `(classes,)`; NaN where nothing was."""
        return rate(self.matrix(), 0)

    def draw(self, path, labels: list[str] | None = None) -> None:
        """Draw the matrix, each row scaled to its sum.

        Args:
            path: Where the PNG is written.
            labels: Names of the classes; None for their numbers.

        Raises:
            ValueError: There are not as many names as classes.
        """
        if labels is not None and len(labels) != self.classes:
            raise ValueError(f"{self.classes} classes have as many names. Received: {len(labels)} labels")
        draw(self.matrix(), Path(path), labels or [str(i) for i in range(self.classes)])

    def get_config(self):
        """Return what makes the same metric."""
        return {**super().get_config(), "classes": self.classes, "threshold": self.threshold}


def rate(matrix: np.ndarray, axis: int) -> np.ndarray:
    """Divide the diagonal of a matrix by its sums along an axis; NaN where they are 0."""
    sums = matrix.sum(axis)
    return np.divide(np.diagonal(matrix), sums, out=np.full(len(sums), np.nan), where=sums != 0)


def draw(matrix: np.ndarray, path: Path, labels: list[str]) -> None:
    """Draw counts `(C, C)` as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    few = len(matrix) <= NAMED
    size = min(max(4.0, 0.4 * len(matrix)), 16.0)  # inches
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), np.finfo(float).tiny)
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the row")
    axes.set(xlabel="taken for", ylabel="is")
    if few:
        # A name is anyone's: `$` would be read as mathematics, and a long one would leave no room.
        names = [label if len(label) <= 24 else f"{label[:23]}…" for label in labels]
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        for (i, j), count in np.ndenumerate(matrix):
            if count:
                color = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, f"{count:g}", ha="center", va="center", fontsize=7, color=color)
    with aside(path) as side:
        figure.savefig(side, dpi=80, format="png")
