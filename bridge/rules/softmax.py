"""Activations along an axis: keras.layers.Softmax, keras.ops <-> torch.nn.{Softmax, LogSoftmax, GLU}.

Several axes at once, which Keras' Softmax layer takes, need a helper in torch. torch has no sparsemax; the helper
computes what Keras does, whose threshold is not that of Martins et al. (2016): it adds up the cumulative sums of the
support, where the paper takes the last one, so that the values do not add up to 1.

Keras' Softmax layer takes a mask: what is not let through is a large negative number before, and 0 after, so that a row
that lets nothing through is 0 throughout. Both are nodes of their own.
"""

from dataclasses import replace

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import axes
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, comparison, literal, selection

OPERATORS = ("softmax", "log_softmax", "sparsemax", "glu")
NAMED = ("softmax", "log_softmax", "sparsemax")  # functions of keras.activations
OPERATIONS = {"ops.Softmax": "softmax", "ops.LogSoftmax": "log_softmax", "ops.Sparsemax": "sparsemax", "ops.Glu": "glu"}
MODULES = {"softmax": "nn.Softmax", "log_softmax": "nn.LogSoftmax", "glu": "nn.GLU", "sparsemax": "Sparsemax"}
KERAS = ("Softmax", *OPERATIONS)
ARGUMENTS = ("mask",)
LAYOUT = axes

HELPERS = {
    "SoftmaxOver": '''
        class SoftmaxOver(nn.Module):
            """Softmax over several dimensions at once."""

            def __init__(self, dim):
                super().__init__()
                self.dim = dim

            def forward(self, x):
                return torch.exp(x - torch.logsumexp(x, self.dim, keepdim=True))
        ''',
    "Sparsemax": '''
        class Sparsemax(nn.Module):
            """Sparsemax as Keras computes it: its threshold adds up the cumulative sums of the support."""

            def __init__(self, dim=-1):
                super().__init__()
                self.dim = dim

            def forward(self, x):
                z = x.movedim(self.dim, -1)
                ordered = z.sort(dim=-1, descending=True).values
                sums = ordered.cumsum(-1)
                support = ordered > (sums - 1) / torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
                threshold = (torch.where(support, sums, 0).sum(-1, keepdim=True) - 1) / support.sum(-1, keepdim=True)
                return F.relu(z - threshold).movedim(-1, self.dim)
        ''',
}
TORCH = ("softmax", "log_softmax", "glu", *HELPERS)


def softmax(function: str, axis, rank: int, name: str = "") -> Node:
    """Return the normal form: `axis` is a number, `axes` are several."""
    given = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if not given or not all(isinstance(a, int) and not isinstance(a, bool) and -rank <= a < rank for a in given):
        raise Unsupported(f"axis={axis!r} of a tensor of rank {rank}", "name its axes by their numbers")
    found = tuple(sorted({a % rank for a in given}))
    if len(found) == 1:
        return Node(function, {"axis": found[0]}, name=name)
    if function != "softmax":
        raise Unsupported(f"{function} over the axes {found}", "give one axis")
    return Node(function, {"axes": found}, name=name)


def read_keras(layer: KerasLayer) -> list[Node]:
    if "axis" not in layer.config:
        raise Unsupported("its axis cannot be read back from Keras", "give a plain number")
    node = softmax(OPERATIONS.get(layer.class_name, "softmax"), layer.config["axis"], layer.rank, layer.path)
    mask = layer.arguments.get("mask") if layer.class_name == "Softmax" else None
    return [node] if mask is None else _masked(layer, node, mask)


def _masked(layer: KerasLayer, node: Node, mask) -> list[Node]:
    """The layer with a mask, True where to let through; of numbers, what is above 0.5."""
    x, made, nodes = layer.inputs[0], layer.outputs[0], []
    if not isinstance(mask, Value):
        array = np.asarray(mask)
        mask = array if array.dtype == bool else array > 0.5
    elif mask.dtype != "bool":
        true = replace(mask, name=f"{made.name}:mask", dtype="bool")
        nodes = comparison.comparison("greater", _making(layer, true), mask, 0.5 if "float" in mask.dtype else 0)
        mask = true
    closed, shares = replace(x, name=f"{made.name}:closed"), replace(made, name=f"{made.name}:shares")
    nodes += selection.where(_making(layer, closed), mask, x, -3e4 if x.dtype == "float16" else -1e9)
    nodes.append(replace(node, inputs=[closed], outputs=[shares]))
    nodes += selection.where(_making(layer, made), mask, shares, 0.0)
    for other in nodes:  # the softmax alone has the layer's name
        if other.operator != node.operator:
            other.name = f"{layer.path}_mask" if other.operator == "constant" else ""
    return nodes


def _making(layer: KerasLayer, made: Value) -> KerasLayer:
    return replace(layer, outputs=[made])


def write_keras(node: Node) -> list[KerasCall]:
    function, several = node.operator, list(node.attributes.get("axes", ()))
    last = node.attributes.get("axis") == node.inputs[0].rank - 1
    if last and function in NAMED and not (function == "softmax" and node.name):
        return [KerasCall("Activation", {"activation": function})]
    axis = several or (-1 if last else node["axis"])
    return [KerasCall("Softmax" if function == "softmax" else f"ops.{function}", {"axis": axis})]


def read_torch(call: TorchOperation) -> list[Node]:
    dtype = call.arguments.get("dtype")
    if dtype is not None and str(dtype) != f"torch.{call.inputs[0].dtype}":
        raise Unsupported(f"dtype={call['dtype']}", "convert the tensor before")
    function = {"SoftmaxOver": "softmax", "Sparsemax": "sparsemax"}.get(call.target, call.target)
    return [softmax(function, call["dim"], call.inputs[0].rank, call.path)]


def write_torch(node: Node) -> TorchCall:
    if "axes" in node.attributes:
        module, dim = "SoftmaxOver", node["axes"]
    else:
        module, dim = MODULES[node.operator], node["axis"] if node["axis"] < node.inputs[0].rank - 1 else -1
    if module in HELPERS or node.name:
        return TorchCall("{self}({0})", call_source(module, dim=dim), helpers=(module,) if module in HELPERS else ())
    return TorchCall(f"F.{node.operator}({{0}}, dim={literal(dim)})")
