"""Convolutions whose kernel is computed: weight standardisation, weight_norm, keras.ops.conv <-> F.conv2d.

The node is that of a convolution under another name, with the kernel for its second input; `convolution` does the
work. A bias is added by a node of its own, as keras.ops.conv has none. Transposed convolutions have a file of their
own, `transposed_kernel`. A kernel that is an array is that of a frozen convolution.
"""

import ast
from dataclasses import replace

import numpy as np

from bridge import rules
from bridge.graph import Node, Parameter, Unsupported, Value
from bridge.layout import Context, Placement, channels, kernel_order
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, convolution, depthwise_kernel
from bridge.rules import slice as slices
from bridge.rules.parameter import with_bias

OPERATORS = ("computed_kernel",)
KERAS = ("ops.Conv",)
TORCH = ()  # `convolution` reads the operators and hands over those whose weight is computed
ABSORBS = {"computed_kernel": 0.0}
GROUPS = 32  # the most that are written one by one
OPTIONS = ("strides", "padding", "dilation_rate")


def LAYOUT(node: Node, context: Context) -> Placement:
    placement = channels(_inner(node), context)
    kernel = kernel_order(node.inputs[1].rank, context.source, context.target)
    return replace(placement, inputs=[*placement.inputs, kernel])


def _inner(node: Node) -> Node:
    """The node as `convolution` knows it."""
    return replace(node, operator="convolution", inputs=node.inputs[:1])


def _computed(node: Node, x: Value, kernel: Value) -> Node:
    """The node of a convolution under another name."""
    attributes = dict(node.attributes)
    if node.operator == "depthwise_convolution":  # its kernel has its axes in another way
        attributes |= {"filters": attributes.pop("multiplier") * node["channels"], "groups": node["channels"]}
    return replace(node, operator="computed_kernel", attributes=attributes, parameters={}, inputs=[x, kernel])


def _empty(kernel: Value) -> np.ndarray:
    """An array of a kernel's shape for the rules to look at, without memory."""
    if None in kernel.shape:
        raise Unsupported(f"a kernel of shape {kernel.shape}", "compute it from weights alone")
    return np.broadcast_to(np.float32(0), kernel.shape)


def merge(node: Node, reader: Node) -> Node | None:
    merged = convolution.merge(_inner(node), reader)
    return merged and _computed(merged, *node.inputs)


def holding(node: Node, parameter: Node) -> Node:
    """The convolution whose own weight the kernel is."""
    return replace(_inner(node), parameters=parameter.parameters)


def read_keras(layer: KerasLayer) -> list[Node]:
    if len(layer.inputs) < 2:  # the kernel is an array: that of a frozen layer
        kernel = np.asarray(layer.arguments["kernel"])
        options = depthwise_kernel.config(layer.operation, kernel.shape[:-2], kernel.ndim - 2)
        options |= {"filters": kernel.shape[-1], "groups": 1}
        weights = depthwise_kernel.held(layer, kernel=kernel)
        return convolution.read_keras(replace(layer, config=options, weights=weights))
    operation, (x, kernel) = layer.operation, layer.inputs
    n = kernel.rank - 2

    def numbers(value):
        return (value,) * n if isinstance(value, int) else tuple(value)

    config = {
        "filters": kernel.shape[-1],
        "kernel_size": kernel.shape[:n],
        "groups": 1,  # keras.ops.conv has none
        "activation": None,
        "data_format": operation.data_format,
        "padding": operation.padding,
        "strides": numbers(operation.strides),
        "dilation_rate": numbers(operation.dilation_rate),
    }
    parameters = {"kernel": Parameter(_empty(kernel))}
    inner = replace(layer, config=config, weights={"kernel": "kernel"}, parameters=parameters)
    return [_computed(convolution.read_keras(inner)[0], x, kernel)]


def write_keras(node: Node) -> list[KerasCall]:
    calls = convolution.write_keras(_inner(node))
    at = next(i for i, call in enumerate(calls) if call.weights)
    config = {k: v for k, v in calls[at].config.items() if k in OPTIONS}
    return [*(replace(c, first=True) for c in calls[:at]), KerasCall("ops.conv", config), *calls[at + 1 :]]


def read_torch(call: TorchOperation) -> list[Node]:
    """Nodes for an ATen convolution, the weight of which is a tensor that flows."""
    if isinstance(call["groups"], Size):
        return rules.for_operator("own_kernel").read_torch(call)
    x, kernel = call["input"], call["weight"]
    arguments = call.arguments | {"weight": "weight", "bias": None}
    state = {"weight": ("weight", _empty(kernel), True)}
    inner = replace(call, state=state, arguments=arguments, inputs=[x], parameters={})
    (node,) = convolution.read_torch(inner)
    nodes = _by_group(call) if call["groups"] > 1 else [_computed(node, x, kernel)]
    return with_bias(nodes, 1, call["bias"], call.outputs[0])


def _by_group(call: TorchOperation) -> list[Node]:
    """Nodes for each group, of a part of the image and a part of the kernel, and one that joins what they make."""
    x, kernel, groups, made = call["input"], call["weight"], call["groups"], call.outputs[0]
    if groups > GROUPS:
        raise Unsupported(
            f"its weight is computed, it has {groups} groups, and keras.ops.conv has none",
            "keep the weight as a parameter, as torch.nn.utils.parametrize.remove_parametrizations makes it",
        )
    nodes, parts = [], []
    for i in range(groups):
        image, kernels = _part(x, 1, i, groups, made), _part(kernel, 0, i, groups, made)
        shape = (made.shape[0], made.shape[1] // groups, *made.shape[2:])
        parts.append(replace(made, name=f"{made.name}:group{i}", shape=shape, symbols=()))
        options = {"input": image[-1].outputs[0], "weight": kernels[-1].outputs[0], "groups": 1, "bias": None}
        alone = replace(call, path="", arguments=call.arguments | options, outputs=parts[-1:])
        nodes += [*image, *kernels, *read_torch(alone)]
    return [*nodes, Node("concatenate", {"axis": 1}, name=call.path, inputs=parts)]


def _part(x: Value, axis: int, i: int, groups: int, made: Value) -> list[Node]:
    """The node that takes a group's part of an axis."""
    n = x.shape[axis] // groups
    shape = tuple(n if a == axis else size for a, size in enumerate(x.shape))
    part = replace(x, name=f"{made.name}:{x.name}{i}", shape=shape, symbols=())
    return slices.index(x, (*[slice(None)] * axis, slice(i * n, (i + 1) * n)), part, "")


def write_torch(node: Node) -> TorchCall:
    call = convolution.write_torch(_inner(node))
    if call.helpers:
        raise Unsupported("padding='same' at a size that is open", "fix the size, or pad by numbers")
    return functional(call, f"conv{len(node['kernel_size'])}d")


def functional(call: TorchCall, function: str) -> TorchCall:
    """torch's function with the options that the module has, its inputs being the image and the kernel."""
    constructor = ast.parse(call.constructor, mode="eval").body
    options = [k for k in constructor.keywords if k.arg != "bias"]
    source = ast.parse(call.expression.replace("{self}", "module").replace("{0}", "image"), mode="eval")
    for found in ast.walk(source):
        if isinstance(found, ast.Call) and ast.unparse(found.func) == "module":
            found.func = ast.Name(f"F.{function}")
            found.args, found.keywords = [*found.args, ast.Name("kernel")], options
    return TorchCall(ast.unparse(source).replace("image", "{0}").replace("kernel", "{1}"))
