"""What metrics are given, checked and brought into one shape."""

import tensorflow as tf
from keras import ops


def labels_and_scores(y_true, y_pred, sample_weight, classes: int, ignore: int | None = None):
    """Bring labels, scores and weights of examples, or of pixels, into one row each.

    Args:
        y_true: Labels `(B, ...)` or `(B, ..., 1)`, whole numbers in `[0, classes)`; or one-hot as `y_pred`, which is
            told by the last axis, so a graph must know it where there are as many axes as the scores have.
        y_pred: Scores `(B, ..., classes)`; of two classes also `(B, ..., 1)`, that of class 1.
        sample_weight: None for 1, or `(B,)`, or the labels' shape.
        classes: How many there are.
        ignore: A label whose rows get the weight 0.

    Returns:
        Labels `(N,)` int32, scores `(N, classes or 1)`, weights `(N,)` float64. A label that does not exist gives a
        weight of NaN, so that it shows in the result where XLA drops the assertion.

    Raises:
        ValueError: The shapes do not fit.
        tf.errors.InvalidArgumentError: A label does not exist.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    given = f"y_true {y_true.shape}, y_pred {y_pred.shape}"
    outputs = y_pred.shape[-1] if y_pred.shape.rank else None
    if outputs is None or y_pred.shape.rank < 2 or outputs not in ((1, 2) if classes == 2 else (classes,)):
        accepted = "(B, ..., 2) or (B, ..., 1)" if classes == 2 else f"(B, ..., {classes})"
        raise ValueError(f"scores of {classes} classes have the shape {accepted}. Received: {given}")
    shape = y_pred.shape[:-1]
    rank = y_true.shape.rank
    if rank is None or (rank == y_pred.shape.rank and outputs > 1 and y_true.shape[-1] is None):
        raise ValueError(
            f"whether labels are one-hot is told by their shape, and this one leaves it open. Received: {given}. "
            "Give labels without the last axis of the scores, or set their shape (tf.ensure_shape)"
        )
    if outputs > 1 and y_true.shape.is_compatible_with(y_pred.shape):
        y_true = ops.argmax(y_true, -1)
    elif y_true.shape.is_compatible_with([*shape, 1]):
        y_true = tf.squeeze(y_true, -1)  # Keras refuses an axis that is only known when it runs
    elif not y_true.shape.is_compatible_with(shape):
        raise ValueError(
            f"labels have the shape of the scores without the last axis, {tuple(shape)}, or with a last axis of 1; "
            f"one-hot labels have that of the scores. Received: {given}"
        )
    weights = row_weights(sample_weight, y_true)
    labels = ops.reshape(ops.cast(ops.round(ops.cast(y_true, "float32")), "int32"), (-1,))
    if ignore is not None:
        weights = ops.where(labels == ignore, 0.0, weights)
        labels = ops.where(labels == ignore, 0, labels)
    known = (labels >= 0) & (labels < classes)
    tf.debugging.Assert(ops.all(known), [f"labels of {classes} classes are in [0, {classes}). Received:", labels])
    return (
        ops.where(known, labels, 0),
        ops.reshape(y_pred, (-1, outputs)),
        ops.where(known, weights, float("nan")),
    )


def row_weights(sample_weight, rows):
    """Give every element of `rows` the weight of its example, or its own: `(N,)` float64; None counts each as 1."""
    if sample_weight is None:
        return ops.reshape(ops.ones_like(rows, "float64"), (-1,))
    weights = ops.cast(sample_weight, "float64")
    if len(weights.shape) == len(rows.shape) + 1 and weights.shape[-1] == 1:
        weights = ops.squeeze(weights, -1)
    while 0 < len(weights.shape) < len(rows.shape):
        weights = ops.expand_dims(weights, -1)
    try:
        together = tf.broadcast_static_shape(weights.shape, rows.shape)
    except ValueError:
        together = None
    if together is None or not together.is_compatible_with(rows.shape):
        raise ValueError(
            f"weights are one for each example, (B,), or one for each of {tuple(rows.shape)}. "
            f"Received: sample_weight {tuple(ops.shape(sample_weight))}"
        )
    return ops.reshape(ops.broadcast_to(weights, ops.shape(rows)), (-1,))


def chosen(scores, threshold: float):
    """Give the class of the largest score, the first of equal ones; of a single score, 1 above the threshold."""
    if scores.shape[-1] == 1:
        return ops.cast(scores[:, 0] > threshold, "int32")
    return ops.cast(ops.argmax(scores, -1), "int32")
