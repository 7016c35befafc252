"""Dense: keras.layers.Dense <-> torch.nn.Linear, on the last axis of a tensor of any rank."""

from bridge.graph import Node
from bridge.layout import Context, Placement, Rows, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, activation, call_source

OPERATORS = ("dense",)
KERAS = ("Dense",)
TORCH = ("linear",)
FUSES = True
OVERWRITABLE = True
WEIGHTS = {"kernel": ("weight", "i o -> o i"), "bias": ("bias", "o -> o")}


def LAYOUT(node: Node, context: Context) -> Placement:
    placement = fixed(node, context)
    rows = context.orders[0] if isinstance(context.orders[0], Rows) else None
    if rows:
        placement.inputs, placement.outputs = [rows], [identity(2)]
    placement.kernel_rows = rows
    return placement


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    node = Node("dense", {"channels": layer.inputs[0].shape[-1], "units": c["units"]}, layer.weights, layer.path)
    return [node, *activation.from_config(c["activation"], layer.rank - 1)]


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("Dense", {"units": node["units"], "use_bias": "bias" in node.parameters}, weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    weights = call.weights(WEIGHTS)
    channels, units = call.parameters[weights["kernel"]].value.shape
    return [Node("dense", {"channels": channels, "units": units}, weights, call.path)]


def write_torch(node: Node) -> TorchCall:
    options = {} if "bias" in node.parameters else {"bias": False}
    weights = {r: w for r, w in WEIGHTS.items() if r in node.parameters}
    return TorchCall("{self}({0})", call_source("nn.Linear", node["channels"], node["units"], **options), weights)
