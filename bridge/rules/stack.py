"""Stacking: keras.ops.stack <-> torch.stack. Each tensor gets a new axis, along which they are then concatenated."""

from dataclasses import replace

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything
from bridge.rules import KerasLayer, TorchOperation
from bridge.rules.reshape import KEEP, NEW, plain

OPERATORS = ()  # a reshape for each tensor, and a concatenation
KERAS = ("ops.Stack",)
TORCH = ("stack",)
LAYOUT = anything


def stack(inputs: list, axis: int, made: Value, name: str) -> list[Node]:
    """Nodes for tensors along a new axis."""
    if not all(isinstance(v, Value) for v in inputs):
        raise Unsupported("it stacks a constant or a weight", "stack tensors that flow")
    axis %= made.rank
    nodes = []
    for i, x in enumerate(inputs):
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        blocks = plain([*[KEEP] * axis, NEW, *[KEEP] * (x.rank - axis)], x.shape)
        part = replace(made, name=f"{made.name}:{i}", shape=shape)
        nodes.append(Node("reshape", {"blocks": blocks}, inputs=[x], outputs=[part]))
    parts = [node.outputs[0] for node in nodes]
    return [*nodes, Node("concatenate", {"axis": axis}, name=name, inputs=parts, outputs=[made])]


def read_keras(layer: KerasLayer) -> list[Node]:
    return stack(layer.inputs, layer.config["axis"], layer.outputs[0], layer.path)


def read_torch(call: TorchOperation) -> list[Node]:
    return stack(call["tensors"], call["dim"], call.outputs[0], call.path)
