"""Convolutions with a kernel of its own for each example: a small model of keras.ops <-> F.conv2d of a batch of groups.

StyleGAN2 modulates the weights by a style (Karras et al., 2020, https://arxiv.org/abs/1912.04958), CondConv mixes them
by a routing (Yang et al., 2019, https://arxiv.org/abs/1904.04971), and trackers take one image for the kernel of
another. torch has no such convolution: people put the batch into the channels, (B, C, H, W) -> (1, B*C, H, W), and the
kernels into one, (B, F, C, k, k) -> (B*F, C, k, k), so that each example is a group. The node has both as they were
before. The reshapes around it meet those that people write, and are gone (`reshape.merge`).

Keras has none, either. The model takes for each cell of the kernel the pixels that it meets, as channels, and sums
their products with the kernel, example by example.
"""

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bridge import expressions
from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, channels, own_kernel_order
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, convolution, literal, single
from bridge.rules import reshape as reshaping

OPERATORS = ("own_kernel",)
KERAS = ("model.own_kernel",)
TORCH = ()  # `convolution` reads the operators, `computed_kernel` hands over those whose groups are open
ABSORBS = {"own_kernel": 0.0}


def LAYOUT(node: Node, context: Context) -> Placement:
    placement = channels(replace(node, inputs=node.inputs[:1]), context)
    kernel = own_kernel_order(node.inputs[1].rank, context.source, context.target)
    return replace(placement, inputs=[*placement.inputs, kernel])


