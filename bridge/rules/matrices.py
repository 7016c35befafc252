"""Parts of matrices: keras.ops.{tril, triu, diagonal, trace, diag, diagflat} <-> torch.{tril, triu, diagonal, trace}.

"triangle" keeps what is on one side of a diagonal of the last two axes, "diagonal" takes one along two axes, which
becomes the last axis. A trace is a sum of it; a matrix made of its diagonal is a choice between it and 0.
"""

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Steps, Unsupported, Value
from bridge.layout import Context, Placement, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal

OPERATORS = ("triangle", "diagonal")


def LAYOUT(node: Node, context: Context) -> Placement:
    """A diagonal may be taken of any order; what is left has its axes as they were read, and the diagonal last."""
    if node.operator == "triangle" or not isinstance(context.orders[0], tuple):
        return fixed(node, context)
    order, (first, second) = context.orders[0], node["axes"]
    left = [a for a in range(len(order)) if a not in (first, second)]
    made = (*(left.index(a) for a in order if a in left), len(left))
    return Placement([order], [made], {"axes": (order.index(first), order.index(second))})


def _diagonal(x: Value, offset: int, axes, name: str) -> Node:
    first, second = (a % x.rank for a in axes)
    return Node("diagonal", {"axes": (first, second), "offset": int(offset)}, name=name)


def _triangle(lower: bool, offset, name: str) -> Node:
    if not isinstance(offset, int):
        raise Unsupported("its diagonal is a tensor's", "give it as a number")
    return Node("triangle", {"lower": lower, "offset": offset}, name=name)


def _trace(ops, o, x):
    return ops.sum(ops.diagonal(x, o.offset, o.axis1, o.axis2), axis=-1)


def _matrix(ops, x, k: int):
    """A matrix with a vector on a diagonal."""
    n = x.shape[0]
    if n is None:
        raise Unsupported("it makes a matrix of a vector of an open size", "fix that size")
    cells = ops.expand_dims(ops.pad(x, ((abs(k), 0),)) if k else x, 0 if k >= 0 else 1)  # along a row or a column
    return ops.where(np.eye(n + abs(k), k=k, dtype=bool), cells, 0.0)


PARTS = {
    "ops.Diag": lambda ops, o, x: _matrix(ops, x, o.k) if len(x.shape) == 1 else ops.diagonal(x, o.k),
    "ops.Diagflat": lambda ops, o, x: _matrix(ops, x if len(x.shape) == 1 else ops.reshape(x, (-1,)), o.k),
    "ops.Trace": _trace,
}
KERAS = ("ops.Tril", "ops.Triu", "ops.Diagonal", *PARTS)
TORCH = ("tril", "triu", "diagonal", "trace")


def read_keras(layer: KerasLayer) -> list[Node]:
    o = layer.operation
    if layer.class_name in PARTS:
        return keras_parts.read(layer, PARTS)
    if layer.class_name == "ops.Diagonal":
        return [_diagonal(layer.inputs[0], o.offset, (o.axis1, o.axis2), layer.path)]
    return [_triangle(layer.class_name == "ops.Tril", o.k, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "diagonal":
        first, second = node["axes"]
        return [KerasCall("ops.diagonal", {"offset": node["offset"], "axis1": first, "axis2": second})]
    return [KerasCall("ops.tril" if node["lower"] else "ops.triu", {"k": node["offset"]})]


def read_torch(call: TorchOperation) -> list[Node]:
    x, made = call.inputs[0], call.outputs[0]
    if call.target == "diagonal":
        return [_diagonal(x, call["offset"], (call["dim1"], call["dim2"]), call.path)]
    if call.target == "trace":
        steps = Steps(made)
        cells = steps("diagonal", [x], (None,), axes=(0, 1), offset=0)
        steps("reduction", [cells], (), function="sum", axes=(0,), keepdims=False)
        return steps.finish(call.path)
    return [_triangle(call.target == "tril", call["diagonal"], call.path)]


def write_torch(node: Node) -> TorchCall:
    offset = node["offset"]
    if node.operator == "diagonal":
        return TorchCall(f"torch.diagonal({{0}}, {literal(offset)}, {', '.join(map(literal, node['axes']))})")
    more = f", {literal(offset)}" if offset else ""
    return TorchCall(f"torch.{'tril' if node['lower'] else 'triu'}({{0}}{more})")
