"""Layer normalisation: keras.layers.LayerNormalization, keras.ops.layer_normalization <-> torch.nn.LayerNorm.

Keras normalises any axes, torch the last ones. The axes follow the layout, and with them the axes of the weights: over
`(H, W, C)` in Keras they are `(H, W, C)`, in torch `(C, H, W)`. Where the layout has put the axes elsewhere (the
channels of a ConvNeXt, which the other implementations permute to the end and back) torch needs a helper.

Epsilon is 1e-3 in Keras' layer, 1e-7 in its function, 1e-5 in torch. Both sides compute in float32 at least. Keras
sorts `axis=[1, -1]` to [-1, 1], gives the weights that shape, and then reads them as if it were [1, -1].
"""

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, axes, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

OPERATORS = ("layer_norm",)
KERAS = ("LayerNormalization", "ops.LayerNorm")
OVERWRITABLE = True
WEIGHTS = {"gamma": ("weight", "... -> ..."), "beta": ("bias", "... -> ...")}

HELPERS = {
    "LayerNormOver": '''
        class LayerNormOver(nn.Module):
            """Layer normalisation over the dimensions `dim`, which need not be the last; `shape` is their sizes."""

            def __init__(self, dim, shape=(), eps=1e-5, weight=True, bias=True):
                super().__init__()
                self.dim, self.eps = dim, eps
                self.weight = nn.Parameter(torch.ones(shape)) if weight else None
                self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

            def forward(self, x):
                y = x.to(torch.promote_types(x.dtype, torch.float32))
                variance, mean = torch.var_mean(y, self.dim, correction=0, keepdim=True)
                y = (y - mean) * torch.rsqrt(variance + self.eps)
                sizes = [n if i in self.dim else 1 for i, n in enumerate(x.shape)]
                if self.weight is not None:
                    y = y * self.weight.view(sizes)
                if self.bias is not None:
                    y = y + self.bias.view(sizes)
                return y.to(x.dtype)
        '''
}
TORCH = ("layer_norm", *HELPERS)


MIXED = True  # its weights may be of another dtype than its input


def LAYOUT(node: Node, context: Context) -> Placement:
    """The axes follow the layout, and the weights' axes follow them.

    Where what follows wants the channels last, they are so before it, as torch's own has them, not behind it.
    """
    placement = fixed(node, context) if node.attributes.get("pinned") else axes(node, context)
    given, made, (axis, *more) = placement.inputs[0], node.outputs[0], node["axes"]
    last = (*(a for a in given if a != axis), axis)
    if given != last and not more and not context.taken(made, given) and context.taken(made, last):
        placement = Placement([last], [last], {"axes": (len(last) - 1,)})
    places = [placement.inputs[0].index(a) for a in node["axes"]]
    order = tuple(sorted(range(len(places)), key=places.__getitem__))
    placement.weights = dict.fromkeys(node.parameters, order)
    return placement


def read_axes(layer: KerasLayer) -> tuple[int, ...]:
    """The axes that a Keras layer or function normalises, in the order in which Keras has sorted them."""
    given = layer.config["axis"]
    found = tuple(a % layer.rank for a in (sorted(given) if isinstance(given, (list, tuple)) else [given]))
    if not found:
        raise Unsupported("axis=[] normalises nothing", "name the axes")
    return _checked(found)


def _checked(found: tuple[int, ...]) -> tuple[int, ...]:
    if 0 in found:
        raise Unsupported("it normalises axis 0, the batch", "normalise other axes")
    return found


def read_epsilon(layer: KerasLayer) -> float:
    """Its epsilon; for a function that is given none, what Keras is set to."""
    if layer.config["epsilon"] is not None:
        return layer.config["epsilon"]
    import keras

    return keras.config.epsilon()


