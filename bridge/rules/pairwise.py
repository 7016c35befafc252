"""Functions of two tensors, cell by cell: keras.ops.{mod, floor_divide, arctan2, power, ...} <-> x % y, torch.atan2.

Either may be a number (attribute `x1` or `x2`, or a constant where torch takes tensors alone) or a constant. `x ** 3`
is in `bridge.rules.elementwise`, sums and the like are in `bridge.rules.merging`.

Of floats TensorFlow rounds the quotient down; torch takes the remainder away first, as Python does: 1 // 0.1 is 10 and
9. So a floor_divide of floats in Keras is a quotient and a floor, and one in torch is carried where both are the same:
the divisor is a power of two. Of whole numbers both are exact. Keras makes a float32 of the numbers of all but
floor_divide and power (`bridge.rules.comparison`).
"""

import math
from dataclasses import replace

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, comparison, constant, elementwise, literal

# function of keras.ops -> (names of ATen, expression)
FUNCTIONS = {
    "arctan2": (("atan2", "arctan2"), "torch.atan2({0}, {1})"),
    "floor_divide": (("floor_divide",), "{0} // {1}"),
    "fmod": (("fmod",), "torch.fmod({0}, {1})"),
    "hypot": (("hypot",), "torch.hypot({0}, {1})"),
    "logaddexp": (("logaddexp",), "torch.logaddexp({0}, {1})"),
    "logaddexp2": (("logaddexp2",), "torch.logaddexp2({0}, {1})"),
    "mod": (("remainder",), "{0} % {1}"),
    "power": (("pow",), "{0} ** {1}"),
}
ATEN = {target: name for name, (targets, _) in FUNCTIONS.items() for target in targets}
CLASSES = {f"ops.{name.title().replace('_', '')}": name for name in FUNCTIONS}
WHOLE = ("floor_divide", "mod")  # functions of whole numbers, too
ROUNDED = ("arctan2", "fmod", "hypot", "logaddexp", "logaddexp2", "mod")  # those whose numbers Keras makes float32
# those that torch takes as numbers, and still trains
NUMBERS = {"fmod": ("x2",), "mod": ("x2",), "floor_divide": ("x1", "x2"), "power": ("x1", "x2")}

OPERATORS = ("pairwise",)
KERAS = tuple(CLASSES)
TORCH = tuple(ATEN)
LAYOUT = anything
OPERANDS = True


def LIMIT(node: Node) -> float:
    """TensorFlow's logaddexp2 has a logarithm of 2 in float32."""
    return 1e-7 if node["function"] == "logaddexp2" else 0.0


def pairwise(function: str, source: KerasLayer | TorchOperation, left, right) -> list[Node]:
    """Nodes for a function of two tensors, or of a tensor and a number."""
    nodes, items = constant.operands(source, left, right)
    made, tensors = source.outputs[0], [x for x in items if isinstance(x, Value)]
    dtypes = {x.dtype for x in tensors}
    whole = all("int" in d for d in dtypes)
    if dtypes != {made.dtype} or not ("float" in made.dtype or (whole and function in WHOLE)):
        given = " and ".join(sorted(dtypes))
        raise Unsupported(f"{function} makes {made.dtype} of {given}", "convert the tensors to one float dtype before")
    if function == "floor_divide" and not whole:
        return [*nodes, *_floor(items, source)]
    if function == "power" and len(tensors) == 1:
        if isinstance(items[0], Value):
            return [replace(elementwise.power(items[1], source.path), inputs=tensors)]
        if items[0] == 2:
            return [Node("elementwise", {"function": "exp2"}, name=source.path, inputs=tensors)]
    rounded = isinstance(source, KerasLayer) and function in ROUNDED
    attributes, inputs = {"function": function}, []
    for name, given, x in zip(("x1", "x2"), (left, right), items, strict=True):
        number = None if isinstance(x, Value) else comparison.exact(x, made.dtype, rounded and type(given) is float)
        if number is not None and name in NUMBERS.get(function, ()):
            attributes[name] = number
            continue
        if number is not None:
            node = constant.of_number(number, name, tensors[0], source)
            nodes, x = [*nodes, node], node.outputs[0]
        inputs.append(x)
    return [*nodes, Node("pairwise", attributes, name=source.path, inputs=inputs)]


def _floor(items: list, source: KerasLayer | TorchOperation) -> list[Node]:
    """Nodes for the quotient of floats, rounded down."""
    left, right = items
    if isinstance(source, TorchOperation) and (isinstance(right, Value) or math.frexp(abs(right))[0] != 0.5):
        raise Unsupported("torch's x // y of floats is not the quotient rounded down", "write torch.floor(x / y)")
    made = source.outputs[0]
    quotient = replace(made, name=f"{made.name}:quotient")
    if not isinstance(left, Value):
        raise Unsupported("it divides a number by a tensor of floats", "write floor(number / x)")
    number = {} if isinstance(right, Value) else {"number": right}
    inputs = [x for x in items if isinstance(x, Value)]
    nodes = [Node("divide", number, inputs=inputs, outputs=[quotient])]
    return [*nodes, Node("elementwise", {"function": "floor"}, name=source.path, inputs=[quotient])]


def read_keras(layer: KerasLayer) -> list[Node]:
    return pairwise(CLASSES[layer.class_name], layer, *layer.arguments.values())


def write_keras(node: Node) -> list[KerasCall]:
    function, dtype = node["function"], node.outputs[0].dtype
    numbers = {k: node[k] for k in ("x1", "x2") if k in node.attributes}
    if function in ROUNDED:
        numbers = {k: comparison.given(v, dtype) for k, v in numbers.items()}
    return [KerasCall(f"ops.{function}", numbers, names=tuple(k for k in ("x1", "x2") if k not in numbers))]


def read_torch(call: TorchOperation) -> list[Node]:
    other = "exponent" if call.target == "pow" else "other"
    return pairwise(ATEN[call.target], call, call["self"], call[other])


def write_torch(node: Node) -> TorchCall:
    function, inputs = node["function"], iter(("{0}", "{1}"))
    left, right = (literal(node[k]) if k in node.attributes else next(inputs) for k in ("x1", "x2"))
    if function == "power" and "x1" in node.attributes:
        return TorchCall(f"torch.pow({left}, {right})")
    return TorchCall(FUNCTIONS[function][1].replace("{1}", right).replace("{0}", left, 1))
