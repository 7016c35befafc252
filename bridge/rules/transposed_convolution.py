"""Transposed convolution: keras.layers.Conv{1,2,3}DTranspose <-> torch.nn.ConvTranspose{1,2,3}d.

Both frameworks cut something off the full output, of size (i - 1) * stride + (kernel - 1) * dilation + 1. What they
cut does not depend on the size, so the neutral form is `crops`, the numbers cut before and after each axis; a negative
number after it adds zeros, and the bias. torch's `padding` cuts the same on both sides and its `output_padding` gives
back less than a stride after; Keras' "same" cuts the odd pixel after, which torch can only crop from the result.

TensorFlow's kernel for dilated transposed convolution on the CPU is for float32 alone.

Keras has no groups here. A module with groups is read as what Keras can hold: slices of the channels, a transposed
convolution of each, with its part of the weights, and their concatenation. One kernel with zeros between the groups
would give the same numbers until the first training step.
"""

from dataclasses import replace

from bridge import rules
from bridge.graph import Node, Unsupported, Value, chain
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
from bridge.rules import slice as slices

OPERATORS = ("transposed_convolution",)
AUTOCAST = "lower"
KERAS = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
TORCH = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
LAYOUT = channels
FUSES = True
OVERWRITABLE = True

# Keras name -> (torch name, Keras axes to torch's axes)
WEIGHTS = {"kernel": ("weight", "... o i -> i o ..."), "bias": ("bias", "o -> o")}


def merge(node: Node, reader: Node) -> Node | None:
    """Take in a crop of the output."""
    if reader.operator != "padding" or any(p > 0 for pair in reader["pads"] for p in pair):
        return None
    cuts = [pair for i, pair in enumerate(reader["pads"]) if i not in (0, node["axis"])]
    if any(reader["pads"][0]) or any(reader["pads"][node["axis"]]):
        return None
    crops = tuple((a - c, b - d) for (a, b), (c, d) in zip(node["crops"], cuts, strict=True))
    return replace(node, attributes={**node.attributes, "crops": crops}, outputs=reader.outputs)


