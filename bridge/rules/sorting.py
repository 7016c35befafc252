"""Sorting: keras.ops.{sort, argsort, top_k} <-> torch.{sort, argsort, topk}.

Of equal cells TensorFlow has the first one first. torch does so with `stable=True` alone, which its topk has not: where
cells are equal, which of them torch.topk returns is not said, and Keras' answer is one of its own. A descending sort is
the top_k of all cells. The place of a NaN is not said in TensorFlow; torch takes it for the largest.

Places are int32 in Keras and int64 in torch, and the graph leaves it at that.
"""

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, channel_order, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source
from bridge.rules.elementwise import check_dtype

OPERATORS = ("sort", "argsort", "top_k")
KERAS = ("ops.Sort", "ops.Argsort", "ops.TopK")

HELPERS = {
    "TopK": '''
        class TopK(nn.Module):
            """The largest cells along an axis and their places; of equal ones the first."""

            def __init__(self, k, axis):
                super().__init__()
                self.k, self.axis = k, axis

            def forward(self, x):
                values, places = torch.sort(x, stable=True, dim=self.axis, descending=True)
                return values.narrow(self.axis, 0, self.k), places.narrow(self.axis, 0, self.k)
        ''',
}
SEVERAL = tuple(HELPERS)
TORCH = ("sort", "argsort", "topk", *HELPERS)


def LAYOUT(node: Node, context: Context) -> Placement:
    order = context.orders[0]
    if not isinstance(order, tuple):
        return fixed(node, context)
    if node.operator == "top_k" and context.target == "last":  # the one axis along which Keras looks
        order = channel_order(len(order), node["axis"], "last")
    return Placement([order], [order] * len(node.outputs), {"axis": order.index(node["axis"])})


def _top_k(x: Value, k: int, axis: int, outputs: list[Value], name: str) -> Node:
    """The neutral node; an output that nobody reads may be missing."""
    check_dtype(x.dtype)
    made = {"float" in v.dtype: v for v in outputs}
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    values = made.get(True) or Value(f"{outputs[0].name}:values", shape, x.dtype)
    places = made.get(False) or Value(f"{outputs[0].name}:places", shape, "int64")
    return Node("top_k", {"k": k, "axis": axis}, name=name, outputs=[values, places])


def read_keras(layer: KerasLayer) -> list[Node]:
    x, c = layer.inputs[0], layer.config
    if layer.class_name == "ops.TopK":
        if not c["sorted"]:
            raise Unsupported("sorted=False, whose order TensorFlow does not say", "give sorted=True")
        return [_top_k(x, c["k"], x.rank - 1, layer.outputs, layer.path)]
    if c["axis"] is None:
        raise Unsupported("it sorts the flattened tensor, the batch along", "give it an axis")
    return [Node(layer.class_name.removeprefix("ops.").lower(), {"axis": c["axis"] % x.rank}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "top_k":
        return [KerasCall("ops.top_k", {"k": node["k"]})]
    return [KerasCall(f"ops.{node.operator}", {"axis": node["axis"]})]


def read_torch(call: TorchOperation) -> list[Node]:
    a, x, outputs = call.arguments, call.inputs[0], call.outputs
    if call.target in HELPERS:
        return [_top_k(x, a["k"], a["axis"] % x.rank, outputs, call.path)]
    axis = a["dim"] % x.rank
    if call.target == "topk":
        if not a["largest"] or not a["sorted"] or not isinstance(a["k"], int):
            raise Unsupported(
                f"topk with k={a['k']}, largest={a['largest']}, sorted={a['sorted']}",
                "give a fixed k, largest=True and sorted=True; the smallest are those of the negated tensor",
            )
        return [_top_k(x, a["k"], axis, outputs, call.path)]
    operators = ["argsort"] if call.target == "argsort" else ["sort", "argsort"]
    if not a["descending"]:
        pairs = zip(operators, outputs, strict=True)
        return [Node(o, {"axis": axis}, name=call.path, inputs=[x], outputs=[v]) for o, v in pairs]
    if x.shape[axis] is None:
        raise Unsupported("a descending order along an axis of an open size", "export with that size fixed")
    return [_top_k(x, x.shape[axis], axis, outputs, call.path)]


def write_torch(node: Node) -> TorchCall:
    axis = int(node["axis"])
    if node.operator == "top_k":
        return TorchCall("{self}({0})", call_source("TopK", node["k"], axis), helpers=("TopK",))
    values = ".values" if node.operator == "sort" else ""
    return TorchCall(f"torch.{node.operator}({{0}}, stable=True, dim={axis}){values}")
