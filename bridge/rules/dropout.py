"""Dropout: keras.layers.{Dropout, SpatialDropout1D, AlphaDropout, ...} <-> torch.nn.{Dropout, Dropout1d, ...}.

Random streams never match: dropout is compared by its rate and by `axes`, those along which one mask is shared.
torch's Dropout{1,2,3}d drop whole channels, and so does Keras' SpatialDropout; Keras' noise_shape says it for any
axes, which torch has no module for. Stochastic depth is Dropout with one mask for all that belongs to an example, or
for the whole batch; torchvision's and timm's modules for it return their input itself in eval mode.

Keras' `fit` and `predict` overrule what a layer was called with as `training`; a layer called with training=True is
random in `model(x)` alone, and refused.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import axes
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

OPERATORS = ("dropout", "alpha_dropout")
KERAS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "StochasticDepth")
LAYOUT = axes
RANDOM = ("rate", "drop_path_rate")  # the second is that of StochasticDepth, which keras.applications.ConvNeXt has
DOUBLE = {"StochasticDepth": lambda layer, x: x}  # its mask is float32

HELPERS = {
    "SharedDropout": '''
        class SharedDropout(nn.Dropout):
            """Dropout with one mask for all positions along `axes`."""

            def __init__(self, p, axes):
                super().__init__(p)
                self.axes = axes

            def forward(self, x):
                shape = [1 if i in self.axes else n for i, n in enumerate(x.shape)]
                return x * super().forward(x.new_ones(shape))
        ''',
    "SharedAlphaDropout": '''
        class SharedAlphaDropout(nn.AlphaDropout):
            """Alpha dropout with one mask for all positions along `axes`."""

            def __init__(self, p, axes):
                super().__init__(p)
                self.axes = axes

            def forward(self, x):
                if not self.training or not self.p:
                    return x
                shape = [1 if i in self.axes else n for i, n in enumerate(x.shape)]
                kept = torch.rand(shape, dtype=x.dtype, device=x.device) >= self.p
                dropped = -1.7580993408473766  # where SELU saturates
                scale = ((1 - self.p) * (1 + self.p * dropped**2)) ** -0.5
                return scale * torch.where(kept, x, dropped) - scale * dropped * self.p
        ''',
}
DEPTH = "torchvision.ops.stochastic_depth.StochasticDepth"
PATH = "*.DropPath"  # timm's, of which many a repository has a copy
PASSING = {DEPTH: "p", PATH: "drop_prob", "SharedAlphaDropout": "p"}
TORCH = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", DEPTH, PATH, *HELPERS)


def _node(operator: str, name: str, rate: float | None, shared, shape) -> list[Node]:
    """The neutral node; an axis of size 1 has one mask anyway."""
    shared = tuple(sorted(a for a in shared if shape[a] != 1))
    return [Node(operator, {"rate": float(rate or 0)} | ({"axes": shared} if shared else {}), name=name)]


def _always() -> Unsupported:
    return Unsupported(
        "it is called with training=True, so that the network is random in inference too",
        "leave it to the model's own mode, and ask for training mode where samples are wanted",
    )


def read_keras(layer: KerasLayer) -> list[Node]:
    kind, c, shape, shared = layer.class_name, layer.config, layer.inputs[0].shape, ()
    rate = c["drop_path_rate" if kind == "StochasticDepth" else "rate"]
    if layer.arguments.get("training") and rate:
        raise _always()
    if kind == "StochasticDepth":
        shared = range(1, layer.rank)
    elif kind.startswith("Spatial"):
        shared = [a for a in range(1, layer.rank) if a != layer.axis]
    elif (noise := c.get("noise_shape")) is not None:
        if len(noise) != layer.rank or any(n not in (None, 1, d) for n, d in zip(noise, shape, strict=True)):
            raise Unsupported(
                f"noise_shape={tuple(noise)} for an input of shape {shape}",
                "give one number for each axis: 1 where the mask is shared, None elsewhere",
            )
        shared = [a for a, n in enumerate(noise) if n == 1]
    return _node("alpha_dropout" if kind == "AlphaDropout" else "dropout", layer.path, rate, shared, shape)


def write_keras(node: Node) -> list[KerasCall]:
    rank, shared, rate = node.inputs[0].rank, node.attributes.get("axes", ()), node["rate"]
    alpha = node.operator == "alpha_dropout"
    if not alpha and shared and rank in (3, 4, 5) and shared == tuple(range(1, rank - 1)):
        return [KerasCall(f"SpatialDropout{rank - 2}D", {"rate": rate})]
    noise = {"noise_shape": tuple(1 if a in shared else None for a in range(rank))} if shared else {}
    return [KerasCall("AlphaDropout" if alpha else "Dropout", {"rate": rate, **noise})]


def read_torch(call: TorchOperation) -> list[Node]:
    shape, shared = call.inputs[0].shape, ()
    rate = call[PASSING.get(call.target, "p")]
    if call.arguments.get("train") and rate:
        raise _always()
    if not call.arguments.get("scale_by_keep", True) and rate:
        raise Unsupported("scale_by_keep=False leaves what is kept as it is", "scale by what is kept, as Dropout does")
    if call.target.startswith("feature"):
        shared = range(2, len(shape))
    elif call.target == PATH or (call.target == DEPTH and call["mode"] == "row"):
        shared = range(1, len(shape))
    elif call.target == DEPTH:
        shared = range(len(shape))
    elif call.target in HELPERS:
        shared = [a % len(shape) for a in call["axes"]]
    return _node("alpha_dropout" if "alpha" in call.target.lower() else "dropout", call.path, rate, shared, shape)


def write_torch(node: Node) -> TorchCall:
    rank, shared, rate = node.inputs[0].rank, node.attributes.get("axes", ()), node["rate"]
    alpha = node.operator == "alpha_dropout"
    channels = shared == tuple(range(2, rank))
    helper = "SharedAlphaDropout" if alpha else "SharedDropout"
    if not shared:
        return TorchCall("{self}({0})", call_source("nn.AlphaDropout" if alpha else "nn.Dropout", rate))
    if channels and rank in (3, 4, 5):
        return TorchCall(
            "{self}({0})", call_source("nn.FeatureAlphaDropout" if alpha else f"nn.Dropout{rank - 2}d", rate)
        )
    return TorchCall("{self}({0})", call_source(helper, rate, shared), helpers=(helper,))
