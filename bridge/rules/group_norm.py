"""Group normalisation: keras.layers.GroupNormalization <-> torch.nn.GroupNorm, torch.nn.InstanceNorm{1,2,3}d.

Instance normalisation is a group for each channel, in Keras (whose groups=-1 becomes their number) as in the graph;
torch has modules of its own for it, which by default have no weights. Epsilon is 1e-3 in Keras and 1e-5 in torch. Both
sides compute in float32 at least.
"""

from math import prod

from bridge.graph import Node, Unsupported
from bridge.layout import channels
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

OPERATORS = ("group_norm",)
KERAS = ("GroupNormalization",)
HELPERS = {
    "UnscaledGroupNorm": '''
        class UnscaledGroupNorm(nn.GroupNorm):
            """Group normalisation with a bias and no weight, of which torch's own has no gradient on the CPU."""

            def __init__(self, num_groups, num_channels, eps=1e-5):
                super().__init__(num_groups, num_channels, eps)
                self.register_parameter("weight", None)

            def forward(self, x):
                y = F.group_norm(x, self.num_groups, eps=self.eps)
                return y + self.bias.view(-1, *[1] * (x.dim() - 2))
        '''
}
TORCH = ("group_norm", "instance_norm", *HELPERS)
MIXED = True  # its weights may be of another dtype than its input
LAYOUT = channels
OVERWRITABLE = True
WEIGHTS = {"gamma": ("weight", "c -> c"), "beta": ("bias", "c -> c")}


def _node(channels: int, axis: int, groups: int, epsilon: float, parameters: dict[str, str], name: str) -> Node:
    attributes = {"channels": channels, "axis": axis, "groups": groups, "epsilon": epsilon}
    return Node("group_norm", attributes, parameters, name)


def read_keras(layer: KerasLayer) -> list[Node]:
    c, shape = layer.config, layer.inputs[0].shape
    axis = c["axis"] % layer.rank
    if axis == 0:
        raise Unsupported("axis=0 is the batch", "normalise another axis")
    return [_node(shape[axis], axis, c["groups"], c["epsilon"], layer.weights, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    config = {
        "groups": node["groups"],
        "axis": node["axis"] if node["axis"] != node.inputs[0].rank - 1 else -1,
        "epsilon": node["epsilon"],
        "scale": "gamma" in node.parameters,
        "center": "beta" in node.parameters,
    }
    return [KerasCall("GroupNormalization", config, weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    size = call.inputs[0].shape[1]
    if call.target == "instance_norm" and call["running_mean"] is not None:
        raise Unsupported(
            "track_running_stats=True: it uses running statistics at inference and each example's own in training",
            "set track_running_stats=False, or use BatchNorm",
        )
    groups = size if call.target == "instance_norm" else call["num_groups"]
    return [_node(size, 1, groups, call["eps"], call.weights(WEIGHTS), call.path)]


def write_torch(node: Node) -> TorchCall:
    size, groups, shape = node["channels"], node["groups"], node.inputs[0].shape
    spatial = [n for i, n in enumerate(shape) if i not in (0, node["axis"])]
    if size == groups and prod(n or 2 for n in spatial) == 1:
        raise Unsupported(
            f"groups={groups} of {size} channels and one position: it normalises single numbers, which makes 0 of them",
            "give fewer groups, or larger images",
        )
    weights = {r: w for r, w in WEIGHTS.items() if r in node.parameters}
    missing = [name for role, (name, _) in WEIGHTS.items() if role not in node.parameters]
    instance = size == groups and len(spatial) in (1, 2, 3)
    function, arguments = (f"nn.InstanceNorm{len(spatial)}d", (size,)) if instance else ("nn.GroupNorm", (groups, size))
    options = {"eps": node["epsilon"]}
    if instance and weights:
        options["affine"] = True
    elif not instance and not weights:
        options["affine"] = False
    if missing == ["bias"]:
        options["bias"] = False
    setup, helpers = (), ()
    if missing == ["weight"] and instance:
        setup = ('{self}.register_parameter("weight", None)',)
    elif missing == ["weight"]:
        function, helpers = "UnscaledGroupNorm", ("UnscaledGroupNorm",)
    return TorchCall("{self}({0})", call_source(function, *arguments, **options), weights, {}, setup, helpers)
