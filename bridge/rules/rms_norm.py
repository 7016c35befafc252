"""Division by the root of the mean square: keras.layers.RMSNormalization, keras.ops.rms_normalization <-> nn.RMSNorm.

Keras multiplies by its scale along the last axes, whatever `axis` says, so that its layer works on the last axes alone;
its function, which needs no scale, on any. The axes and the scale follow the layout as those of `layer_norm` do.

Epsilon is 1e-6 in Keras' layer and 1e-7 in its function. nn.RMSNorm without an eps takes that of the dtype in which it
computes, another one in float64 than in float32: the number is carried.
"""

import numpy as np

from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, layer_norm

OPERATORS = ("rms_norm",)
KERAS = ("RMSNormalization", "ops.RMSNorm")
WEIGHTS = {"scale": ("weight", "... -> ...")}

HELPERS = {
    "RMSNormOver": '''
        class RMSNormOver(nn.Module):
            """Division by the root of the mean square over the dimensions `dim`, which need not be the last."""

            def __init__(self, dim, shape=(), eps=1e-6, weight=True):
                super().__init__()
                self.dim, self.eps = dim, eps
                self.weight = nn.Parameter(torch.ones(shape)) if weight else None

            def forward(self, x):
                y = x.to(torch.promote_types(x.dtype, torch.float32))
                y = y * torch.rsqrt((y * y).mean(self.dim, keepdim=True) + self.eps)
                if self.weight is not None:
                    y = y * self.weight.view([n if i in self.dim else 1 for i, n in enumerate(x.shape)])
                return y.to(x.dtype)
        '''
}
TORCH = ("rms_norm", *HELPERS)


def LIMIT(node: Node) -> float:
    """What eps=None makes of float64, where the mean square is not far below 1."""
    return 1e-6 if node["epsilon"] == _epsilon_of("float32") else 0.0


def _epsilon_of(dtype: str) -> float:
    """The epsilon of the dtype in which torch computes: float32 at least."""
    return float(np.finfo("float64" if dtype == "float64" else "float32").eps)


MIXED = True  # its weights may be of another dtype than its input


def LAYOUT(node: Node, context: Context) -> Placement:
    """As of `layer_norm`, but Keras' layer has its axes last."""
    placement = layer_norm.LAYOUT(node, context)
    rank, axes = node.inputs[0].rank, placement.attributes.get("axes", node["axes"])
    last = tuple(range(rank - len(axes), rank))
    if context.target == "last" and node.parameters and axes != last:
        others = [a for a in placement.inputs[0] if a not in node["axes"]]
        order = (*others, *node["axes"])
        return Placement([order], [order], {"axes": last}, weights={"scale": identity(len(axes))})
    return placement


def read_keras(layer: KerasLayer) -> list[Node]:
    found = layer_norm.read_axes(layer)
    last = tuple(range(layer.rank - len(found), layer.rank))
    sizes = tuple(layer.inputs[0].shape[a] for a in last)
    parameters = layer_norm.read_weights(layer, ("scale",), sizes)
    if parameters and tuple(sorted(found)) != last:
        raise Unsupported(
            f"it normalises the axes {sorted(found)}, and Keras multiplies its scale along the last ones",
            f"permute its input, and give axis={[a - layer.rank for a in last]}",
        )
    attributes = {"axes": tuple(sorted(found)), "epsilon": layer_norm.read_epsilon(layer)}
    return [Node("rms_norm", attributes, parameters, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    config = {"axis": layer_norm.write_axis(node), "epsilon": node["epsilon"]}
    if node.parameters:
        return [KerasCall("RMSNormalization", config, weights=True)]
    return [KerasCall("ops.rms_normalization", config)]


def read_torch(call: TorchOperation) -> list[Node]:
    epsilon = _epsilon_of(call.inputs[0].dtype) if call["eps"] is None else call["eps"]
    attributes = {"axes": layer_norm.read_torch_axes(call), "epsilon": epsilon}
    return [Node("rms_norm", attributes, call.weights(WEIGHTS), call.path)]


def write_torch(node: Node) -> TorchCall:
    sizes, stock = layer_norm.sizes_of(node)
    weights = WEIGHTS if node.parameters else {}
    options = {"eps": node["epsilon"]}
    if stock:
        options |= {} if weights else {"elementwise_affine": False}
        constructor = call_source("nn.RMSNorm", sizes[0] if len(sizes) == 1 else sizes, **options)
        return TorchCall("{self}({0})", constructor, weights)
    options |= {"shape": sizes} if weights else {"weight": False}
    constructor = call_source("RMSNormOver", node["axes"], **options)
    return TorchCall("{self}({0})", constructor, weights, helpers=("RMSNormOver",))
