"""Whole numbers bit by bit, and their divisors: keras.ops.{bitwise_and, left_shift, gcd, ...} <-> x & y, x << y.

Booleans are `bridge.rules.comparison`'s. A number or an array may stand for one of the two. Shifts by less than 0, or
by as many bits as there are, mean nothing in either framework.
"""

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, constant, literal

# function of keras.ops -> (names of ATen beside those that `comparison` reads, expression)
FUNCTIONS = {
    "bitwise_and": ((), "{0} & {1}"),
    "bitwise_or": ((), "{0} | {1}"),
    "bitwise_xor": ((), "{0} ^ {1}"),
    "bitwise_not": ((), "~{0}"),
    "left_shift": (("bitwise_left_shift", "__lshift"), "{0} << {1}"),
    "right_shift": (("bitwise_right_shift", "__rshift"), "{0} >> {1}"),
    "gcd": (("gcd",), "torch.gcd({0}, {1})"),
    "lcm": (("lcm",), "torch.lcm({0}, {1})"),
}
ATEN = {target: name for name, (targets, _) in FUNCTIONS.items() for target in targets}
CLASSES = {f"ops.{name.title().replace('_', '')}": name for name in FUNCTIONS}
CLASSES |= {
    "ops.BitwiseInvert": "bitwise_not",
    "ops.BitwiseLeftShift": "left_shift",
    "ops.BitwiseRightShift": "right_shift",
}
OPERATORS = ("bitwise",)
KERAS = tuple(CLASSES)
TORCH = tuple(ATEN)
LAYOUT = anything
OPERANDS = True


def bitwise(function: str, source: KerasLayer | TorchOperation, *items) -> list[Node]:
    """Nodes for a function of one or two tensors of whole numbers, one of which may be a number or an array."""
    nodes, found = constant.operands(source, *items)
    tensors = [x for x in found if isinstance(x, Value)]
    made, dtypes = source.outputs[0].dtype, {x.dtype for x in tensors}
    if dtypes != {made} or "int" not in made:
        given = " and ".join(sorted(dtypes))
        raise Unsupported(
            f"{function} makes {made} of {given}", "cast the tensors to one dtype of whole numbers before"
        )
    attributes, inputs = {"function": function}, []
    for name, x in zip(("x", "y"), found, strict=False):
        if isinstance(x, Value):
            inputs.append(x)
        elif function in ("gcd", "lcm"):  # torch's take tensors alone
            node = constant.of_number(x, name, tensors[0], source)
            nodes, inputs = [*nodes, node], [*inputs, node.outputs[0]]
        else:
            attributes[name] = int(x)
    return [*nodes, Node("bitwise", attributes, name=source.path, inputs=inputs, outputs=source.outputs)]


def read_keras(layer: KerasLayer) -> list[Node]:
    return bitwise(CLASSES[layer.class_name], layer, *layer.arguments.values())


def write_keras(node: Node) -> list[KerasCall]:
    inputs = ("x1", "x2") if node["function"] in ("gcd", "lcm") else ("x", "y")
    x = node.inputs[0]  # Keras asks even a number for its dtype
    given = {k: np.full((1,) * min(x.rank, 1), node[k], x.dtype) for k in ("x", "y") if k in node.attributes}
    names = tuple(i for i, k in zip(inputs, ("x", "y"), strict=True) if k not in given)[: len(node.inputs)]
    return [KerasCall(f"ops.{node['function']}", given, names=names)]


def read_torch(call: TorchOperation) -> list[Node]:
    return bitwise(ATEN[call.target], call, call["self"], call["other"])


def write_torch(node: Node) -> TorchCall:
    expression, inputs = FUNCTIONS[node["function"]][1], iter(("{0}", "{1}"))
    left, right = (literal(node[k]) if k in node.attributes else next(inputs, "") for k in ("x", "y"))
    return TorchCall(expression.replace("{1}", right).replace("{0}", left, 1))
