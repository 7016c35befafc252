"""Statistics by other functions: keras.ops.{moments, average, ptp, median, quantile, nanmean, nancumsum, ...}.

A quantile is a sorted tensor's cells at places that are known where its sizes are. Keras makes float32 of one that is a
plain number, of a percentile before it divides by 100, and of the step of a trapezoid. keras.ops.quantile in a
functional model interpolates linearly whatever method it is given; its percentile does not. A tensor with a NaN has NaN
for its quantiles. What leaves NaN out replaces it; of the nan-functions quantiles alone are refused, as their places
depend on it.
"""

from math import prod

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

OPERATORS = ()  # reductions, sorts, choices
TORCH = ()
LAYOUT = anything


def _moments(ops, o, x):
    if o.synchronized:
        raise Unsupported("synchronized=True", "leave it out, on one device it does nothing")
    if x.dtype in ("float16", "bfloat16"):
        raise Unsupported(f"moments of {x.dtype}, which Keras computes in float32", "cast the tensor before")
    return ops.mean(x, axis=o.axes, keepdims=o.keepdims), ops.var(x, axis=o.axes, keepdims=o.keepdims)


def _average(ops, o, x, weights=None):
    if weights is None:
        return ops.mean(x, axis=o.axis)
    constant = not hasattr(weights, "_keras_history")
    if len(weights.shape) != len(x.shape) and o.axis is not None:
        axis = o.axis % len(x.shape)
        weights = (np if constant else ops).reshape(weights, [-1 if a == axis else 1 for a in range(len(x.shape))])
        total = weights.sum() if constant else ops.sum(weights)
    else:
        total = weights.sum(axis=o.axis) if constant else ops.sum(weights, axis=o.axis)
    made = ops.sum(x * weights, axis=o.axis)
    return made / (total.astype(x.dtype) if constant else total)


def _axes(o, x) -> list[int]:
    axes = range(len(x.shape)) if o.axis is None else [o.axis] if isinstance(o.axis, int) else o.axis
    return sorted(a % len(x.shape) for a in axes)


def _quantiles(ops, o, x, q: np.ndarray, method: str):
    """Cells of the sorted tensor, as TensorFlow picks and joins them."""
    if "float" not in x.dtype:
        raise Unsupported(f"quantiles of {x.dtype}", "cast the tensor before")
    axes = _axes(o, x)
    sizes = [x.shape[a] for a in axes]
    if None in sizes:
        raise Unsupported(f"quantiles over the axes {tuple(axes)}, one of them open", "fix that size, or name others")
    others = [a for a in range(len(x.shape)) if a not in axes]
    n, y = prod(sizes), ops.transpose(x, (*others, *axes))
    if len(axes) > 1:
        y = ops.reshape(y, [*(-1 if x.shape[a] is None else x.shape[a] for a in others), n])
    y = ops.sort(y, axis=-1)
    made = [_quantile(y, n, place, method) for place in q.astype("float64").ravel()]
    nan = ops.isnan(x)
    spoilt = ops.sum(ops.where(nan, x, 0.0), axis=o.axis, keepdims=False)  # 0, or NaN if there is one
    made = [part + spoilt for part in made]
    if o.keepdims:
        for a in axes:
            made = [ops.expand_dims(part, a) for part in made]
    return ops.stack(made, axis=0) if q.ndim else made[0]


def _quantile(y, n: int, q: float, method: str):
    at = (n - 1) * q
    places = {"lower": np.floor, "higher": np.ceil, "nearest": np.round}

    def cell(place):
        return y[..., int(np.clip(place, 0, n - 1))]

    if method in places:
        return cell(places[method](at))
    if method == "midpoint":
        return 0.5 * (cell(np.floor(at)) + cell(np.ceil(at)))
    low = max(int(np.clip(np.ceil(at), 0, n - 1)) - 1, 0)
    high = min(low + 1, n - 1)
    fraction = float(high - at)
    if fraction in (0.0, 1.0):
        return cell(high if fraction == 0.0 else low)
    return cell(high) * (1 - fraction) + cell(low) * fraction


def _places(q, dtype: str | None) -> np.ndarray:
    if hasattr(q, "_keras_history"):
        raise Unsupported("the quantiles are a tensor", "give them as numbers")
    plain = not hasattr(q, "dtype")
    return np.asarray(q, dtype or ("float32" if plain else None))


