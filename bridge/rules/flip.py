"""Reversed axes: keras.ops.{flip, fliplr, flipud} <-> torch.{flip, fliplr, flipud}."""

from bridge.graph import Node
from bridge.layout import axes, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

OPERATORS = ("flip",)
NAMED = {"Fliplr": 1, "Flipud": 0}  # the axis, whatever the rank
KERAS = ("ops.Flip", *(f"ops.{name}" for name in NAMED))
TORCH = ("flip", *map(str.lower, NAMED))
LAYOUT = axes


def _flip(along, rank: int, name: str) -> list[Node]:
    along = {a % rank for a in ([along] if isinstance(along, int) else along)}
    if not along:
        return [Node("permute", {"permutation": identity(rank)}, name=name)]
    return [Node("flip", {"axes": tuple(sorted(along))}, name=name)]


def read_keras(layer: KerasLayer) -> list[Node]:
    along = NAMED.get(layer.class_name.removeprefix("ops."), layer.config.get("axis"))
    return _flip(range(layer.rank) if along is None else along, layer.rank, layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("ops.flip", {"axis": node["axes"]})]


def read_torch(call: TorchOperation) -> list[Node]:
    along = NAMED.get(call.target.capitalize(), call.arguments.get("dims"))
    return _flip(along, call.inputs[0].rank, call.path)


def write_torch(node: Node) -> TorchCall:
    return TorchCall(call_source("{0}.flip", *node["axes"]))
