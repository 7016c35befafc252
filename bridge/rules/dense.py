"""Dense: keras.layers.Dense <-> torch.nn.Linear.

Keras and torch both work on the last axis, of a tensor of any rank. Where the layout has put the channels of an image
first, the same layer is a convolution with a kernel of one cell.
"""

from bridge.graph import Node, Value
from bridge.layout import Context, Placement, Rows, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, activation, call_source, einsum, parameter

OPERATORS = ("dense",)
AUTOCAST = "lower"
KERAS = ("Dense",)
FUSES = True
OVERWRITABLE = True
WEIGHTS = {"kernel": ("weight", "i o -> o i"), "bias": ("bias", "o -> o")}

HELPERS = {
    f"Dense{n}d": f'''
        class Dense{n}d(nn.Conv{n}d):
            """A linear layer over dimension 1: a convolution with a kernel of one cell."""

            def __init__(self, in_features, out_features, bias=True):
                super().__init__(in_features, out_features, 1, bias=bias)
        '''
    for n in (2, 3)
}
TORCH = ("linear", *HELPERS)


def LAYOUT(node: Node, context: Context) -> Placement:
    order, rank = context.orders[0], node.inputs[0].rank
    if len(node.inputs) > 1:  # torch's function, whose weights are tensors by themselves
        last = identity(rank) if not isinstance(order, tuple) or order[-1] != node["axis"] else order
        return Placement([last, *(identity(v.rank) for v in node.inputs[1:])], [last], {"axis": rank - 1})
    if isinstance(order, Rows):
        return Placement([order], [identity(2)], kernel=order)
    first = order.index(node["axis"]) == 1 and rank in (4, 5) and not node.attributes.get("pinned")
    if not (first and context.target == "first") and order[-1] != node["axis"]:
        order = (*(a for a in order if a != node["axis"]), node["axis"])  # the others as they are written
    axis = order.index(node["axis"])
    return Placement([order], [order], {"axis": axis}, kernel="rows" if axis == rank - 1 else f"{rank} axes")


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    node = _node(layer.inputs[0].shape[-1], c["units"], layer.rank - 1, layer.weights, layer.path)
    return [node, *activation.from_config(c["activation"], layer.rank - 1)]


def _node(channels: int, units: int, axis: int, parameters: dict[str, str], name: str) -> Node:
    return Node("dense", {"channels": channels, "units": units, "axis": axis}, parameters, name)


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("Dense", {"units": node["units"], "use_bias": "bias" in node.parameters}, weights=True)]


def _table(axis: int, rank: int) -> dict[str, tuple[str, str]]:
    cell = " 1" * (rank - 2) if axis < rank - 1 else ""
    return WEIGHTS | {"kernel": ("weight", f"i o -> o i{cell}")}


def scaled(kernel, scale):
    """The kernel with every unit multiplied."""
    return kernel * scale


def read_torch(call: TorchOperation) -> list[Node]:
    if isinstance(call.arguments.get("bias"), Value) and not isinstance(call["weight"], Value):
        return parameter.of_layer(read_torch, call, -1)
    rank = call.inputs[0].rank
    if isinstance(call.arguments.get("weight"), Value):
        node = einsum.node("...i,oi->...o", [call["input"], call["weight"]], call.outputs, call.path)
        return parameter.with_bias([node], rank - 1, call["bias"], call.outputs[0])
    axis = 1 if call.target in HELPERS else rank - 1
    weights = call.weights(_table(axis, rank))
    channels, units = call.parameters[weights["kernel"]].value.shape
    return [_node(channels, units, axis, weights, call.path)]


def write_torch(node: Node) -> TorchCall:
    axis, rank = node["axis"], node.inputs[0].rank
    if len(node.inputs) > 1:
        return TorchCall("F.linear({all})")
    helper = f"Dense{rank - 2}d" if axis < rank - 1 else ""
    options = {} if "bias" in node.parameters else {"bias": False}
    weights = {r: w for r, w in _table(axis, rank).items() if r in node.parameters}
    constructor = call_source(helper or "nn.Linear", node["channels"], node["units"], **options)
    return TorchCall("{self}({0})", constructor, weights, helpers=(helper,) if helper else ())
