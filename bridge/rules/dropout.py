"""Dropout: keras.layers.{Dropout, SpatialDropout1D, ...} <-> torch.nn.{Dropout, Dropout1d, ...}.

Random streams never match: dropout is compared by its rate and by `axes`, those along which one mask is shared.
torch's Dropout{1,2,3}d drop whole channels, and so does Keras' SpatialDropout; Keras' noise_shape says it for any
axes, which torch has no module for. Keras' `fit` and `predict` overrule what a layer was called with as `training`;
a layer called with training=True is random in `model(x)` alone, and refused.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import axes
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

OPERATORS = ("dropout",)
KERAS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
LAYOUT = axes
RANDOM = ("rate",)

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
        '''
}
TORCH = ("dropout", "feature_dropout", *HELPERS)


def _node(name: str, rate: float, shared, shape) -> list[Node]:
    """The neutral node; an axis of size 1 has one mask anyway."""
    shared = tuple(sorted(a for a in shared if shape[a] != 1))
    return [Node("dropout", {"rate": float(rate)} | ({"axes": shared} if shared else {}), name=name)]


def _always() -> Unsupported:
    return Unsupported(
        "it is called with training=True, so that the network is random in inference too",
        "leave it to the model's own mode, and ask for training mode where samples are wanted",
    )


def read_keras(layer: KerasLayer) -> list[Node]:
    shape, shared = layer.inputs[0].shape, ()
    if layer.arguments.get("training") and layer.config["rate"]:
        raise _always()
    if layer.class_name.startswith("Spatial"):
        shared = [a for a in range(1, layer.rank) if a != layer.axis]
    elif (noise := layer.config.get("noise_shape")) is not None:
        if len(noise) != layer.rank or any(n not in (None, 1, d) for n, d in zip(noise, shape, strict=True)):
            raise Unsupported(
                f"noise_shape={tuple(noise)} for an input of shape {shape}",
                "give one number for each axis: 1 where the mask is shared, None elsewhere",
            )
        shared = [a for a, n in enumerate(noise) if n == 1]
    return _node(layer.path, layer.config["rate"], shared, shape)


def write_keras(node: Node) -> list[KerasCall]:
    rank, shared, rate = node.inputs[0].rank, node.attributes.get("axes", ()), node["rate"]
    if shared and rank in (3, 4, 5) and shared == tuple(range(1, rank - 1)):
        return [KerasCall(f"SpatialDropout{rank - 2}D", {"rate": rate})]
    noise = {"noise_shape": tuple(1 if a in shared else None for a in range(rank))} if shared else {}
    return [KerasCall("Dropout", {"rate": rate, **noise})]


def read_torch(call: TorchOperation) -> list[Node]:
    shape, shared = call.inputs[0].shape, ()
    if call.arguments.get("train") and call["p"]:
        raise _always()
    if call.target == "feature_dropout":
        shared = range(2, len(shape))
    elif call.target in HELPERS:
        shared = [a % len(shape) for a in call["axes"]]
    return _node(call.path, call["p"], shared, shape)


def write_torch(node: Node) -> TorchCall:
    rank, shared, rate = node.inputs[0].rank, node.attributes.get("axes", ()), node["rate"]
    if not shared:
        return TorchCall("{self}({0})", call_source("nn.Dropout", rate))
    if rank in (3, 4, 5) and shared == tuple(range(2, rank)):
        return TorchCall("{self}({0})", call_source(f"nn.Dropout{rank - 2}d", rate))
    return TorchCall("{self}({0})", call_source("SharedDropout", rate, shared), helpers=("SharedDropout",))
