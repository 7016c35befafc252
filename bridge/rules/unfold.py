"""Patches of an image: keras.ops.{image.extract_patches, unfold, fold} <-> F.unfold, nn.Unfold; F.fold, nn.Fold.

Keras has the channel behind the place in the patch, torch before it, and the patches in one axis: what torch makes are
Keras' patches with their axes in another order. A fold is a selection, of the cells that a pixel is the sum of, and
that sum. Convolutions of TensorFlow have no dilation with a stride: there the strides are taken afterwards.
"""

from dataclasses import replace

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported, Value
from bridge.layout import channels
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, gather, padding
from bridge.rules import reshape as reshaping
from bridge.rules import slice as slices
from bridge.rules.reshape import KEEP

OPERATORS = ("patches",)
LAYOUT = channels

HELPERS = {
    "Patches": '''
        class Patches(nn.Module):
            """The patches of an image in the channels of its pixels, the place in the patch before the channel."""

            def __init__(self, size, stride, dilation):
                super().__init__()
                self.size, self.stride, self.dilation = size, stride, dilation

            def forward(self, x):
                place = zip(x.shape[2:], self.size, self.stride, self.dilation)
                height, width = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in place]
                y = F.unfold(x, self.size, self.dilation, stride=self.stride)  # (B, C*h*w, H*W)
                y = y.unflatten(1, (x.shape[1], -1)).transpose(1, 2).flatten(1, 2)
                return y.unflatten(2, (height, width))
        ''',
}
TORCH = ("im2col", "col2im", *HELPERS)


def _pairs(o) -> list[tuple[int, int]]:
    return [(n, n) if isinstance(n, int) else tuple(n) for n in (o.kernel_size, o.dilation, o.padding, o.stride)]


def _unfolded(ops, o, x):
    """keras.ops.unfold, of images with the channel first."""
    size, dilation, (high, wide), strides = _pairs(o)
    channel = x.shape[1]
    if None in x.shape[1:]:
        raise Unsupported(f"patches of images of shape {tuple(x.shape)}", "fix all sizes but the batch")
    x = ops.pad(ops.moveaxis(x, 1, -1), ((0, 0), (high, high), (wide, wide), (0, 0)))
    options = {"strides": strides, "dilation_rate": dilation, "padding": "valid", "data_format": "channels_last"}
    made = ops.image.extract_patches(x, size, **options)
    made = ops.reshape(made, (-1, made.shape[1] * made.shape[2], size[0] * size[1], channel))
    return ops.reshape(ops.transpose(made, (0, 3, 2, 1)), (-1, channel * size[0] * size[1], made.shape[1]))


def _folded(ops, o, x):
    """keras.ops.fold: each pixel as the sum of the cells that fall upon it, made up by a cell of zero."""
    size, dilation, pads, strides = _pairs(o)
    output = (o.output_size,) * 2 if isinstance(o.output_size, int) else tuple(o.output_size)
    if None in x.shape[1:]:
        raise Unsupported(f"a fold of shape {tuple(x.shape)}", "fix all sizes but the batch")
    counts = _counts(output, size, dilation, pads, strides)
    places = size[0] * size[1]
    if x.shape[2] != counts[0] * counts[1]:
        raise Unsupported(f"a fold of {x.shape[2]} patches where {counts[0]} x {counts[1]} fall", "give as many")
    channel, cells = x.shape[1] // places, places * x.shape[2]
    longer = ops.pad(ops.reshape(x, (-1, channel, cells)), ((0, 0), (0, 0), (0, 1)))
    index = _cells(output, counts, size, dilation, pads, strides)
    return ops.reshape(ops.sum(ops.take(longer, index, axis=2), axis=3), (-1, channel, *output))


PARTS = {"ops.Fold": _folded, "ops.Unfold": _unfolded}
KERAS = ("ops.ExtractPatches", *PARTS)


def _reach(size: int, dilation: int) -> int:
    return (size - 1) * dilation + 1


