"""Running sums and products along an axis: keras.ops.{cumsum, cumprod} <-> torch.cumsum, torch.cumprod.

Booleans are counted as int32 in Keras and as int64 in torch.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import axes
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal

FUNCTIONS = ("cumsum", "cumprod")

OPERATORS = FUNCTIONS
KERAS = tuple(f"ops.{name.title()}" for name in FUNCTIONS)
TORCH = FUNCTIONS
LAYOUT = axes


def _node(function: str, axis, dtype, rank: int, name: str) -> list[Node]:
    if axis is None:
        raise Unsupported("it runs over all axes, the batch included", "name an axis")
    if dtype is not None:
        raise Unsupported(f"dtype={dtype}", "convert the tensor before")
    return [Node(function, {"axis": axis % rank}, name=name)]


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    return _node(layer.class_name.removeprefix("ops.").lower(), c["axis"], c["dtype"], layer.rank, layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall(f"ops.{node.operator}", {"axis": node["axis"]})]


def read_torch(call: TorchOperation) -> list[Node]:
    return _node(call.target, call["dim"], call["dtype"], call.inputs[0].rank, call.path)


def write_torch(node: Node) -> TorchCall:
    return TorchCall(f"torch.{node.operator}({{0}}, dim={literal(node['axis'])})")
