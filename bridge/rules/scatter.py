"""Cells written to where an index says: keras.ops.{scatter, scatter_update} <-> x.index_put, x.index_add.

A node has the tensor, the index, whose last axis runs over the first axes of the tensor, and what is written. With
"add" it sums what goes to the same cell; else of several the last one counts on a CPU, which no framework promises.
scatter is what is added to zeros. An index that is a constant is held as one.
"""

import numpy as np

from bridge.graph import Node, Parameter, Steps, Unsupported, Value
from bridge.layout import fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source
from bridge.rules.gather import INDICES
from bridge.rules.reshape import KEEP, NEW, plain

OPERATORS = ("scatter",)
KERAS = ("ops.Scatter", "ops.ScatterUpdate")
LAYOUT = fixed

HELPERS = {
    "Scatter": '''
        class Scatter(nn.Module):
            """Writes to the cells of a tensor that an index says, or adds to them."""

            def __init__(self, add):
                super().__init__()
                self.add = add

            def forward(self, x, index, updates):
                return x.index_put(index.to(torch.int64).unbind(-1), updates, accumulate=self.add)
        ''',
}
TORCH = ("index_put", *HELPERS)  # `bridge.decomposition` makes one of index_add and index_copy


def _constant(array: np.ndarray, role: str, source) -> tuple[list[Node], Value]:
    made = Value(f"{source.outputs[0].name}:{role}", array.shape, array.dtype.name)
    if isinstance(source, KerasLayer):
        held = source.constant(role, array)
    else:
        held = made.name
        source.parameters.setdefault(held, Parameter(array, trainable=False))
    name = f"{source.path}.{role}" if source.path else ""
    return [Node("constant", {}, {"value": held}, name, outputs=[made])], made


def _scatter(x: Value, index, updates, add: bool, source) -> list[Node]:
    nodes = []
    if not isinstance(index, Value):
        nodes, index = _constant(np.asarray(index).astype("int64"), "index", source)
    if index.dtype not in INDICES:
        raise Unsupported(f"an index of {index.dtype}", "cast it to int32 or int64")
    if not isinstance(updates, Value):
        more, updates = _constant(np.asarray(updates).astype(x.dtype), "updates", source)
        nodes += more
    if updates.dtype != x.dtype:
        raise Unsupported(f"it writes {updates.dtype} to {x.dtype}", "cast what is written")
    made = source.outputs[0]
    return [*nodes, Node("scatter", {"add": add}, {}, source.path, [x, index, updates], [made])]


def read_keras(layer: KerasLayer) -> list[Node]:
    a, o, made = layer.arguments, layer.operation, layer.outputs[0]
    if layer.class_name == "ops.Scatter":
        if None in (shape := tuple(o.shape)) or not all(isinstance(n, int) for n in shape):
            raise Unsupported(f"shape={o.shape}", "give known sizes")
        dtype = made.dtype
        nodes, zeros = _constant(np.zeros(shape, dtype), "zeros", layer)
        return [*nodes, *_scatter(zeros, a["indices"], a["values"], True, layer)]
    if o.reduction not in (None, "add"):
        raise Unsupported(f"reduction={o.reduction!r}", "give None or 'add', or use keras.ops.where with a mask")
    if not isinstance(a["inputs"], Value):
        raise Unsupported("it writes to a constant", "let it flow")
    return _scatter(a["inputs"], a["indices"], a["updates"], o.reduction == "add", layer)


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("ops.scatter_update", {"reduction": "add" if node["add"] else None})]


def read_torch(call: TorchOperation) -> list[Node]:
    a = call.arguments
    if call.target in HELPERS:
        index, x, updates = call.inputs  # in the order in which the helper reads them
        return _scatter(x, index, updates, a["add"], call)
    x, made = a["self"], call.outputs[0]
    if not isinstance(x, Value):
        raise Unsupported(f"{call.target} of a weight", "let it flow")  # the reader does so
    if any(i is None for i in a["indices"]):
        raise Unsupported("x[:, index] = y, which does not write to the first axes", "move the axis to the front")
    if len(a["indices"]) != 1:
        raise Unsupported("several indices side by side", "write to one axis at a time")
    index, updates = a["indices"][0], a["values"]
    if not isinstance(index, Value) or not isinstance(updates, Value):
        raise Unsupported("its index or what it writes is a constant or a weight", "let it flow")
    if index.dtype == "bool":
        raise Unsupported("it writes where a mask says", "use torch.where with the mask")
    if (wide := (*index.shape, *x.shape[1:])) != updates.shape:
        raise Unsupported(f"it writes a tensor of shape {updates.shape} to {wide}", "expand it before")
    steps = Steps(made)
    column = steps("reshape", [index], (*index.shape, 1), blocks=plain([*[KEEP] * index.rank, NEW], index.shape))
    return [*steps.nodes, *_scatter(x, column, updates, a["accumulate"], call)]


def write_torch(node: Node) -> TorchCall:
    return TorchCall("{self}({0}, {1}, {2})", call_source("Scatter", node["add"]), helpers=("Scatter",))
