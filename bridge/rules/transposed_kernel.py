"""Transposed convolutions whose kernel is computed: a small model of keras.ops <-> F.conv_transpose2d.

keras.ops.conv_transpose does not run in a functional model (Keras 3.15 hands its padding and output_padding over in
each other's place). A small model does the same by a convolution, as Shi et al. write it (https://arxiv.org/abs/1609.07009):
with a stride s, pixel q * s + r of the result is a sum over x[q - j] with the parts [j * s + r] of the kernel, so that
each of the r is a channel of a convolution of x, and the channels become pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from bridge import rules
from bridge.graph import Node, Unsupported
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, transposed_convolution
from bridge.rules.computed_kernel import LAYOUT, functional  # noqa: F401  the kernel has its axes alike
from bridge.rules.parameter import with_bias

OPERATORS = ("transposed_kernel",)
KERAS = ("model.conv_transpose",)
TORCH = ()  # `transposed_convolution` reads the operators and hands over those whose weight is computed


def _inner(node: Node) -> Node:
    """The node as `transposed_convolution` knows it."""
    return replace(node, operator="transposed_convolution", inputs=node.inputs[:1])


def _conv_transpose(x, kernel, strides: tuple, crops: tuple):
    """In keras.ops."""
    from keras import ops

    return by_parts(x, kernel, strides, crops, ops.conv)


def by_parts(x, kernel, strides: tuple, crops: tuple, conv, own: bool = False):
    """A transposed convolution by another one, `conv(image, kernel)`, of the parts of its kernel.

    The kernel is (..., filters, channels); or `own`, (B, ..., channels, filters).
    """
    from keras import layers, ops

    n, lead, (filters, depth) = len(strides), int(own), kernel.shape[-2:]
    batch, last = (-1,) * lead, (lead + 2 * n + 1, lead + 2 * n)  # the axes of the channels and the filters, once apart
    if own:
        filters, depth, last = depth, filters, last[::-1]
    sizes = kernel.shape[lead : lead + n]
    parts = [-(-(k + max(-after, 0)) // s) for k, s, (_, after) in zip(sizes, strides, crops, strict=True)]
    added = [(0, p * s - k) for p, s, k in zip(parts, strides, sizes, strict=True)]
    kernel = ops.pad(kernel, (*[(0, 0)] * lead, *added, (0, 0), (0, 0)))
    apart = (m for pair in zip(parts, strides, strict=True) for m in pair)
    kernel = ops.reshape(kernel, (*batch, *apart, *kernel.shape[-2:]))
    places = range(lead, lead + 2 * n, 2)
    inside = range(lead + 1, lead + 2 * n, 2)
    kernel = ops.transpose(ops.flip(kernel, tuple(places)), (*range(lead), *places, last[0], *inside, last[1]))
    kernel = ops.reshape(kernel, (*batch, *parts, depth, math.prod(strides) * filters))
    x = ops.pad(x, ((0, 0), *((p - 1, p - 1) for p in parts), (0, 0)))
    x = conv(x, kernel)
    shape = x.shape[1:-1]
    x = layers.Reshape((*(-1 if m is None else m for m in shape), *strides, filters), dtype=x.dtype)(x)
    x = ops.transpose(x, (0, *(a for i in range(n) for a in (1 + i, 1 + n + i)), 2 * n + 1))
    x = layers.Reshape(
        (*(-1 if m is None else m * s for m, s in zip(shape, strides, strict=True)), filters), dtype=x.dtype
    )(x)
    cuts = [(before, more + after) for (before, after), (_, more) in zip(crops, added, strict=True)]
    return x[(slice(None), *(slice(before, -after or None) for before, after in cuts))]


MODELS = {"conv_transpose": _conv_transpose}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    yield from options_by_parts(model)


def options_by_parts(model, own: bool = False) -> Iterator[dict]:
    """The options of a model `by_parts`: of the kernel's axes, and of the slice that makes the result."""
    flips = [o._inbound_nodes[0].arguments.args[0] for o in model.operations if type(o).__name__ == "Flip"]
    made, lead = model.outputs[0]._keras_history.operation, int(own)
    if len(model.inputs) != 2 or len(flips) != 1 or type(made).__name__ != "GetItem":
        return
    sizes = model.inputs[1].shape[lead:-2]
    n = len(sizes)
    apart, cuts = flips[0].shape[lead : lead + 2 * n], made._inbound_nodes[0].arguments.args[1][1 : n + 1]
    if len(apart) == 2 * n and len(cuts) == n and all(isinstance(cut, slice) for cut in cuts):
        more = [p * s - k for p, s, k in zip(apart[::2], apart[1::2], sizes, strict=True)]
        crops = tuple((cut.start or 0, -(cut.stop or 0) - m) for cut, m in zip(cuts, more, strict=True))
        yield {"strides": tuple(apart[1::2]), "crops": crops}


def read_keras(layer: KerasLayer) -> list[Node]:
    x, kernel = layer.inputs
    *sizes, filters, depth = kernel.shape
    attributes = {"channels": depth, "filters": filters, "kernel_size": tuple(sizes), "dilation": (1,) * len(sizes)}
    return [Node("transposed_kernel", attributes | layer.config | {"axis": x.rank - 1}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("model.conv_transpose", written(node))]


def written(node: Node) -> dict:
    """The options of the small model."""
    if max(node["dilation"]) > 1:
        raise Unsupported(f"dilation {node['dilation']} with a kernel that is computed", "leave the dilation out")
    if node.inputs[0].shape[1:-1].count(None) > 1:
        raise Unsupported("several sizes are open, and its kernel is computed", "fix all sizes but one, or the kernel")
    return {k: node[k] for k in ("strides", "crops")}


def read_torch(call: TorchOperation) -> list[Node]:
    """Nodes for an ATen transposed convolution, the weight of which is a tensor that flows."""
    x, kernel, n = call["input"], call["weight"], int(call.target[-2])
    if isinstance(call["groups"], Size):
        return rules.for_operator("own_transposed_kernel").read_torch(call)
    if call["groups"] > 1:
        raise Unsupported(
            f"its weight is computed, and it has {call['groups']} groups",
            "keep the weight as a parameter, as torch.nn.utils.parametrize.remove_parametrizations makes it",
        )
    depth, filters, *sizes = kernel.shape
    node = transposed_convolution.node(call, depth, filters, tuple(sizes), n)
    node = replace(node, operator="transposed_kernel", parameters={}, inputs=[x, kernel])
    return with_bias([node], 1, call["bias"], call.outputs[0])


def write_torch(node: Node) -> TorchCall:
    return functional(transposed_convolution.write_torch(_inner(node)), f"conv_transpose{len(node['strides'])}d")