def _without(ops, x, value: float):
    return ops.where(ops.isnan(x), value, x) if "float" in x.dtype else x


def _valid(ops, o, x, keepdims: bool):
    return ops.sum(ops.cast(ops.logical_not(ops.isnan(x)), x.dtype), axis=o.axis, keepdims=keepdims)


def _floats(x) -> None:
    if "float" not in x.dtype:
        raise Unsupported(f"it is computed from {x.dtype}", "use the function without nan")


def _nanmean(ops, o, x, keepdims: bool | None = None):
    _floats(x)
    keepdims = o.keepdims if keepdims is None else keepdims
    return ops.sum(_without(ops, x, 0.0), axis=o.axis, keepdims=keepdims) / _valid(ops, o, x, keepdims)


def _nanvar(ops, o, x):
    centered = ops.where(ops.isnan(x), 0.0, x - _nanmean(ops, o, x, True))
    return ops.sum(ops.square(centered), axis=o.axis, keepdims=o.keepdims) / _valid(ops, o, x, o.keepdims)


def _extreme(function: str, value: float):
    """The largest or smallest of those that are numbers; where there is none the mean, which is NaN then."""

    def part(ops, o, x):
        _floats(x)
        none = ops.all(ops.isnan(x), axis=o.axis, keepdims=o.keepdims)
        made = getattr(ops, function)(_without(ops, x, value), axis=o.axis, keepdims=o.keepdims)
        return ops.where(none, ops.mean(ops.stop_gradient(x), axis=o.axis, keepdims=o.keepdims), made)

    return part


def _place(function: str, value: float):
    def part(ops, o, x):
        _floats(x)
        none = ops.all(ops.isnan(x), axis=o.axis, keepdims=o.keepdims)
        return ops.where(none, -1, getattr(ops, function)(_without(ops, x, value), axis=o.axis, keepdims=o.keepdims))

    return part


def _trapezoid(ops, o, y):
    before = (slice(None),) * (o.axis % len(y.shape))
    heights = 0.5 * (y[(*before, slice(1, None))] + y[(*before, slice(None, -1))])
    if o.x is None:
        return ops.sum(heights * float(np.float32(o.dx)), axis=o.axis)
    x = np.asarray(o.x, y.dtype)
    if x.ndim > 1:
        raise Unsupported("its x has several axes", "give a row of places")
    along = [-1 if a == len(before) else 1 for a in range(len(y.shape))]
    return ops.sum(heights * np.diff(x).reshape(along), axis=o.axis)


PARTS = {
    "ops.Average": _average,
    "ops.Median": lambda ops, o, x: _quantiles(ops, o, x, np.float32(0.5), "linear"),
    "ops.Moments": _moments,
    "ops.Nanargmax": _place("argmax", float("-inf")),
    "ops.Nanargmin": _place("argmin", float("inf")),
    "ops.Nancumprod": lambda ops, o, x: ops.cumprod(ops.nan_to_num(x, nan=1.0), axis=o.axis, dtype=o.dtype),
    "ops.Nancumsum": lambda ops, o, x: ops.cumsum(ops.nan_to_num(x), axis=o.axis, dtype=o.dtype),
    "ops.Nanmax": _extreme("max", float("-inf")),
    "ops.Nanmean": _nanmean,
    "ops.Nanmin": _extreme("min", float("inf")),
    "ops.Nanprod": lambda ops, o, x: ops.prod(_without(ops, x, 1.0), axis=o.axis, keepdims=o.keepdims),
    "ops.Nanstd": lambda ops, o, x: ops.sqrt(_nanvar(ops, o, x)),
    "ops.Nansum": lambda ops, o, x: ops.sum(_without(ops, x, 0.0), axis=o.axis, keepdims=o.keepdims),
    "ops.Nanvar": _nanvar,
    "ops.Percentile": lambda ops, o, x, q: _quantiles(ops, o, x, _places(q, "float32") / np.float32(100), o.method),
    "ops.Ptp": lambda ops, o, x: (
        ops.max(x, axis=o.axis, keepdims=o.keepdims) - ops.min(x, axis=o.axis, keepdims=o.keepdims)
    ),
    "ops.Quantile": lambda ops, o, x, q: _quantiles(ops, o, x, _places(q, None), "linear"),
    "ops.Trapezoid": _trapezoid,
}
KERAS = tuple(PARTS)


def read_keras(layer: KerasLayer) -> list[Node]:
    return keras_parts.read(layer, PARTS)
