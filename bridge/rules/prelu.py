"""PReLU: keras.layers.PReLU <-> torch.nn.PReLU.

Keras' slopes have one number for every position unless `shared_axes` says otherwise; torch's have one for all, or one
for each channel, and anything else needs a helper. At 0 itself Keras' gradient is 0 and that of nn.PReLU the slope.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement, anything, channels
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

OPERATORS = ("prelu",)
KERAS = ("PReLU",)
HELPERS = {
    "PositionPReLU": '''
        class PositionPReLU(nn.Module):
            """PReLU whose slopes differ by position: `shape` is that of one example, with 1 where they are shared."""

            def __init__(self, *shape):
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(shape))

            def forward(self, x):
                return F.relu(x) - self.weight * F.relu(-x)
        '''
}
TORCH = ("prelu", *HELPERS)


def LAYOUT(node: Node, context: Context) -> Placement:
    if "axis" not in node.attributes:
        return anything(node, context)
    placement = channels(node, context)
    placement.attributes["slopes"] = tuple(node["slopes"][a] for a in placement.inputs[0])
    return placement


def weights(slopes: tuple[int, ...]) -> dict[str, tuple[str, str]]:
    """The rule's table for slopes of a shape: from Keras' axes, channels last, to those of torch's weight."""
    shared, own = " ".join("1" * (len(slopes) - 2)), "1" if set(slopes) == {1} else "c"
    return {"alpha": ("weight", f"{shared} {own} -> {own}" if set(slopes[2:]) <= {1} else "... c -> c ...")}


def read_keras(layer: KerasLayer) -> list[Node]:
    slopes = list(layer.inputs[0].shape[1:])
    for axis in layer.config["shared_axes"] or ():
        slopes[axis - 1] = 1
    return [_node((1, *slopes), layer.rank - 1, layer.weights, layer.path)]


def _node(slopes: tuple[int, ...], axis: int, parameters: dict[str, str], name: str) -> Node:
    """The slopes' shape, with 1 for the batch; where there is more than one, the axis of the channels."""
    return Node("prelu", {"slopes": slopes} | ({"axis": axis} if max(slopes) > 1 else {}), parameters, name)


def write_keras(node: Node) -> list[KerasCall]:
    shape = node.inputs[0].shape
    shared = [i for i, n in enumerate(node["slopes"]) if i and n == 1 != shape[i]]
    return [KerasCall("PReLU", {"shared_axes": shared} if shared else {}, weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    if "weight" not in call.state:
        raise Unsupported("its weight is computed by the module, not stored", "store it as a parameter")
    rank, shape = call.inputs[0].rank, call.state["weight"][1].shape
    slopes = (1, *shape, *(1,) * (rank - 1 - len(shape)))
    return [_node(slopes, 1, call.weights(weights(slopes)), call.path)]


def write_torch(node: Node) -> TorchCall:
    slopes = node["slopes"]
    if set(slopes[2:]) <= {1}:
        constructor, helpers = call_source("nn.PReLU", *(n for n in slopes[1:2] if n > 1)), ()
    else:
        constructor, helpers = call_source("PositionPReLU", *slopes[1:]), ("PositionPReLU",)
    return TorchCall("{self}({0})", constructor, weights(slopes), helpers=helpers)
