"""Functions of a tensor, cell by cell, that are no activations: keras.ops.{sqrt, log, ...} <-> torch.{sqrt, log, ...}.

A node has a function under Keras' name and, where it has one, a number: `x ** 3`, `maximum(x, 0.5)`. The same has
several names, of which the normal form keeps one: `x ** 2` is "square", `x ** -1` is "reciprocal", and a maximum with 0
is a ReLU, but of whole numbers, of which both keep the bounds, the absolute value, the sign and the square. Both
frameworks compute all of them in float64 and round half to even.

They differ at single points. Gradients: of `x ** 0` and sinc at 0 that of TensorFlow is NaN and torch's is 0; floor,
ceil, round and trunc have none in TensorFlow and 0 in torch, which is the same to a training step. Values: TensorFlow's
erf of an infinity is NaN, torch's sign of a NaN is 0.
"""

import math
import numbers
from dataclasses import replace

import numpy as np

from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, for_torch, literal

# Keras' name -> (torch's name, other names that torch.export uses)
FUNCTIONS = {
    "absolute": ("abs", "absolute"),
    "arccos": ("acos", "arccos"),
    "arccosh": ("acosh", "arccosh"),
    "arcsin": ("asin", "arcsin"),
    "arcsinh": ("asinh", "arcsinh"),
    "arctan": ("atan", "arctan"),
    "arctanh": ("atanh", "arctanh"),
    "ceil": ("ceil",),
    "cos": ("cos",),
    "cosh": ("cosh",),
    "deg2rad": ("deg2rad",),
    "erf": ("erf", "special_erf"),
    "erfc": ("erfc", "special_erfc"),
    "erfinv": ("erfinv", "special_erfinv"),
    "exp2": ("exp2", "special_exp2"),
    "expm1": ("expm1", "special_expm1"),
    "floor": ("floor",),
    "i0": ("i0", "special_i0"),
    "log": ("log",),
    "log10": ("log10",),
    "log1p": ("log1p", "special_log1p"),
    "log2": ("log2",),
    "rad2deg": ("rad2deg",),
    "reciprocal": ("reciprocal",),
    "round": ("round", "special_round"),
    "rsqrt": ("rsqrt",),
    "sign": ("sign", "sgn"),
    "sin": ("sin",),
    "sinc": ("sinc", "special_sinc"),
    "sinh": ("sinh",),
    "sqrt": ("sqrt",),
    "square": ("square",),
    "tan": ("tan",),
    "trunc": ("trunc", "fix"),
}
# function of a tensor and a number -> torch expression; `power` comes from `pairwise`, the others from `merging`
NUMBERED = {"power": "{0} ** {1}", "maximum": "{0}.clamp(min={1})", "minimum": "{0}.clamp(max={1})"}

POWERS = {2: "square", -1: "reciprocal"}  # exponents that have a function of their own

OPERATIONS = {f"ops.{name.capitalize()}": name for name in FUNCTIONS} | {"ops.Fabs": "absolute", "ops.Abs": "absolute"}
ATEN = {target: name for name, targets in FUNCTIONS.items() for target in targets}
WHOLE = ("absolute", "sign", "square")  # functions of whole numbers, too
BOUNDS = {"clamp_min": ("maximum", "min"), "clamp_max": ("minimum", "max")}  # ATen -> function, argument

OPERATORS = ("elementwise",)
KERAS = tuple(OPERATIONS)
TORCH = (*ATEN, *BOUNDS)
LAYOUT = anything


def bound(function: str, number, dtype: str, name: str = "") -> Node:
    """Return the normal form of the "maximum" or "minimum" of a tensor of a dtype and a number."""
    if "int" in dtype:
        return Node("elementwise", {"function": function, "number": _whole(number, dtype)}, name=name)
    if function == "maximum" and number == 0:
        return Node("activation", {"function": "relu"}, name=name)
    return Node("elementwise", {"function": function, "number": _plain(number)}, name=name)


def _plain(number) -> float:
    number = number.item() if isinstance(number, np.generic) else number
    if not isinstance(number, numbers.Real) or isinstance(number, bool) or math.isnan(number):
        raise Unsupported(f"{number!r} is not a plain number", "give it as one, or as a tensor that flows")
    return float(number)


def _whole(number, dtype: str) -> int:
    limits = np.iinfo(dtype)
    if isinstance(number, bool) or number != number or not limits.min <= number <= limits.max or number % 1:
        raise Unsupported(f"{number!r} is no number of {dtype}", "give it as a whole number in the range of that dtype")
    return int(number)


def power(exponent, name: str = "") -> Node:
    """Return the normal form of a tensor to the power of a number; other powers are in `pairwise`."""
    if exponent in POWERS:
        return Node("elementwise", {"function": POWERS[exponent]}, name=name)
    return Node("elementwise", {"function": "power", "number": _plain(exponent)}, name=name)


def check_dtype(dtype: str, function: str = "it") -> None:
    """Refuse what TensorFlow and torch convert to a float each in its own way."""
    if "float" not in dtype:
        raise Unsupported(f"{function} is computed from {dtype}", "convert the tensor to a float dtype before")


def read_keras(layer: KerasLayer) -> list[Node]:
    _check(OPERATIONS[layer.class_name], layer.inputs[0].dtype, layer.outputs[0].dtype)
    _check_decimals(layer.config.get("decimals", 0))
    return [Node("elementwise", {"function": OPERATIONS[layer.class_name]}, name=layer.path)]


def _check(function: str, given: str, made: str) -> None:
    if function not in WHOLE or "int" not in given or given != made:
        check_dtype(given, function)


def _check_decimals(decimals: int) -> None:
    if decimals:
        raise Unsupported(f"it rounds to {decimals} decimals", "multiply, round and divide")


def write_keras(node: Node) -> list[KerasCall]:
    if node["function"] == "reciprocal":  # whose own function says float32 of whatever it makes
        return [KerasCall("ops.power", {"x2": -1.0})]
    number = {"x2": node["number"]} if "number" in node.attributes else {}
    return [KerasCall(f"ops.{node['function']}", number)]


def read_torch(call: TorchOperation) -> list[Node]:
    if call.target in BOUNDS:
        function, argument = BOUNDS[call.target]
        arguments = {**call.arguments, "other": call[argument]}
        return for_torch(function).read_torch(replace(call, target=function, arguments=arguments))
    _check(ATEN[call.target], call.inputs[0].dtype, call.outputs[0].dtype)
    _check_decimals(call.arguments.get("decimals", 0))
    return [Node("elementwise", {"function": ATEN[call.target]}, name=call.path)]


def write_torch(node: Node) -> TorchCall:
    if "number" in node.attributes:
        return TorchCall(NUMBERED[node["function"]].replace("{1}", literal(node["number"])))
    return TorchCall(f"torch.{FUNCTIONS[node['function']][0]}({{0}})")