def _own_kernel(x, kernel, strides: tuple, dilation: tuple, pads: tuple, groups: int):
    """In keras.ops, of x (B, ..., C) and a kernel (B, ..., C / groups, F)."""
    from keras import ops

    n, (depth, filters) = len(strides), kernel.shape[-2:]
    sizes = kernel.shape[1 : n + 1]
    if any(map(any, pads)):
        x = ops.pad(x, ((0, 0), *pads, (0, 0)))
    each = depth == 1 < groups  # each channel for itself: products of pixels, as sums over one channel are slow
    if each and filters > groups:
        x = ops.repeat(x, filters // groups, axis=-1)
    cells = list(np.ndindex(*sizes))
    met = [
        x[(slice(None), *(slice(i * d, (i - k + 1) * d or None, s) for i, k, d, s in places))]
        for places in (zip(cell, sizes, dilation, strides, strict=True) for cell in cells)
    ]
    if each:
        apart = (slice(None), *[None] * n)
        products = (pixels * kernel[(*apart, *cell, 0)] for pixels, cell in zip(met, cells, strict=True))
        return functools.reduce(lambda a, b: a + b, products)
    letters = "hwdefg"[:n]
    kernel = ops.reshape(kernel, (-1, len(cells), depth, filters))
    made, some = [], filters // groups
    for i in range(groups):
        part = kernel if groups == 1 else kernel[..., i * some : (i + 1) * some]
        pixels = met if groups == 1 else [p[..., i * depth : (i + 1) * depth] for p in met]
        pixels = ops.concatenate(pixels, axis=-1) if len(pixels) > 1 else pixels[0]
        part = ops.reshape(part, (-1, len(cells) * depth, some))
        made.append(ops.einsum(f"b{letters}p,bpo->b{letters}o", pixels, part))
    return ops.concatenate(made, axis=-1) if groups > 1 else made[0]


MODELS = {"own_kernel": _own_kernel}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made: of the padding, and of the last cell's pixels."""
    if len(model.inputs) != 2:
        return
    (*_, channel), (_, *sizes, depth, _) = (x.shape for x in model.inputs)
    n = len(sizes)
    if len(model.inputs[0].shape) != n + 2 or None in (channel, depth) or not depth or channel % depth:
        return
    pads, cuts = ((0, 0),) * n, []
    for operation in model.operations:
        if type(operation).__name__ == "Pad":
            pads = tuple(map(tuple, operation.pad_width[1:-1]))
        elif type(operation).__name__ == "GetItem":
            keys = (node.arguments.args[1] for node in operation._inbound_nodes)
            cuts += [key[1:] for key in keys if isinstance(key, (list, tuple)) and len(key) == n + 1]
    cuts = [cut for cut in cuts if all(isinstance(c, slice) and isinstance(c.step, int) for c in cut)]
    if cuts:
        last = max(cuts, key=lambda cut: [c.start for c in cut])
        dilation = tuple(c.start // (k - 1) if k > 1 else 1 for c, k in zip(last, sizes, strict=True))
        strides = tuple(c.step for c in last)
        yield {"strides": strides, "dilation": dilation, "pads": pads, "groups": channel // depth}


def _node(channel: int, filters: int, kernel_size: tuple, options: dict, axis: int, name: str) -> Node:
    attributes = {"channels": channel, "filters": filters, "kernel_size": kernel_size, "axis": axis}
    return Node("own_kernel", attributes | options, name=name)


def read_keras(layer: KerasLayer) -> list[Node]:
    x, kernel = layer.inputs
    return [_node(x.shape[-1], kernel.shape[-1], kernel.shape[1:-2], layer.config, x.rank - 1, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("model.own_kernel", {k: node[k] for k in ("strides", "dilation", "pads", "groups")})]


def counts(call: TorchOperation) -> tuple[str, int, int, int]:
    """The size that the batch is, and how many groups, channels and filters each example has."""
    given = call["groups"].symbol, call["input"].symbols[1], call["weight"].symbols[0]
    found = []
    for whole in call.sizes:
        parts = [expressions.part(str(n), whole) for n in given]
        if None not in parts and all(part[1:] == (0, 1) for part in parts):
            found.append((whole, *(part[0] for part in parts)))
    if call["input"].shape[0] != 1 or not found:
        raise Unsupported(
            f"its groups are as many as {given[0]}, its image is of shape {call['input'].shape} and its kernel of "
            f"shape {call['weight'].shape}",
            "give it one group, or as many as its weight has, for each example: x.reshape(1, b * c, h, w), groups=b",
        )
    return max(found, key=lambda counts: counts[1])  # of a batch of channels, the batch


def read_torch(call: TorchOperation) -> list[Node]:
    """Nodes for an ATen convolution whose groups are an open size, and whose weight is a tensor that flows."""
    x, kernel, n = call["input"], call["weight"], call["weight"].rank - 2
    batch, groups, channel, filters = counts(call)
    sizes = kernel.shape[2:]
    if None in kernel.shape[1:]:
        raise Unsupported(f"a kernel of shape {kernel.shape}", "export with those sizes fixed")
    strides, dilation = call.numbers("stride", n), call.numbers("dilation", n)
    dilation = tuple(d if k > 1 else 1 for d, k in zip(dilation, sizes, strict=True))
    if call["padding"] == "same":
        pads = convolution.resolve_same(x.shape, 1, sizes, strides, dilation)
    else:
        pads = tuple((p, p) for p in ((0,) * n if call["padding"] == "valid" else call.numbers("padding", n)))

    options = {"strides": strides, "dilation": dilation, "pads": pads, "groups": groups}
    return around(_node(channel, filters, sizes, options, 1, call.path), call, batch)


def around(node: Node, call: TorchOperation, batch: str, permutation: tuple[int, ...] = ()) -> list[Node]:
    """The node, with its image and its kernel as they were before the batch was put into the channels.

    Args:
        node: Of `channels` and `filters`.
        call: The ATen operator.
        batch: The size that the batch is.
        permutation: What puts the axes of the kernel, less its batch, in a convolution's order.
    """
    x, kernel, made, bias = call["input"], call["weight"], call.outputs[0], call["bias"]

    def value(name: str, *symbols) -> Value:
        shape = tuple(s if isinstance(s, int) else None for s in symbols)
        return replace(made, name=f"{made.name}:{name}", shape=shape, symbols=symbols)

    first = node["channels"] if permutation else node["filters"]
    images = value("images", batch, node["channels"], *x.symbols[2:])
    kernels = value("kernels", batch, first, *kernel.shape[1:])
    each = value("each", batch, node["filters"], *made.symbols[2:])
    nodes = [*_reshaped(x, images), *_reshaped(kernel, kernels)]
    if permutation:
        turned = value("turned", *(kernels.symbols[a] for a in permutation))
        nodes.append(Node("permute", {"permutation": permutation}, inputs=[kernels], outputs=[turned]))
        kernels = turned
    nodes.append(replace(node, inputs=[images, kernels], outputs=[each]))
    if bias is not None:
        if not isinstance(bias, Value):
            raise Unsupported("its weight is computed and its bias is not", "let both flow")  # the reader does so
        along = value("bias", batch, node["filters"], *[1] * (made.rank - 2))
        before = replace(each, name=f"{made.name}:unbiased")
        nodes[-1].outputs = [before]
        nodes += [*_reshaped(bias, along), Node("add", inputs=[before, along], outputs=[each])]
    return [*nodes, *_reshaped(each, made)]


def _reshaped(x: Value, made: Value) -> list[Node]:
    (node,) = reshaping.nodes(x.symbols, made.symbols, "")
    return [replace(node, inputs=[x], outputs=[made])]


def write_torch(node: Node) -> TorchCall:
    pads, groups, image = node["pads"], node["groups"], "{0}"
    options = {"stride": single(node["strides"]), "padding": 0, "dilation": single(node["dilation"])}
    if all(a == b for a, b in pads):
        options["padding"] = single(tuple(a for a, _ in pads))
    else:
        image = f"F.pad({{0}}, {literal(tuple(p for pair in reversed(pads) for p in pair))})"
    options = {k: v for k, v in options.items() if v != (0 if k == "padding" else 1)}
    batch, filters, depth = "{0}.shape[0]", node["filters"], node["channels"] // groups
    kernel = in_one("{1}", filters, (depth, *node["kernel_size"]))
    more = "".join(f", {k}={literal(v)}" for k, v in options.items())
    call = f"F.conv{len(pads)}d({image}.flatten(0, 1).unsqueeze(0), {kernel}{more}, groups={_times(batch, groups)})"
    return TorchCall(f"{call}.squeeze(0).unflatten(0, ({batch}, -1))")


def in_one(kernel: str, first: int, sizes: tuple[int, ...]) -> str:
    """The source of the kernels of all examples in one: no flatten, as it is told that theirs is the image's batch."""
    return f"{kernel}.reshape({', '.join([_times('{0}.shape[0]', first), *map(literal, sizes)])})"


def _times(size: str, number: int) -> str:
    return f"{size} * {literal(number)}" if number > 1 else size
