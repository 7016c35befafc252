"""Convolution: keras.layers.Conv{1,2,3}D <-> torch.nn.Conv{1,2,3}d.

"same" is the trap: TensorFlow makes the output ceil(n / stride) and puts the odd pixel of padding after the
image, so the padding depends on n; torch's integer padding is equal on both sides. The neutral padding is
explicit wherever it does not depend on an open size, and "same" only where it does.

Keras' convolutions have strides or dilation. Both together are a dilated one and the slices that leave out what the
strides would, which cost as much as all of it; a maximum over single cells would make a number of NaN.

A convolution of each channel for itself is a "depthwise_convolution" (`bridge.rules.depthwise_convolution`), from
whichever layer or module it was read, as TensorFlow takes a hundred times as long over groups.
"""

from dataclasses import replace

from bridge import rules
from bridge.graph import Node, Unsupported, Value
from bridge.layout import channels
from bridge.rules import (
    KerasCall,
    KerasLayer,
    TorchCall,
    TorchOperation,
    activation,
    call_source,
    literal,
    parameter,
    single,
)

OPERATORS = ("convolution",)
AUTOCAST = "lower"
KERAS = ("Conv1D", "Conv2D", "Conv3D")
LAYOUT = channels
FUSES = True
OVERWRITABLE = True
ABSORBS = {"convolution": 0.0}  # operator -> the value that its own padding has

# Keras name -> (torch name, Keras axes to torch's axes)
WEIGHTS = {"kernel": ("weight", "... i o -> o i ..."), "bias": ("bias", "o -> o")}
DEPTHWISE = {"kernel": ("weight", "... channels multiplier -> (channels multiplier) 1 ..."), "bias": ("bias", "o -> o")}

HELPERS = {
    f"Conv{n}dSame": f'''
        class Conv{n}dSame(nn.Conv{n}d):
            """Convolution padded to an output of ceil(size / stride) at any size, the odd pixel after the image."""

            def forward(self, x):
                pads = []
                for n, k, s, d in zip(x.shape[2:], self.kernel_size, self.stride, self.dilation):
                    total = torch.sym_max(((n + s - 1) // s - 1) * s + (k - 1) * d + 1 - n, 0)
                    pads = [total // 2, total - total // 2] + pads
                return super().forward(F.pad(x, pads))
        '''
    for n in (1, 2, 3)
}
TORCH = ("conv1d", "conv2d", "conv3d", *HELPERS)


