"""Functions cell by cell that consist of others: keras.ops.{heaviside, cbrt, divide_no_nan, fmax, isclose, ...}.

They are read as what TensorFlow computes them by. So `isclose` of two equal infinities is false, as in Keras, where
torch's is true; the root of a negative number is negative; a quotient by 0 is 0, and its gradients are.
"""

import math

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

OPERATORS = ()  # functions, comparisons, choices
TORCH = ()
LAYOUT = anything


def _floats(*tensors) -> None:
    for x in tensors:
        if hasattr(x, "dtype") and "float" not in str(x.dtype):
            raise Unsupported(f"it is computed from {x.dtype}", "convert the tensor to a float dtype before")


def _heaviside(ops, o, x, y):
    _floats(x)
    y = float(y) if np.ndim(y) == 0 and not hasattr(y, "_keras_history") else y
    return ops.where(ops.less(x, 0.0), 0.0, ops.where(ops.greater(x, 0.0), 1.0, y))


def _cbrt(ops, o, x):
    _floats(x)
    return ops.sign(x) * ops.power(ops.absolute(x), 1.0 / 3.0)


def _divide_no_nan(ops, o, x, y):
    _floats(x, y)
    if not hasattr(y, "_keras_history"):
        if np.any(np.asarray(y) == 0):
            raise Unsupported("it divides by an array with a 0 in it", "use keras.ops.where")
        return x / y
    zero = ops.equal(y, 0.0)
    return ops.where(zero, 0.0, x / ops.where(zero, 1.0, y))


def _number_wins(function: str):
    """The larger or smaller; a number where the other is none."""

    def part(ops, o, x, y):
        made = getattr(ops, function)(x, y)
        if "float" not in made.dtype:
            return made
        tensors = [hasattr(t, "_keras_history") for t in (x, y)]
        if not all(tensors):
            constant = y if tensors[0] else x
            if np.isnan(constant).any():
                raise Unsupported("one of its operands is not a number", "leave it out")
            return ops.where(ops.isnan(x if tensors[0] else y), constant, made)
        made = ops.where(ops.logical_and(ops.isnan(x), ops.logical_not(ops.isnan(y))), y, made)
        return ops.where(ops.logical_and(ops.isnan(y), ops.logical_not(ops.isnan(x))), x, made)

    return part


def _ldexp(ops, o, x, exponent):
    _floats(x)
    if hasattr(exponent, "_keras_history"):
        factor = ops.power(2.0, ops.cast(exponent, x.dtype))
    else:
        factor = np.exp2(np.asarray(exponent)).astype(x.dtype)
    whole = ops.logical_or(ops.isinf(x), ops.equal(x, 0.0))  # else 0 * inf
    return ops.where(whole, x, x * factor)


def _isclose(ops, o, x, y, rtol=1e-5, atol=1e-8):
    if not any("float" in str(getattr(t, "dtype", "")) for t in (x, y)):
        return ops.equal(x, y)
    constant = not hasattr(y, "_keras_history")
    near = atol + rtol * np.abs(np.asarray(y, x.dtype)) if constant else ops.absolute(y) * rtol + atol
    made = ops.less_equal(ops.absolute(x - y), near)
    if not o.equal_nan:
        return made
    if constant:
        raise Unsupported("equal_nan=True with a constant", "use keras.ops.isnan")
    return ops.logical_or(made, ops.logical_and(ops.isnan(x), ops.isnan(y)))


def _allclose(ops, o, x, y):
    """One boolean for the whole batch; unlike isclose it takes equal infinities for close, and no other."""
    if not all(hasattr(t, "_keras_history") for t in (x, y)):
        raise Unsupported("it compares with a constant", "use keras.ops.isclose and keras.ops.all")
    if not any("float" in t.dtype for t in (x, y)):
        return ops.all(ops.equal(x, y))
    near = ops.less_equal(ops.absolute(x - y), ops.absolute(y) * o.rtol + o.atol)
    made = ops.logical_and(ops.logical_and(ops.isfinite(x), ops.isfinite(y)), near)
    made = ops.logical_or(made, ops.equal(x, y))
    return ops.all(ops.logical_or(made, ops.logical_and(ops.isnan(x), ops.isnan(y))) if o.equal_nan else made)


def _select(ops, o, conditions, choices, default=0):
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        default = ops.where(condition, choice, default)
    return default


