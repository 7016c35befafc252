"""Running sums and products along an axis: keras.ops.{cumsum, cumprod} <-> torch.cumsum, torch.cumprod.

Booleans are counted as int32 in Keras and as int64 in torch.
"""

from dataclasses import replace

from bridge.graph import Node, Unsupported
from bridge.layout import axes
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal
from bridge.rules.identity import cast

FUNCTIONS = ("cumsum", "cumprod")

OPERATORS = FUNCTIONS
KERAS = tuple(f"ops.{name.title()}" for name in FUNCTIONS)
TORCH = FUNCTIONS
LAYOUT = axes


def _node(function: str, axis, rank: int, name: str) -> list[Node]:
    if axis is None:
        raise Unsupported("it runs over all axes, the batch included", "name an axis")
    return [Node(function, {"axis": axis % rank}, name=name)]


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    return _converted(layer, _node(layer.class_name.removeprefix("ops.").lower(), c["axis"], layer.rank, layer.path), c)


def _converted(source: KerasLayer | TorchOperation, nodes: list[Node], options: dict) -> list[Node]:
    """The nodes behind a conversion to the dtype that is asked for."""
    x, made = source.inputs[0], source.outputs[0]
    if options["dtype"] is None or x.dtype == made.dtype:
        return nodes
    converted = replace(x, name=f"{made.name}:converted", dtype=made.dtype)
    first = [replace(n, inputs=[x], outputs=[converted]) for n in cast(x, made.dtype, "")]
    return [*first, replace(nodes[0], inputs=[converted])]


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall(f"ops.{node.operator}", {"axis": node["axis"]})]


def read_torch(call: TorchOperation) -> list[Node]:
    return _converted(call, _node(call.target, call["dim"], call.inputs[0].rank, call.path), call.arguments)


def write_torch(node: Node) -> TorchCall:
    return TorchCall(f"torch.{node.operator}({{0}}, dim={literal(node['axis'])})")
