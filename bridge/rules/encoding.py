"""Numbers of classes, bins and segments: keras.ops.{one_hot, digitize, isin, segment_sum, in_top_k, ...}.

They are read as comparisons with the numbers themselves, and sums of these: `one_hot(x, 3)` compares x with 0, 1, 2.
TensorFlow keeps the bounds of bins in float32. Segments are sums of products with such a tensor; one without a member
is 0, or where the largest is asked for the smallest number that there is.
"""

from dataclasses import replace

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

OPERATORS = ()  # comparisons and sums
TORCH = ()
LAYOUT = anything
DOUBLE = {
    "ops.InTopK": lambda o, targets, predictions: o(targets, _single(predictions)),
    "ops.MultiHot": lambda o, x: type(o)(o.num_classes, o.axis, _double(o.dtype))(x),
    "ops.OneHot": lambda o, x: type(o)(o.num_classes, o.axis, _double(o.dtype))(x),
}


def _double(dtype: str | None) -> str:
    return "float64" if dtype is None or "float" in dtype else dtype


def _single(x):
    from keras import ops

    return ops.cast(x, "float32")


def _whole(x) -> None:
    if "int" not in x.dtype:
        raise Unsupported(f"numbers of classes that are {x.dtype}", "cast them to int32 before")


def _one_hot(ops, x, n: int, axis: int, dtype: str):
    """Booleans, or 1 and 0, along a new axis."""
    _whole(x)
    made = ops.equal(ops.expand_dims(x, -1), np.arange(n).astype(x.dtype))
    made = made if dtype == "bool" else ops.cast(made, dtype)
    return ops.moveaxis(made, -1, axis % len(made.shape))


def _one(ops, o, x):
    _dense(o)
    return _one_hot(ops, x, o.num_classes, o.axis, o.dtype or "float32")


def _multi_hot(ops, o, x):
    _dense(o)
    made = _one_hot(ops, x, o.num_classes, o.axis, o.dtype)
    return (ops.any if o.dtype == "bool" else ops.max)(made, axis=1 if len(x.shape) > 1 else 0)


def _dense(o) -> None:
    if o.sparse:
        raise Unsupported("sparse=True", "leave it out")


def _count(ops, found):
    return ops.sum(ops.cast(found, "int32"), axis=-1)


def _row(values, dtype: str) -> np.ndarray:
    if hasattr(values, "_keras_history"):
        raise Unsupported("its bounds are a tensor that flows", "give them as numbers")
    return np.asarray(values).astype(dtype)


def _digitize(ops, o, x, bins):
    bins = _row(bins, "float32").astype(x.dtype if "float" in x.dtype else "float32")
    x = x if "float" in x.dtype else ops.cast(x, "float32")
    return _count(ops, ops.logical_not(ops.less(ops.expand_dims(x, -1), bins)))


def _search(ops, o, row, values):
    if hasattr(row, "_keras_history"):
        if None in row.shape:
            raise Unsupported("it searches in a row of an open size", "fix that size")
    else:
        row = np.asarray(row)
    if not hasattr(values, "_keras_history"):
        raise Unsupported("it searches for constants", "let them flow")
    values = ops.expand_dims(values, -1)
    return _count(ops, ops.greater(values, row) if o.side == "left" else ops.logical_not(ops.less(values, row)))


def _is_in(ops, o, x, y):
    constant = not hasattr(y, "_keras_history")
    y = np.asarray(y).reshape(-1).astype(x.dtype) if constant else ops.reshape(y, [1] * len(x.shape) + [-1])
    made = ops.any(ops.equal(ops.expand_dims(x, -1), y), axis=-1)
    return ops.logical_not(made) if o.invert else made


def _members(ops, o, data, numbers):
    """Which cell of the first axis is of which segment, with an axis for the segments behind it."""
    if o.num_segments is None:
        raise Unsupported("num_segments=None, so that the data say how many segments there are", "give num_segments")
    if len(numbers.shape) != 1:
        raise Unsupported(f"numbers of segments of shape {tuple(numbers.shape)}", "give a vector")
    _whole(numbers)
    return ops.equal(ops.expand_dims(numbers, -1), np.arange(o.num_segments).astype(numbers.dtype))


def _segment_sum(ops, o, data, numbers):
    members = ops.cast(_members(ops, o, data, numbers), data.dtype)
    letters = "bcdefghij"[: len(data.shape) - 1]
    return ops.einsum(f"as,a{letters}->s{letters}", members, data)


def _segments(function: str, empty: str):
    def part(ops, o, data, numbers):
        members = _members(ops, o, data, numbers)
        if "float" not in data.dtype:
            raise Unsupported(f"segments of {data.dtype}", "cast the data before")
        value = {"one": 1.0, "low": float(np.finfo(data.dtype).min), "high": float(np.finfo(data.dtype).max)}[empty]
        rest = [1] * (len(data.shape) - 1)
        members = ops.reshape(members, (-1, o.num_segments, *rest))
        return getattr(ops, function)(ops.where(members, ops.expand_dims(data, 1), value), axis=0)

    return part


def _in_top_k(ops, o, targets, predictions):
    _whole(targets)
    own = ops.take_along_axis(predictions, ops.expand_dims(targets, -1), axis=-1)
    better = _count(ops, ops.greater(predictions, own))
    return ops.logical_and(ops.less(better, o.k), ops.all(ops.isfinite(predictions), axis=-1))


def _distances(ops, o, x, y):
    between = ops.expand_dims(x, -2) - ops.expand_dims(y, -3)
    return ops.sqrt(ops.sum(ops.square(between), axis=-1))


PARTS = {
    "ops.CDist": _distances,
    "ops.Digitize": _digitize,
    "ops.InTopK": _in_top_k,
    "ops.IsIn": _is_in,
    "ops.MultiHot": _multi_hot,
    "ops.OneHot": _one,
    "ops.SearchSorted": _search,
    "ops.SegmentMax": _segments("max", "low"),
    "ops.SegmentMin": _segments("min", "high"),
    "ops.SegmentProd": _segments("prod", "one"),
    "ops.SegmentSum": _segment_sum,
}
KERAS = tuple(PARTS)


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "ops.MultiHot":  # Keras says the dtype of what it is given
        layer.outputs[0] = replace(layer.outputs[0], dtype=layer.operation.dtype)
    return keras_parts.read(layer, PARTS)