def _saturate(ops, o, x):
    """A conversion of what is in the range of the other dtype, and its ends."""
    if "float" in x.dtype and "float" in o.dtype:
        return (
            ops.cast(ops.clip(x, *_ends(o.dtype)), o.dtype)
            if _ends(o.dtype)[1] < _ends(x.dtype)[1]
            else ops.cast(x, o.dtype)
        )
    if "float" in x.dtype and "int" in o.dtype:
        low, high = _ends(o.dtype)
        high = (
            high
            if float(np.asarray(high).astype(x.dtype)) <= high
            else float(np.nextafter(np.asarray(high, x.dtype), np.asarray(0, x.dtype)))
        )
        return ops.cast(ops.minimum(ops.maximum(x, float(low)), float(high)), o.dtype)
    raise Unsupported(f"saturate_cast of {x.dtype} to {o.dtype}", "clip it, and cast it")


def _ends(dtype: str) -> tuple:
    if dtype == "bfloat16":
        return -3.3895313892515355e38, 3.3895313892515355e38
    info = np.finfo(dtype) if "float" in dtype else np.iinfo(dtype)
    return (float(info.min), float(info.max)) if "float" in dtype else (int(info.min), int(info.max))


def _filled(ops, o, x, value=0):
    """As many of a number as a tensor has cells, whatever those are."""
    if hasattr(value, "_keras_history"):
        raise Unsupported("it is filled with a tensor", "multiply that by keras.ops.ones_like(x)")
    dtype, ones = o.dtype or x.dtype, ops.ones_like(x)
    if np.ndim(value) or value != value:
        raise Unsupported(f"it is filled with {value!r}", "fill it with a plain number")
    if dtype == "bool":
        return ops.cast(ops.cast(ones, "int32") * int(bool(value)), "bool")
    return ops.cast(ones, dtype) * (float(value) if "float" in dtype else int(value))


def _vander(ops, o, x):
    n = x.shape[0] if o.N is None else o.N
    if n is None or len(x.shape) != 1 or "float" not in x.dtype:
        raise Unsupported(f"powers of {x.dtype}, of shape {tuple(x.shape)}", "give a row of floats, and N")
    powers = [ops.ones_like(x), *(ops.power(x, float(i)) for i in range(1, n))]
    return ops.stack(powers if o.increasing else powers[::-1], axis=-1)


def _unravel(ops, o, x):
    """Positions along each axis; of what is no row Keras on TensorFlow counts the first axis as the fastest."""
    made = []
    for size in reversed(o.shape) if len(x.shape) == 1 else o.shape:
        made.append(ops.mod(x, size))
        x = ops.floor_divide(x, size)
    return made[::-1]


PARTS = {
    "ops.AllClose": _allclose,
    "ops.Angle": lambda ops, o, x: _real(x) or ops.cast(ops.less(x, 0.0), x.dtype) * math.pi,
    "ops.Cbrt": _cbrt,
    "ops.Conj": lambda ops, o, x: _real(x) or x,
    "ops.Conjugate": lambda ops, o, x: _real(x) or x,
    "ops.ConvertToTensor": lambda ops, o, x: x if o.dtype is None else ops.cast(x, o.dtype),
    "ops.Copy": lambda ops, o, x: x,
    "ops.DivideNoNan": _divide_no_nan,
    "ops.Fmax": _number_wins("maximum"),
    "ops.Fmin": _number_wins("minimum"),
    "ops.FullLike": _filled,
    "ops.Heaviside": _heaviside,
    "ops.Imag": lambda ops, o, x: _real(x) or ops.ones_like(x) * 0.0,
    "ops.Isclose": _isclose,
    "ops.Isreal": lambda ops, o, x: _real(x) or ops.cast(ops.ones_like(x), "bool"),
    "ops.Ldexp": _ldexp,
    "ops.Real": lambda ops, o, x: _real(x) or x,
    "ops.SaturateCast": _saturate,
    "ops.Select": _select,
    "ops.UnravelIndex": _unravel,
    "ops.Vander": _vander,
    "ops.ZerosLike": _filled,
}
KERAS = tuple(PARTS)


def _real(x) -> None:
    if "complex" in x.dtype:
        raise Unsupported(f"it is computed from {x.dtype}", "compute with real numbers")
    _floats(x)


def read_keras(layer: KerasLayer) -> list[Node]:
    return keras_parts.read(layer, PARTS)