def read_weights(layer: KerasLayer, roles: tuple[str, ...], sizes: tuple) -> dict[str, str]:
    """The weights of a layer; those of a function are arrays that it is called with, and are trained by no one."""
    if not layer.class_name.startswith("ops."):
        return layer.weights
    found = {}
    for role in roles:
        value = layer.arguments.get(role)
        if value is None:
            continue
        if isinstance(value, Value) or hasattr(value, "trainable"):
            kind = "a tensor that flows" if isinstance(value, Value) else "a variable"
            raise Unsupported(f"its {role} is {kind}", "normalise without it, and do its work in a layer of its own")
        if np.shape(value) != sizes:
            raise Unsupported(f"its {role} has the shape {np.shape(value)}", f"give one of {sizes}, as the axes have")
        found[role] = layer.constant(role, np.asarray(value, layer.inputs[0].dtype))
    return found


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.config["rms_scaling"]:
        raise Unsupported("rms_scaling=True divides by the standard deviation", "use RMSNormalization")
    found = read_axes(layer)
    parameters = read_weights(layer, ("gamma", "beta"), tuple(layer.inputs[0].shape[a] for a in found))
    if parameters and list(found) != sorted(found):
        raise Unsupported(
            f"axis={layer.config['axis']} counts from both ends, and Keras mixes up the axes of its weights",
            f"give axis={sorted(found)}",
        )
    attributes = {"axes": tuple(sorted(found)), "epsilon": read_epsilon(layer)}
    return [Node("layer_norm", attributes, parameters, layer.path)]


def write_axis(node: Node):
    """The axes as Keras' layers take them."""
    return -1 if node["axes"] == (node.inputs[0].rank - 1,) else list(node["axes"])


def write_keras(node: Node) -> list[KerasCall]:
    config = {
        "axis": write_axis(node),
        "epsilon": node["epsilon"],
        "scale": "gamma" in node.parameters,
        "center": "beta" in node.parameters,
    }
    return [KerasCall("LayerNormalization", config, weights=True)]


def read_torch_axes(call: TorchOperation) -> tuple[int, ...]:
    """The axes that a helper names, or that torch's operator takes: the last ones."""
    rank = call.inputs[0].rank
    if "normalized_shape" in call.arguments:
        return _checked(tuple(range(rank - len(call["normalized_shape"]), rank)))
    return tuple(sorted(a % rank for a in call["dim"]))


def read_torch(call: TorchOperation) -> list[Node]:
    attributes = {"axes": read_torch_axes(call), "epsilon": call["eps"]}
    return [Node("layer_norm", attributes, call.weights(WEIGHTS), call.path)]


def sizes_of(node: Node) -> tuple[tuple, bool]:
    """The sizes of the axes, and whether torch's own modules take them: the last ones, none of them open."""
    shape, rank = node.inputs[0].shape, node.inputs[0].rank
    sizes = tuple(shape[a] for a in node["axes"])
    return sizes, node["axes"] == tuple(range(rank - len(sizes), rank)) and None not in sizes


def write_torch(node: Node) -> TorchCall:
    weights = {r: w for r, w in WEIGHTS.items() if r in node.parameters}
    missing = [name for role, (name, _) in WEIGHTS.items() if role not in node.parameters]
    sizes, stock = sizes_of(node)
    if not stock:
        options = {"shape": sizes} if weights else {}
        options |= {"eps": node["epsilon"]} | dict.fromkeys(missing, False)
        constructor = call_source("LayerNormOver", node["axes"], **options)
        return TorchCall("{self}({0})", constructor, weights, helpers=("LayerNormOver",))
    options = {"eps": node["epsilon"]}
    if len(missing) == 2:
        options["elementwise_affine"] = False
    elif "bias" in missing:
        options["bias"] = False
    setup = ('{self}.register_parameter("weight", None)',) if missing == ["weight"] else ()
    normalized = sizes[0] if len(sizes) == 1 else sizes
    return TorchCall("{self}({0})", call_source("nn.LayerNorm", normalized, **options), weights, setup=setup)