def same_pads(size: int | None, kernel: int, stride: int, dilation: int) -> tuple[int, int] | None:
    """TensorFlow's SAME padding before and after an axis, or None while it depends on an open size."""
    extent = (kernel - 1) * dilation + 1
    if stride == 1:
        total = extent - 1
    elif size is None:
        return None
    else:
        total = max(0, (-(-size // stride) - 1) * stride + extent - size)
    return total // 2, total - total // 2


def resolve_same(shape, axis: int, kernel, strides, dilation):
    """SAME padding of all spatial axes as numbers, or "same" where one of them depends on an open size."""
    sizes = [n for i, n in enumerate(shape) if i not in (0, axis)]
    pads = [same_pads(*args) for args in zip(sizes, kernel, strides, dilation, strict=True)]
    return "same" if None in pads else tuple(pads)


def is_depthwise(channels: int, groups: int, strides, dilation) -> bool:
    """Tell whether each channel is convolved for itself in a way that TensorFlow has a kernel for.

    That is along one or two axes and with equal strides, unless Keras takes them apart from the dilation. A single
    channel makes a plain convolution.
    """
    runs = len(strides) < 3 and (len(set(strides)) == 1 or max(dilation) > 1)
    return groups == channels > 1 and runs


def _node(channels, filters, groups, kernel, strides, dilation, pads, axis, parameters, name) -> Node:
    """The neutral node of a convolution."""
    attributes = {
        "channels": channels,
        "kernel_size": kernel,
        "strides": strides,
        "dilation": dilation,
        "pads": pads,
        "axis": axis,
    }
    if is_depthwise(channels, groups, strides, dilation):
        return Node("depthwise_convolution", {**attributes, "multiplier": filters // channels}, parameters, name)
    return Node("convolution", {**attributes, "filters": filters, "groups": groups}, parameters, name)


def from_layer(layer: KerasLayer, filters: int, groups: int, parameters: dict[str, str], name: str) -> Node:
    """The neutral node of a Keras layer that has a kernel_size, strides, dilation_rate and padding."""
    c, x = layer.config, layer.inputs[0]
    kernel, strides, dilation = map(tuple, (c["kernel_size"], c["strides"], c["dilation_rate"]))
    if c["padding"] == "same":
        pads = resolve_same(x.shape, layer.axis, kernel, strides, dilation)
    elif c["padding"] == "causal":
        pads = ((dilation[0] * (kernel[0] - 1), 0),)
    else:
        pads = ((0, 0),) * len(kernel)
    channels = x.shape[layer.axis]
    return _node(channels, filters, groups, kernel, strides, dilation, pads, layer.axis, parameters, name)


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    node = from_layer(layer, c["filters"], c["groups"], layer.weights, layer.path)
    if node.operator == "depthwise_convolution":
        pattern = "... 1 (channels multiplier) -> ... channels multiplier"
        layer.rearrange("kernel", pattern, channels=node["channels"])
    return [node, *activation.from_config(c["activation"], layer.rank - 1)]


def merge(node: Node, reader: Node) -> Node | None:
    """Take in a slice that leaves out what a stride would, as Keras' layers have no strides with dilation."""
    if node.operator != "convolution" or max(node["dilation"]) == 1 or reader.operator != "slice":
        return None
    spatial = [a for a in range(1, reader.inputs[0].rank) if a != node["axis"]]
    if reader["axis"] not in spatial or (reader["start"], reader["stop"]) != (0, None):
        return None
    strides = list(node["strides"])
    strides[spatial.index(reader["axis"])] *= reader["step"]
    return replace(node, attributes={**node.attributes, "strides": tuple(strides)}, outputs=reader.outputs)


def keras_padding(node: Node, causal: bool = False) -> tuple[str, list[KerasCall]]:
    """Keras' `padding` for a convolution and, where none says it, the layer that pads before it.

    Args:
        node: A neutral node with `pads`.
        causal: Whether its layer knows padding="causal".
    """
    pads, kernel, dilation = node["pads"], node["kernel_size"], node["dilation"]
    explicit = node.attributes.get("explicit", False)  # for a layer that is not padded alike at each of its calls
    same = resolve_same(node.inputs[0].shape, node["axis"], kernel, node["strides"], dilation)
    if pads == "same" or (pads == same and any(map(any, pads)) and not explicit):
        return "same", []
    if causal and not explicit and pads[0] == (dilation[0] * (kernel[0] - 1), 0) and pads[0][0]:
        return "causal", []
    if not any(map(any, pads)):
        return "valid", []
    rank = len(kernel)
    return "valid", [KerasCall(f"ZeroPadding{rank}D", {"padding": pads if rank > 1 else pads[0]}, "_pad")]


def write_keras(node: Node) -> list[KerasCall]:
    rank, strides = len(node["kernel_size"]), node["strides"]
    if max(strides) > 1 and max(node["dilation"]) > 1:
        whole = replace(node, attributes={**node.attributes, "strides": (1,) * rank})
        key = (slice(None), *(slice(None, None, s) for s in strides), slice(None))
        return [*write_keras(whole), KerasCall("ops.get_item", {"key": key}, "_strides")]
    padding, before = keras_padding(node, causal=rank == 1)
    config = {
        "filters": node["filters"],
        "kernel_size": node["kernel_size"],
        "strides": strides,
        "dilation_rate": node["dilation"],
        "groups": node["groups"],
        "padding": padding,
        "use_bias": "bias" in node.parameters,
    }
    return [*before, KerasCall(f"Conv{rank}D", config, weights=True)]


def scaled(kernel, scale):
    """The kernel with every output channel multiplied."""
    return kernel * scale


def read_torch(call: TorchOperation) -> list[Node]:
    if isinstance(call.arguments.get("bias"), Value) and not isinstance(call["weight"], Value):
        return parameter.of_layer(read_torch, call, 1)
    if isinstance(call.arguments.get("weight"), Value):
        return rules.for_operator("computed_kernel").read_torch(call)
    x, rank = call.inputs[0], next(int(c) for c in call.target if c.isdigit())
    if x.rank != rank + 2:
        raise Unsupported(f"an input of shape {x.shape} has no batch", "give it a batch")
    groups = call["groups"]
    channels = call.state["weight"][1].shape[1] * groups  # where the image's are open, too
    strides, dilation = call.numbers("stride", rank), call.numbers("dilation", rank)
    depthwise = is_depthwise(channels, groups, strides, dilation)
    weights = call.weights(DEPTHWISE if depthwise else WEIGHTS, channels=channels)
    *kernel, inner, outer = call.parameters[weights["kernel"]].value.shape
    filters = inner * outer if depthwise else outer
    if call.target in HELPERS or call["padding"] == "same":
        pads = resolve_same(x.shape, 1, kernel, strides, dilation)
    elif call["padding"] == "valid":
        pads = ((0, 0),) * rank
    else:
        pads = tuple((p, p) for p in call.numbers("padding", rank))
    return [_node(channels, filters, groups, tuple(kernel), strides, dilation, pads, 1, weights, call.path)]


def write_torch(node: Node) -> TorchCall:
    rank, pads = len(node["kernel_size"]), node["pads"]
    options = {
        "stride": single(node["strides"]),
        "padding": 0,
        "dilation": single(node["dilation"]),
        "groups": node["groups"],
    }
    expression, helpers, function = "{self}({0})", (), f"nn.Conv{rank}d"
    if pads == "same":
        function = f"Conv{rank}dSame"
        helpers = (function,)
    elif all(a == b for a, b in pads):
        options["padding"] = single(tuple(a for a, _ in pads))
    else:
        flat = tuple(p for pair in reversed(pads) for p in pair)
        expression = f"{{self}}(F.pad({{0}}, {literal(flat)}))"
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    options = {k: v for k, v in options.items() if v != defaults[k]} | (
        {} if "bias" in node.parameters else {"bias": False}
    )
    constructor = call_source(function, node["channels"], node["filters"], single(node["kernel_size"]), **options)
    weights = {r: w for r, w in WEIGHTS.items() if r in node.parameters}
    return TorchCall(expression, constructor, weights, helpers=helpers)
