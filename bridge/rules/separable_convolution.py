"""Separable convolution: keras.layers.SeparableConv{1,2}D -> two torch.nn.Conv{1,2}d.

It is a depthwise convolution, which has the stride, the padding and the dilation, and a pointwise one, which has the
bias and the activation. That is what it becomes: `name_depthwise` and `name_pointwise`, in torch and, as a
DepthwiseConv and a Conv, on the way back. The two convolutions of a torch module are never taken for one layer, so
that each keeps its name.
"""

from bridge.graph import Node
from bridge.layout import channels
from bridge.rules import KerasLayer, activation, depthwise_convolution

OPERATORS = ()  # a depthwise convolution and a convolution
KERAS = ("SeparableConv1D", "SeparableConv2D")
TORCH = ()
LAYOUT = channels


def read_keras(layer: KerasLayer) -> list[Node]:
    c, axis, weights, rank = layer.config, layer.axis, layer.weights, layer.rank - 2
    kernel = {"kernel": weights["depthwise_kernel"]}
    depthwise = depthwise_convolution.from_layer(layer, "depthwise_kernel", kernel, f"{layer.path}_depthwise")
    inner = layer.inputs[0].shape[axis] * c["depth_multiplier"]
    made = layer.outputs[0].shape
    depthwise.shape = (*made[:axis], inner, *made[axis + 1 :])
    attributes = {
        "channels": inner,
        "kernel_size": (1,) * rank,
        "strides": (1,) * rank,
        "dilation": (1,) * rank,
        "pads": ((0, 0),) * rank,
        "axis": axis,
        "filters": c["filters"],
        "groups": 1,
    }
    kernels = {"kernel": weights["pointwise_kernel"], **({"bias": weights["bias"]} if c["use_bias"] else {})}
    pointwise = Node("convolution", attributes, kernels, f"{layer.path}_pointwise")
    return [depthwise, pointwise, *activation.from_config(c["activation"], layer.rank - 1)]
