"""Convolution: keras.layers.Conv{1,2,3}D <-> torch.nn.Conv{1,2,3}d.

"same" is the trap: TensorFlow makes the output ceil(n / stride) and puts the odd pixel of padding after the
image, so the padding depends on n; torch's integer padding is equal on both sides. The neutral padding is
explicit wherever it does not depend on an open size, and "same" only where it does.
"""

from bridge.graph import Node, Unsupported
from bridge.layout import channels
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, activation, call_source, literal, single

OPERATORS = ("convolution",)
KERAS = ("Conv1D", "Conv2D", "Conv3D")
LAYOUT = channels
FUSES = True
OVERWRITABLE = True
ABSORBS = {"convolution": 0.0}  # operator -> the value that its own padding has

# Keras name -> (torch name, Keras axes to torch's axes)
WEIGHTS = {"kernel": ("weight", "... i o -> o i ..."), "bias": ("bias", "o -> o")}

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


def read_keras(layer: KerasLayer) -> list[Node]:
    c, x = layer.config, layer.inputs[0]
    kernel, strides, dilation = map(tuple, (c["kernel_size"], c["strides"], c["dilation_rate"]))
    if c["padding"] == "same":
        pads = resolve_same(x.shape, layer.axis, kernel, strides, dilation)
    elif c["padding"] == "causal":
        pads = ((dilation[0] * (kernel[0] - 1), 0),)
    else:
        pads = ((0, 0),) * len(kernel)
    node = Node(
        "convolution",
        {
            "channels": x.shape[layer.axis],
            "filters": c["filters"],
            "kernel_size": kernel,
            "strides": strides,
            "dilation": dilation,
            "groups": c["groups"],
            "pads": pads,
            "axis": layer.axis,
        },
        layer.weights,
        layer.path,
    )
    return [node, *activation.from_config(c["activation"], layer.rank - 1)]


def write_keras(node: Node) -> list[KerasCall]:
    x, rank = node.inputs[0], node.inputs[0].rank - 2
    kernel, strides, dilation, pads = (node[k] for k in ("kernel_size", "strides", "dilation", "pads"))
    if max(strides) > 1 and max(dilation) > 1:
        raise Unsupported(f"strides {strides} with dilation {dilation}", "Keras has one or the other in a convolution")
    before = []
    explicit = node.attributes.get("explicit", False)  # for a layer that is not padded alike at each of its calls
    same = resolve_same(x.shape, node["axis"], kernel, strides, dilation)
    if pads == "same" or (pads == same and any(map(any, pads)) and not explicit):
        padding = "same"
    elif not explicit and rank == 1 and pads[0] == (dilation[0] * (kernel[0] - 1), 0) and pads[0][0]:
        padding = "causal"
    else:
        padding = "valid"
        if any(map(any, pads)):
            before = [KerasCall(f"ZeroPadding{rank}D", {"padding": pads if rank > 1 else pads[0]}, "_pad")]
    config = {
        "filters": node["filters"],
        "kernel_size": kernel,
        "strides": strides,
        "dilation_rate": dilation,
        "groups": node["groups"],
        "padding": padding,
        "use_bias": "bias" in node.parameters,
    }
    return [*before, KerasCall(f"Conv{rank}D", config, weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    x, rank = call.inputs[0], next(int(c) for c in call.target if c.isdigit())
    if x.rank != rank + 2:
        raise Unsupported(f"an input of shape {x.shape} has no batch", "give it a batch")
    weights = call.weights(WEIGHTS)
    kernel = call.parameters[weights["kernel"]].value.shape
    size, filters = kernel[:rank], kernel[-1]
    strides, dilation = call.numbers("stride", rank), call.numbers("dilation", rank)
    if call.target in HELPERS or call["padding"] == "same":
        pads = resolve_same(x.shape, 1, size, strides, dilation)
    elif call["padding"] == "valid":
        pads = ((0, 0),) * rank
    else:
        pads = tuple((p, p) for p in call.numbers("padding", rank))
    return [
        Node(
            "convolution",
            {
                "channels": x.shape[1],
                "filters": filters,
                "kernel_size": tuple(size),
                "strides": strides,
                "dilation": dilation,
                "groups": call["groups"],
                "pads": pads,
                "axis": 1,
            },
            weights,
            call.path,
        )
    ]


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
