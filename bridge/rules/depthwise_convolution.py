"""Depthwise convolution: keras.layers.DepthwiseConv{1,2}D <-> torch.nn.Conv{1,2}d with a group for each channel.

Output channel `c * multiplier + q` is made of channel c alone: Keras' kernel is (k, k, channels, multiplier), torch's
(channels * multiplier, 1, k, k). A Keras Conv1D or Conv2D with as many groups, whose kernel is (k, k, 1, channels *
multiplier), is the same; back in Keras it is a DepthwiseConv, which has a kernel of its own in TensorFlow.

That kernel wants equal strides, so with others the normal form is a convolution with groups, which runs; but strides
with dilation are Keras' own work, of any kind. Three axes have no depthwise layer, and a single channel needs none.
`bridge.rules.convolution` reads what is a Conv in either framework, and has the helper for "same" at open sizes.
"""

from dataclasses import replace

from bridge.graph import Node
from bridge.layout import channels
from bridge.rules import KerasCall, KerasLayer, TorchCall, activation, convolution

OPERATORS = ("depthwise_convolution",)
AUTOCAST = "lower"
KERAS = ("DepthwiseConv1D", "DepthwiseConv2D")
TORCH = ()
LAYOUT = channels
FUSES = True
OVERWRITABLE = True
ABSORBS = {"depthwise_convolution": 0.0}  # operator -> the value that its own padding has

WEIGHTS = convolution.DEPTHWISE


def read_keras(layer: KerasLayer) -> list[Node]:
    node = from_layer(layer, "kernel", layer.weights, layer.path)
    return [node, *activation.from_config(layer.config["activation"], layer.rank - 1)]


def from_layer(layer: KerasLayer, role: str, parameters: dict[str, str], name: str) -> Node:
    """The neutral node of a Keras layer with a depth_multiplier; `role` is what it calls its depthwise kernel."""
    groups = layer.inputs[0].shape[layer.axis]
    node = convolution.from_layer(layer, groups * layer.config["depth_multiplier"], groups, parameters, name)
    if node.operator == "convolution":
        layer.rearrange(role, "... channels multiplier -> ... 1 (channels multiplier)")
    return node


def write_keras(node: Node) -> list[KerasCall]:
    padding, before = convolution.keras_padding(node)
    config = {
        "kernel_size": node["kernel_size"],
        "strides": node["strides"],
        "dilation_rate": node["dilation"],
        "depth_multiplier": node["multiplier"],
        "padding": padding,
        "use_bias": "bias" in node.parameters,
    }
    return [*before, KerasCall(f"DepthwiseConv{len(node['kernel_size'])}D", config, weights=True)]


def scaled(kernel, scale):
    """The kernel with every output channel multiplied."""
    return kernel * scale.reshape(kernel.shape[-2:])


def write_torch(node: Node) -> TorchCall:
    grouped = {"filters": node["channels"] * node["multiplier"], "groups": node["channels"]}
    call = convolution.write_torch(replace(node, attributes={**node.attributes, **grouped}))
    return replace(call, weights={role: WEIGHTS[role] for role in call.weights})
