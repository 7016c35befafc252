"""Permuting axes: keras.layers.Permute, keras.ops.transpose <-> torch.permute, torch.transpose.

In a graph that was read, a permutation only renames axes (`bridge.layout`); it is written where an operator
needs an order that its input does not have.
"""

from bridge.graph import Node
from bridge.layout import Context, Placement, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal

OPERATORS = ("permute",)
KERAS = ("Permute", "ops.Transpose")
SWAPS = {"transpose": ("dim0", "dim1"), "swapdims": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1")}
SAME = ("alias", "clone", "contiguous")  # the same values with the axes where they were
TORCH = ("permute", "movedim", "moveaxis", "mT", "t", *SAME, *SWAPS)


def LAYOUT(node: Node, context: Context) -> Placement:
    order = context.orders[0]
    if not isinstance(order, tuple):
        return fixed(node, context)
    return Placement([order], [tuple(node["permutation"].index(a) for a in order)], alias=True)


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "Permute":
        permutation = (0, *layer.config["dims"])
    else:
        axes = layer.config.get("axes")
        permutation = tuple(a % layer.rank for a in axes) if axes else tuple(reversed(range(layer.rank)))
    return [Node("permute", {"permutation": permutation}, name=layer.path)]


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
        moves = {
            t % rank: s % rank for s, t in zip(call.numbers("source", 1), call.numbers("destination", 1), strict=True)
        }
        axes = [a for a in axes if a not in moves.values()]
        for target in sorted(moves):
            axes.insert(target, moves[target])
    elif call.target not in SAME and rank > 1:
        a, b = (call[k] % rank for k in SWAPS[call.target]) if call.target in SWAPS else (rank - 2, rank - 1)
        axes[a], axes[b] = axes[b], axes[a]
    return [Node("permute", {"permutation": tuple(axes)}, name=call.path)]


def write_torch(node: Node) -> TorchCall:
    return TorchCall(f"{{0}}.permute{literal(node['permutation'])}")