def keras_crops(padding: str, output_padding, extents, strides) -> tuple[tuple[int, int], ...]:
    """What Keras on TensorFlow cuts off the full output, before and after each axis.

    Args:
        padding: "valid" or "same".
        output_padding: A number for each axis, or None.
        extents: The sizes of the dilated kernel.
        strides: The strides.
    """
    crops = []
    for i, (k, s) in enumerate(zip(extents, strides, strict=True)):
        extra = None if output_padding is None else output_padding[i]
        if padding == "valid":
            crops.append((0, -(max(s - k, 0) if extra is None else extra)))
        else:
            total = k - s if extra is None else k - k % 2 - extra
            crops.append((max(total, 0) // 2, total - max(total, 0) // 2))
    return tuple(crops)


def _extents(node: Node) -> tuple[int, ...]:
    return tuple((k - 1) * d + 1 for k, d in zip(node["kernel_size"], node["dilation"], strict=True))


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    node = Node(
        "transposed_convolution",
        {
            "channels": layer.inputs[0].shape[layer.axis],
            "filters": c["filters"],
            "kernel_size": tuple(c["kernel_size"]),
            "strides": tuple(c["strides"]),
            "dilation": tuple(c["dilation_rate"]),
            "axis": layer.axis,
        },
        layer.weights,
        layer.path,
    )
    node.attributes["crops"] = keras_crops(c["padding"], c["output_padding"], _extents(node), node["strides"])
    return [node, *activation.from_config(c["activation"], layer.rank - 1)]


def write_keras(node: Node) -> list[KerasCall]:
    strides, dilation, crops, extents = node["strides"], node["dilation"], node["crops"], _extents(node)
    if max(strides) > 1 and max(dilation) > 1:
        raise Unsupported(f"strides {strides} with dilation {dilation}", "Keras has one or the other in a convolution")
    added = tuple(max(-after, 0) for _, after in crops)
    if any(p >= s for p, s in zip(added, strides, strict=True)):
        raise Unsupported(f"output_padding {added} with stride {strides}", "Keras wants less than the stride")
    same = tuple(k - k % 2 - sum(crop) for k, crop in zip(extents, crops, strict=True))
    # TensorFlow refuses "same" where ceil(output / stride) would not be the size of the input
    runs = all(0 <= p < s and k % 2 + p > 0 for k, p, s in zip(extents, same, strides, strict=True))
    cut = ()
    for padding, extra in (("valid", None), ("same", None), ("valid", added), *([("same", same)] if runs else [])):
        if crops == keras_crops(padding, extra, extents, strides):
            break
    else:
        padding, extra = "valid", added
        if all(before == after for before, after in keras_crops("valid", None, extents, strides)):
            extra = added if any(added) else None
        cut = tuple((before, max(after, 0)) for before, after in crops)
    rank = len(strides)
    config = {
        "filters": node["filters"],
        "kernel_size": node["kernel_size"],
        "strides": strides,
        "padding": padding,
        "output_padding": extra,
        "dilation_rate": dilation,
        "use_bias": "bias" in node.parameters,
    }
    calls = [KerasCall(f"Conv{rank}DTranspose", config, weights=True)]
    if cut:
        calls.append(KerasCall(f"Cropping{rank}D", {"cropping": cut if rank > 1 else cut[0]}, "_crop"))
    return calls


def scaled(kernel, scale):
    """The kernel with every output channel multiplied."""
    return kernel * scale[:, None]


def read_torch(call: TorchOperation) -> list[Node]:
    if isinstance(call.arguments.get("bias"), Value) and not isinstance(call["weight"], Value):
        return parameter.of_layer(read_torch, call, 1)
    x, rank = call["input"], int(call.target[-2])
    if x.rank != rank + 2:
        raise Unsupported(f"an input of shape {x.shape} has no batch", "give it a batch")
    if isinstance(call["weight"], Value):
        return rules.for_operator("transposed_kernel").read_torch(call)
    if call["groups"] > 1:
        return _read_groups(call)
    weights = call.weights(WEIGHTS)
    *kernel, filters, channels = call.parameters[weights["kernel"]].value.shape
    found = node(call, channels, filters, tuple(kernel), rank)
    return [replace(found, parameters=weights)]


def node(call: TorchOperation, channels: int, filters: int, kernel_size: tuple[int, ...], rank: int) -> Node:
    """The node of an ATen transposed convolution, less its weights."""
    padding, output_padding = call.numbers("padding", rank), call.numbers("output_padding", rank)
    attributes = {
        "channels": channels,
        "filters": filters,
        "kernel_size": kernel_size,
        "strides": call.numbers("stride", rank),
        "dilation": call.numbers("dilation", rank),
        "axis": 1,
        "crops": tuple((p, p - extra) for p, extra in zip(padding, output_padding, strict=True)),
    }
    return Node("transposed_convolution", attributes, name=call.path)


def _read_groups(call: TorchOperation) -> list[Node]:
    """Nodes for each group, which has its part of the weights, and one that concatenates what they make."""
    groups, x, made, name = call["groups"], call.inputs[0], call.outputs[0], call.path
    size = x.shape[1] // groups
    nodes, parts = [], []
    for i in range(groups):
        shape = (made.shape[0], made.shape[1] // groups, *made.shape[2:])
        part = replace(x, name=f"{made.name}:{2 * i}", shape=(x.shape[0], size, *x.shape[2:]))
        parts.append(replace(made, name=f"{made.name}:{2 * i + 1}", shape=shape))
        nodes += slices.index(x, (slice(None), slice(i * size, (i + 1) * size)), part, f"{name}_slice{i}")
        state = {argument: _part(held, i, groups) for argument, held in call.state.items()}
        options = {**call.arguments, "groups": 1}
        group = replace(
            call, path=f"{name}_group{i}", arguments=options, inputs=[part], outputs=parts[-1:], state=state
        )
        nodes += chain(read_torch(group), [part], parts[-1:])
    return [*nodes, Node("concatenate", {"axis": 1}, name=name, inputs=parts, outputs=[made])]


def _part(held: tuple, i: int, groups: int) -> tuple:
    """A group's part of a weight, the first axis of which runs over the groups; it goes by `name[start:stop]`."""
    name, array, trainable = held
    size = len(array) // groups
    rows = slice(i * size, (i + 1) * size)
    return f"{name}[{rows.start}:{rows.stop}]", array[rows], trainable


def write_torch(node: Node) -> TorchCall:
    paddings, extras, cuts = [], [], []
    for (before, after), s, d in zip(node["crops"], node["strides"], node["dilation"], strict=True):
        exact = 0 <= before - after < max(s, d)
        paddings.append(before if exact else max(min(before, after), 0))
        extras.append(before - after if exact else max(-after, 0))
        cuts.append((before - paddings[-1], after - paddings[-1] + extras[-1]))
    expression = "{self}({0})"
    if any(map(any, cuts)):
        flat = tuple(-p for pair in reversed(cuts) for p in pair)
        expression = f"F.pad({{self}}({{0}}), {literal(flat)})"
    defaults = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
    options = {
        "stride": single(node["strides"]),
        "padding": single(tuple(paddings)),
        "output_padding": single(tuple(extras)),
        "dilation": single(node["dilation"]),
    }
    options = {k: v for k, v in options.items() if v != defaults[k]}
    if "bias" not in node.parameters:
        options["bias"] = False
    constructor = call_source(
        f"nn.ConvTranspose{len(paddings)}d", node["channels"], node["filters"], single(node["kernel_size"]), **options
    )
    return TorchCall(expression, constructor, {r: w for r, w in WEIGHTS.items() if r in node.parameters})
