"""Comparisons and logic, cell by cell: keras.ops.{greater, equal, logical_and, isnan, ...} <-> torch.gt, x > y, a & b.

What comes out is true or false. A comparison is of two tensors or, by the attribute `number`, of a tensor and a number;
`1 > x` is `x < 1`. Logic takes what is not 0 for true. torch's `&` is logic
where both are booleans, of whole numbers it is `bitwise`; Keras' bitwise functions do not take booleans on TensorFlow.

Keras makes a float32 of a number before it compares, of whatever dtype the tensor is, torch one of the tensor's: 0.1
with a tensor of float64 is carried as the number that the one who has it compares with.
"""

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, bitwise, constant, literal

# function of keras.ops -> (torch's names, expression)
COMPARISONS = {
    "greater": (("gt", "greater"), "{0} > {1}"),
    "greater_equal": (("ge", "greater_equal"), "{0} >= {1}"),
    "less": (("lt", "less"), "{0} < {1}"),
    "less_equal": (("le", "less_equal"), "{0} <= {1}"),
    "equal": (("eq",), "{0} == {1}"),
    "not_equal": (("ne", "not_equal"), "{0} != {1}"),
}
LOGIC = {
    "logical_and": (("logical_and",), "torch.logical_and({0}, {1})"),
    "logical_or": (("logical_or",), "torch.logical_or({0}, {1})"),
    "logical_xor": (("logical_xor",), "torch.logical_xor({0}, {1})"),
    "logical_not": (("logical_not",), "torch.logical_not({0})"),
    "isnan": (("isnan",), "torch.isnan({0})"),
    "isinf": (("isinf",), "torch.isinf({0})"),
    "isfinite": (("isfinite",), "torch.isfinite({0})"),
    "isneginf": (("isneginf",), "torch.isneginf({0})"),
    "isposinf": (("isposinf",), "torch.isposinf({0})"),
    "signbit": (("signbit",), "torch.signbit({0})"),
}
BITWISE = {
    "bitwise_and": "logical_and",
    "__and": "logical_and",
    "bitwise_or": "logical_or",
    "__or": "logical_or",
    "bitwise_xor": "logical_xor",
    "__xor": "logical_xor",
    "bitwise_not": "logical_not",
}
FUNCTIONS = COMPARISONS | LOGIC
ATEN = {target: name for name, (targets, _) in FUNCTIONS.items() for target in targets} | {b: b for b in BITWISE}
CLASSES = {f"ops.{name.title().replace('_', '')}": name for name in FUNCTIONS}
FLIPPED = {"greater": "less", "greater_equal": "less_equal", "less": "greater", "less_equal": "greater_equal"}

OPERATORS = ("comparison",)
KERAS = tuple(CLASSES)
TORCH = tuple(ATEN)
LAYOUT = anything
OPERANDS = True


def comparison(function: str, source: KerasLayer | TorchOperation, *items) -> list[Node]:
    """Nodes for a function of one or two tensors, one of which may be a number or an array."""
    if function in BITWISE:
        if any(x.dtype != "bool" for x in items if isinstance(x, Value)):
            return bitwise.bitwise(f"bitwise_{function.strip('_').removeprefix('bitwise_')}", source, *items)
        function = BITWISE[function]
    nodes, found = constant.operands(source, *items)
    tensors = [v for v in found if isinstance(v, Value)]
    node = Node("comparison", {"function": function}, name=source.path, inputs=tensors, outputs=source.outputs)
    if len(tensors) < len(found):
        if function in LOGIC:
            raise Unsupported(f"{function} of a tensor and a number", "leave the number out")
        if not isinstance(found[0], Value):
            node.attributes["function"] = FLIPPED.get(function, function)
        number = next(x for x in found if not isinstance(x, Value))
        plain = isinstance(source, KerasLayer) and any(type(x) is float for x in items)
        node.attributes["number"] = exact(number, tensors[0].dtype, plain)
    return [*nodes, node]


def exact(number, dtype: str, keras: bool = False):
    """A number as the framework that has it computes with it beside a tensor of a dtype."""
    if not isinstance(number, (bool, int, float)) or number != number:
        raise Unsupported(f"{number!r} is not a plain number", "give it as one, or as a tensor that flows")
    if "float" not in dtype:
        return number
    return float(np.float32(number)) if keras and dtype == "float64" else float(number)


def given(number, dtype: str):
    """A number as Keras is to be given it, which would else round it to float32."""
    return np.float64(number) if dtype == "float64" and isinstance(number, float) else number


def read_keras(layer: KerasLayer) -> list[Node]:
    return comparison(CLASSES[layer.class_name], layer, *layer.arguments.values())


def write_keras(node: Node) -> list[KerasCall]:
    number = {"x2": given(node["number"], node.inputs[0].dtype)} if "number" in node.attributes else {}
    return [KerasCall(f"ops.{node['function']}", number)]


def read_torch(call: TorchOperation) -> list[Node]:
    items = [call[k] for k in ("self", "other") if k in call.arguments]
    return comparison(ATEN[call.target], call, *items)


def write_torch(node: Node) -> TorchCall:
    expression = FUNCTIONS[node["function"]][1]
    if "number" in node.attributes:
        expression = expression.replace("{1}", literal(node["number"]))
    elif node["function"] in LOGIC and all(v.dtype == "bool" for v in node.inputs):
        signs = {"logical_and": "{0} & {1}", "logical_or": "{0} | {1}", "logical_xor": "{0} ^ {1}"}
        expression = (signs | {"logical_not": "~{0}"}).get(node["function"], expression)
    return TorchCall(expression)
