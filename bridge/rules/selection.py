"""The one or the other, cell by cell: keras.ops.where <-> torch.where, x.masked_fill(mask, value).

The inputs are the condition and what is taken where it holds and where it does not; numbers among the latter are the
attributes `yes` and `no`. `x.masked_fill(mask, value)` is `where(mask, value, x)`. The condition may be of any dtype in
Keras: what is not 0 holds.
"""

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, constant, literal

OPERATORS = ("where", "nan_to_num")
KERAS = ("ops.Where", "ops.NanToNum")
TORCH = ("where", "masked_fill", "nan_to_num")
LAYOUT = anything
OPERANDS = True


def where(source: KerasLayer | TorchOperation, condition, yes, no) -> list[Node]:
    """Nodes for a choice; any of the three may be a constant."""
    made = source.outputs[0]
    nodes, (condition, yes, no) = constant.operands(source, condition, yes, no, condition=0)
    if not isinstance(condition, Value):
        raise Unsupported("its condition is a single constant", "leave out what is never taken")
    if condition.dtype != "bool":
        true = Value(f"{made.name}:condition", condition.shape, "bool")
        nodes.append(Node("cast", {"dtype": "bool"}, inputs=[condition], outputs=[true]))
        condition = true
    attributes, inputs = {}, [condition]
    for name, x in (("yes", yes), ("no", no)):
        if not isinstance(x, Value):
            attributes[name] = _number(x, made.dtype)
            continue
        if x.dtype != made.dtype:
            raise Unsupported(f"it makes {made.dtype} of {x.dtype}", f"cast it to {made.dtype} before")
        inputs.append(x)
    return [*nodes, Node("where", attributes, name=source.path, inputs=inputs, outputs=[made])]


def _number(x, dtype: str):
    if not isinstance(x, (bool, int, float)) or x != x:
        raise Unsupported(f"{x!r} is not a plain number", "give it as one, or as a tensor that flows")
    return float(x) if "float" in dtype else bool(x) if dtype == "bool" else int(x)


def read_keras(layer: KerasLayer) -> list[Node]:
    a, c = layer.arguments, layer.config
    if layer.class_name == "ops.NanToNum":
        return [_finite(layer, c["nan"], c["posinf"], c["neginf"])]
    return where(layer, a["condition"], a["x1"], a["x2"])


def _finite(source: KerasLayer | TorchOperation, nan, posinf, neginf) -> Node:
    values = {"nan": nan or 0.0, "posinf": posinf, "neginf": neginf}
    if "float" not in source.inputs[0].dtype:
        raise Unsupported(f"nan_to_num of {source.inputs[0].dtype}", "leave it out")
    return Node("nan_to_num", {k: v if v is None else float(v) for k, v in values.items()}, name=source.path)


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "nan_to_num":
        return [KerasCall("ops.nan_to_num", dict(node.attributes))]
    roles = {"yes": "x1", "no": "x2"}
    numbers = {roles[k]: v for k, v in node.attributes.items()}
    names = ("condition", *(name for name in roles.values() if name not in numbers))
    return [KerasCall("ops.where", numbers, names=names)]


def read_torch(call: TorchOperation) -> list[Node]:
    a = call.arguments
    if call.target == "nan_to_num":
        return [_finite(call, a["nan"], a["posinf"], a["neginf"])]
    if call.target == "masked_fill":
        return where(call, a["mask"], a["value"], a["self"])
    if "self" not in a or "other" not in a:
        raise Unsupported("it returns positions, whose number is open", "give torch.where the two tensors")
    return where(call, a["condition"], a["self"], a["other"])


def write_torch(node: Node) -> TorchCall:
    a = node.attributes
    if node.operator == "nan_to_num":
        options = ", ".join(["{0}", *(f"{k}={literal(v)}" for k, v in a.items() if v is not None and v != 0)])
        return TorchCall(f"torch.nan_to_num({options})")
    if "yes" in a and "no" not in a:
        return TorchCall(f"{{1}}.masked_fill({{0}}, {literal(a['yes'])})")
    inputs = iter(range(1, 3))
    yes, no = (literal(a[k]) if k in a else f"{{{next(inputs)}}}" for k in ("yes", "no"))
    return TorchCall(f"torch.where({{0}}, {yes}, {no})")