def _patches(x: Value, axis: int, size, strides, dilation, pads, made: Value, name: str) -> list[Node]:
    """Nodes for patches; `pads` are those of the two axes of the image."""
    nodes, spatial = [], [a for a in range(1, 4) if a != axis]
    every = [(0, 0)] * 4
    for a, p in zip(spatial, pads, strict=True):
        every[a] = tuple(p)
    if any(map(any, pads)):
        padded = replace(x, name=f"{made.name}:padded", shape=padding._grown(x.shape, every), symbols=())
        nodes.append(replace(padding.constant(every, 0.0, ""), inputs=[x], outputs=[padded]))
        x = padded
    apart = max(strides) > 1 and max(dilation) > 1
    shape = list(made.shape)
    if apart:
        for a, k, d in zip(spatial, size, dilation, strict=True):
            shape[a] = x.shape[a] and x.shape[a] - _reach(k, d) + 1
    whole = replace(made, name=f"{made.name}:whole", shape=tuple(shape), symbols=()) if apart else made
    options = {"size": tuple(size), "strides": (1, 1) if apart else tuple(strides), "dilation": tuple(dilation)}
    nodes.append(Node("patches", {**options, "axis": axis}, name=name, inputs=[x], outputs=[whole]))
    if apart:
        steps = [slice(None)] * 4
        for a, s in zip(spatial, strides, strict=True):
            steps[a] = slice(None, None, s)
        nodes += slices.index(whole, tuple(steps), made, "")
    return nodes


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name in PARTS:
        return keras_parts.read(layer, PARTS)
    x, o = layer.inputs[0], layer.operation
    size, strides, dilation = (
        ((n, n) if isinstance(n, int) else tuple(n)) for n in (o.size, o.strides, o.dilation_rate)
    )
    if x.rank != 4 or len(size) != 2:
        raise Unsupported(f"patches of size {size} of a tensor of shape {x.shape}", "give it images in one batch")
    pads = [(0, 0), (0, 0)]
    if o.padding == "same":
        spatial = [n for a, n in enumerate(x.shape) if a not in (0, layer.axis)]
        if any(n is None and s > 1 for n, s in zip(spatial, strides, strict=True)):
            raise Unsupported("padding='same' at a size that is open", "fix the size, or pad by numbers")
        total = [
            max(0, (-(-n // s) - 1) * s + _reach(k, d) - n) if n else _reach(k, d) - 1
            for n, s, k, d in zip(spatial, strides, size, dilation, strict=True)
        ]
        pads = [(n // 2, n - n // 2) for n in total]
    return _patches(x, layer.axis, size, strides, dilation, pads, layer.outputs[0], layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    options = {"strides": node["strides"], "dilation_rate": node["dilation"], "data_format": "channels_last"}
    return [KerasCall("ops.image.extract_patches", {"size": node["size"], **options})]


def read_torch(call: TorchOperation) -> list[Node]:
    x, made = call.inputs[0], call.outputs[0]
    if call.target in HELPERS:
        options = {k: tuple(call[k]) for k in ("size", "dilation")} | {"strides": tuple(call["stride"])}
        return [Node("patches", {**options, "axis": 1}, name=call.path)]
    size, dilation, pads, strides = (call.numbers(k, 2) for k in ("kernel_size", "dilation", "padding", "stride"))
    if call.target == "col2im":
        return _fold(call, x, made, size, dilation, pads, strides)
    if None in x.shape[1:]:
        raise Unsupported(f"patches of images of shape {x.shape}", "export with those sizes fixed")
    high, wide = (
        (n + 2 * p - _reach(k, d)) // s + 1
        for n, p, k, d, s in zip(x.shape[2:], pads, size, dilation, strides, strict=True)
    )
    channel, places = x.shape[1], size[0] * size[1]

    def value(name, *shape):
        return replace(made, name=f"{made.name}:{name}", shape=(made.shape[0], *shape), symbols=())

    patches = value("patches", places * channel, high, wide)
    apart, turned = value("apart", places, channel, high * wide), value("turned", channel, places, high * wide)
    nodes = _patches(x, 1, size, strides, dilation, [(p, p) for p in pads], patches, call.path)
    blocks = [KEEP, (1, (places, channel)), (2, (high * wide,))]
    nodes.append(replace(reshaping.of_blocks(blocks, patches.shape, ""), inputs=[patches], outputs=[apart]))
    nodes.append(Node("permute", {"permutation": (0, 2, 1, 3)}, inputs=[apart], outputs=[turned]))
    merged = reshaping.of_blocks([KEEP, (2, (places * channel,)), KEEP], turned.shape, "")
    return [*nodes, replace(merged, inputs=[turned], outputs=[made])]


def _counts(output, size, dilation, pads, strides) -> list[int]:
    """How many patches fall upon an image along each of its axes."""
    return [
        (n + 2 * p - _reach(k, d)) // s + 1 for n, p, k, d, s in zip(output, pads, size, dilation, strides, strict=True)
    ]


def _cells(output, counts, size, dilation, pads, strides) -> np.ndarray:
    """The numbers of the cells that fall upon each pixel; fewer than the most are made up by that behind the last."""
    upon: list[list[int]] = [[] for _ in range(output[0] * output[1])]
    for cell, (i, j, row, column) in enumerate(np.ndindex(*size, *counts)):
        y, z = i * dilation[0] + row * strides[0] - pads[0], j * dilation[1] + column * strides[1] - pads[1]
        if 0 <= y < output[0] and 0 <= z < output[1]:
            upon[y * output[1] + z].append(cell)
    behind, most = size[0] * size[1] * counts[0] * counts[1], max(map(len, upon))
    return np.array([[*cells, *[behind] * (most - len(cells))] for cells in upon])


def _fold(call: TorchOperation, x: Value, made: Value, size, dilation, pads, strides) -> list[Node]:
    """Each pixel as the sum of the cells that fall upon it; fewer than the most are made up by a cell of zero."""
    output = call["output_size"]
    if x.rank != 3 or None in x.shape[1:] or not all(isinstance(n, int) for n in output):
        raise Unsupported(f"a fold of shape {x.shape} to {tuple(output)}", "export with those sizes fixed")
    counts = _counts(output, size, dilation, pads, strides)
    places, patches, channel = size[0] * size[1], counts[0] * counts[1], made.shape[1]
    index = _cells(output, counts, size, dilation, pads, strides)

    def value(name, *shape):
        return replace(made, name=f"{made.name}:{name}", shape=(made.shape[0], channel, *shape), symbols=())

    apart, flat = value("apart", places, patches), value("flat", places * patches)
    longer, taken = value("longer", places * patches + 1), value("taken", *index.shape)
    total = value("total", len(index))
    first = reshaping.of_blocks([KEEP, (1, (channel, places)), KEEP], x.shape, "")
    return [
        replace(first, inputs=[x], outputs=[apart]),
        replace(
            reshaping.of_blocks([KEEP, KEEP, (2, (places * patches,))], apart.shape, ""), inputs=[apart], outputs=[flat]
        ),
        replace(padding.constant(((0, 0), (0, 0), (0, 1)), 0.0, ""), inputs=[flat], outputs=[longer]),
        *gather._take(longer, 2, index, taken, call.path or f"{made.name}_cells", call),
        Node("reduction", {"function": "sum", "axes": (3,), "keepdims": False}, inputs=[taken], outputs=[total]),
        replace(reshaping.of_blocks([KEEP, KEEP, (1, tuple(output))], total.shape, ""), inputs=[total], outputs=[made]),
    ]


def write_torch(node: Node) -> TorchCall:
    constructor = call_source("Patches", node["size"], node["strides"], node["dilation"])
    return TorchCall("{self}({0})", constructor, helpers=("Patches",))
