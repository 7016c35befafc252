"""Norms: keras.ops.norm <-> torch.linalg.vector_norm, x.norm, and torch's weight_norm.

They are read as what they consist of: the root of a sum of squares, a sum or the largest of absolute values.
At a vector of zeros the gradient of torch's is 0 and that of the root is not a number, as that of Keras' norm is.
"""

from dataclasses import replace
from math import inf

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything
from bridge.rules import KerasLayer, TorchOperation, merging
from bridge.rules.elementwise import check_dtype
from bridge.rules.reduction import reduction

OPERATORS = ()  # functions and reductions
KERAS = ("ops.Norm",)
TORCH = ("linalg_vector_norm", "linalg_norm", "_weight_norm")
LAYOUT = anything

# order -> (function before, reduction, function after)
PARTS = {2: ("square", "sum", "sqrt"), 1: ("absolute", "sum", None), inf: ("absolute", "max", None)}


def _norm(x: Value, order, axes, keepdims: bool, name: str, made: Value) -> list[Node]:
    """Nodes for a norm of vectors."""
    check_dtype(x.dtype)
    if x.dtype in ("float16", "bfloat16"):
        raise Unsupported(
            f"of {x.dtype}, whose squares torch adds up in float32", "convert the tensor to float32 before"
        )
    if order not in PARTS:
        raise Unsupported(f"the norm of order {order}", f"orders are {', '.join(map(str, PARTS))}")
    before, function, after = PARTS[order]
    cells = replace(x, name=f"{made.name}:cells")
    total = replace(made, name=f"{made.name}:total") if after else made
    nodes = [
        Node("elementwise", {"function": before}, inputs=[x], outputs=[cells]),
        replace(reduction(function, axes, x.rank, keepdims, ""), inputs=[cells], outputs=[total]),
    ]
    if after:
        nodes.append(Node("elementwise", {"function": after}, inputs=[total], outputs=[made]))
    nodes[-1].name = name
    return nodes


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.operation
    axes = None if c.axis is None else [c.axis] if isinstance(c.axis, int) else list(c.axis)
    several = layer.rank if axes is None else len(axes)
    order = 2 if c.ord is None or (several == 2 and c.ord == "fro") else c.ord
    if several > 1 and c.ord not in (None, "fro"):
        raise Unsupported(f"ord={c.ord} over several axes, which in Keras is a norm of matrices", "give one axis")
    return _norm(layer.inputs[0], order, axes, c.keepdims, layer.path, layer.outputs[0])


def read_torch(call: TorchOperation) -> list[Node]:
    a, made = call.arguments, call.outputs[0]
    if call.target == "_weight_norm":
        return _weight_norm(call)
    if a.get("dtype") is not None:
        raise Unsupported(f"dtype={a['dtype']}", "convert the tensor before")
    axes = a.get("dim")
    if call.target == "linalg_norm" and a["ord"] is not None and (axes is None or len(axes) > 1):
        raise Unsupported(f"ord={a['ord']} over several axes is a norm of matrices", "use torch.linalg.vector_norm")
    order = 2 if a["ord"] is None else a["ord"]
    return _norm(call.inputs[0], order, axes, a.get("keepdim", False), call.path, made)


def _weight_norm(call: TorchOperation) -> list[Node]:
    """v * (g / |v|), Salimans and Kingma, 2016, https://arxiv.org/abs/1602.07868."""
    v, g, made = call["v"], call["g"], call.outputs[0]
    if not isinstance(v, Value) or not isinstance(g, Value):
        raise Unsupported("its weights do not flow", "let them flow")  # the reader does so
    axes = [a for a in range(v.rank) if call["dim"] == -1 or a != call["dim"] % v.rank]
    shape = tuple(1 if a in axes else n for a, n in enumerate(v.shape))
    norm, scale = (replace(v, name=f"{made.name}:{part}", shape=shape, symbols=()) for part in ("norm", "scale"))
    if g.shape not in (shape, ()):
        raise Unsupported(f"its g has the shape {g.shape}", f"give it {shape}")
    return [
        *_norm(v, 2, axes, True, "", norm),
        *merging.join("divide", [g, norm], "", [scale]),
        Node("multiply", inputs=[v, scale], outputs=[made]),
    ]
