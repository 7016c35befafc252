"""Permuting axes: keras.layers.Permute, keras.ops.transpose <-> torch.permute, torch.transpose.

In a graph that was read, a permutation only renames axes (`bridge.layout`); it is written where an operator
needs an order that its input does not have.
"""

import numpy as np

from bridge.graph import Node
from bridge.layout import Context, Placement, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal

OPERATORS = ("permute",)
KERAS = ("Permute", "ops.Transpose", "ops.Swapaxes", "ops.Moveaxis")
SWAPS = {"transpose": ("dim0", "dim1"), "swapdims": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1")}
SAME = ("alias", "clone", "contiguous")  # the same values with the axes where they were
LAST = ("mT", "t", "mH", "adjoint", "matrix_H")  # the last two; numbers here are real
TORCH = ("permute", "movedim", "moveaxis", "numpy_T", *LAST, *SAME, *SWAPS)


def LAYOUT(node: Node, context: Context) -> Placement:
    order = context.orders[0]
    if not isinstance(order, tuple):
        return fixed(node, context)
    return Placement([order], [tuple(node["permutation"].index(a) for a in order)], alias=True)


def read_keras(layer: KerasLayer) -> list[Node]:
    operation, axes = layer.operation, list(identity(layer.rank))
    if layer.class_name == "ops.Swapaxes":
        a, b = operation.axis1, operation.axis2
        axes[a], axes[b] = axes[b], axes[a]
        permutation = tuple(axes)
    elif layer.class_name == "ops.Moveaxis":
        permutation = _moved(layer.rank, *(np.atleast_1d(x) for x in (operation.source, operation.destination)))
    elif layer.class_name == "Permute":
        permutation = (0, *layer.config["dims"])
    else:
        axes = layer.config.get("axes")
        permutation = tuple(a % layer.rank for a in axes) if axes else tuple(reversed(range(layer.rank)))
    return [Node("permute", {"permutation": permutation}, name=layer.path)]


def _moved(rank: int, source, destination) -> tuple[int, ...]:
    """The permutation that moves these axes to those places, the others staying in their order."""
    moves = {int(t) % rank: int(s) % rank for s, t in zip(source, destination, strict=True)}
    axes = [a for a in range(rank) if a not in moves.values()]
    for target in sorted(moves):
        axes.insert(target, moves[target])
    return tuple(axes)


def write_keras(node: Node) -> list[KerasCall]:
    permutation = node["permutation"]
    if permutation[0] == 0:
        return [KerasCall("Permute", {"dims": permutation[1:]})]
    return [KerasCall("ops.transpose", {"axes": permutation})]


def read_torch(call: TorchOperation) -> list[Node]:
    rank = call.inputs[0].rank
    axes = list(identity(rank))
    if call.target == "permute":
        axes = [a % rank for a in call["dims"]]
    elif call.target in ("movedim", "moveaxis"):
        axes = _moved(rank, call.numbers("source", 1), call.numbers("destination", 1))
    elif call.target == "numpy_T":
        axes.reverse()
    elif call.target not in SAME and rank > 1:
        a, b = (call[k] % rank for k in SWAPS[call.target]) if call.target in SWAPS else (rank - 2, rank - 1)
        axes[a], axes[b] = axes[b], axes[a]
    return [Node("permute", {"permutation": tuple(axes)}, name=call.path)]


def write_torch(node: Node) -> TorchCall:
    return TorchCall(f"{{0}}.permute{literal(node['permutation'])}")
