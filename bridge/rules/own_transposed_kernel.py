"""Transposed convolutions with a kernel of its own for each example: a small model <-> F.conv_transpose2d of groups.

StyleGAN2 makes its images larger by them. In torch the batch is in the channels, as `own_kernel` says; in Keras it is a
convolution of the kernel's parts, as `transposed_kernel` says. The kernel has its axes as that of a convolution has
them, (B, F, C, k, k), which is how people modulate both.
"""

from collections.abc import Iterator
from dataclasses import replace

from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement
from bridge.rules import (
    KerasCall,
    KerasLayer,
    TorchCall,
    TorchOperation,
    own_kernel,
    transposed_convolution,
    transposed_kernel,
)

OPERATORS = ("own_transposed_kernel",)
KERAS = ("model.own_conv_transpose",)
TORCH = ()  # `transposed_kernel` hands over the operators whose groups are open


def LAYOUT(node: Node, context: Context) -> Placement:
    return own_kernel.LAYOUT(node, context)


def _own_conv_transpose(x, kernel, strides: tuple, crops: tuple):
    """In keras.ops, of x (B, ..., C) and a kernel (B, ..., C, F)."""
    n = len(strides)

    def conv(x, kernel):
        return own_kernel.MODELS["own_kernel"](x, kernel, (1,) * n, (1,) * n, ((0, 0),) * n, 1)

    return transposed_kernel.by_parts(x, kernel, strides, crops, conv, own=True)


MODELS = {"own_conv_transpose": _own_conv_transpose}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    if len(model.inputs) == 2 and len(model.inputs[1].shape) > 3:
        yield from transposed_kernel.options_by_parts(model, own=True)


def read_keras(layer: KerasLayer) -> list[Node]:
    x, kernel = layer.inputs
    _, *sizes, depth, filters = kernel.shape
    attributes = {"channels": depth, "filters": filters, "kernel_size": tuple(sizes), "dilation": (1,) * len(sizes)}
    return [Node("own_transposed_kernel", attributes | layer.config | {"axis": x.rank - 1}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("model.own_conv_transpose", transposed_kernel.written(node))]


def read_torch(call: TorchOperation) -> list[Node]:
    """Nodes for an ATen transposed convolution whose groups are an open size, and whose weight flows."""
    kernel, n = call["weight"], call["weight"].rank - 2
    batch, groups, depth, _ = own_kernel.counts(call)
    if groups > 1:
        raise Unsupported(f"a transposed convolution of {groups} groups for each example", "convolve each group alone")
    filters, *sizes = kernel.shape[1:]
    node = transposed_convolution.node(call, depth, filters, tuple(sizes), n)
    node = replace(node, operator="own_transposed_kernel")
    return own_kernel.around(node, call, batch, (0, 2, 1, *range(3, n + 3)))


def write_torch(node: Node) -> TorchCall:
    inner = transposed_convolution.write_torch(replace(node, operator="transposed_convolution"))
    inner = replace(inner, constructor=f"{inner.constructor[:-1]}, groups=batch)")
    expression = transposed_kernel.functional(inner, f"conv_transpose{len(node['strides'])}d").expression
    kernel = own_kernel.in_one("{1}.transpose(1, 2)", node["channels"], (node["filters"], *node["kernel_size"]))
    expression = expression.replace("{0}", "{0}.flatten(0, 1).unsqueeze(0)").replace("{1}", kernel)
    expression = expression.replace("groups=batch", "groups={0}.shape[0]")
    return TorchCall(f"{expression}.squeeze(0).unflatten(0, ({{0}}.shape[0], -1))")
