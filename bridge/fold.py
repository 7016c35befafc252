"""Batch normalisation taken into the convolution or Dense before it, for inference."""

import inspect
from dataclasses import replace

import numpy as np

from bridge import rules
from bridge.graph import BridgeError, Graph, Node, Parameter, flatten


def fold_batchnorm(module, example_inputs: tuple | None = None):
    """Write a module anew, for inference: every BatchNorm behind a convolution or Linear becomes part of its weights.

    Args:
        module: A `torch.nn.Module`; it is not changed.
        example_inputs: Tensors as for a call of the module; a module that the bridge has written needs none.

    Returns:
        A new module in eval mode, generated source as that of `to_torch`. A BatchNorm that something else than a
        convolution feeds, or whose convolution feeds something else too, stays. Weights change by rounding.

    Raises:
        BridgeError: The module cannot be read, or example inputs are missing.
    """
    from bridge import layout, torch_reader, torch_writer
    from bridge.folder import examples

    if example_inputs is None:
        program = inspect.getmodule(type(module))
        if not hasattr(program, "INPUTS"):
            raise BridgeError(
                f"{type(module).__name__} was not written by the bridge: pass example_inputs, a tuple of tensors"
            )
        kinds = {p.dtype for p in module.parameters()}
        kind = kinds.pop() if len(kinds) == 1 else None  # .double() and .half() do not change INPUTS

        def read(tensors, dynamic):
            tensors = tuple(x.to(kind) if kind and x.is_floating_point() else x for x in tensors)
            return torch_reader.read(module, tensors, dynamic)

        graph = examples(read, program.INPUTS)
    else:
        graph = torch_reader.read(module, example_inputs)
    return torch_writer.build(torch_writer.write(layout.convert(fold(graph), "first")))


def fold(graph: Graph) -> Graph:
    """Fold every batch_norm whose input comes from an operator that can be scaled, and goes nowhere else."""
    readers, leaving = graph.consumers(), {v.name for v in flatten(graph.outputs)}
    uses: dict[str, int] = {}
    for node in graph.nodes:
        for name in node.parameters.values():
            uses[name] = uses.get(name, 0) + 1
    parameters, made = dict(graph.parameters), {}
    nodes: dict[int, Node] = {}  # by their identity
    for node in graph.nodes:
        before = made.get(node.inputs[0].name) if node.inputs else None
        if (
            node.operator == "batch_norm"
            and before is not None
            and hasattr(rules.for_operator(before.operator), "scaled")
            and before.attributes.get("axis") == node["axis"]
            and len(readers[node.inputs[0].name]) == 1
            and node.inputs[0].name not in leaving
            and all(uses[name] == 1 for name in before.parameters.values())
        ):
            del nodes[id(before)]
            node = _folded(before, node, parameters)
        nodes[id(node)] = node
        made |= {v.name: node for v in node.outputs}
    used = {name for node in nodes.values() for name in node.parameters.values()}
    return replace(graph, nodes=list(nodes.values()), parameters={k: p for k, p in parameters.items() if k in used})


def _folded(before: Node, norm: Node, parameters: dict[str, Parameter]) -> Node:
    """The operator with the normalisation behind it in its weights, computed in float64."""

    def value(node, role, default):
        return parameters[node.parameters[role]].value.astype("float64") if role in node.parameters else default

    scale = value(norm, "gamma", 1.0) / np.sqrt(value(norm, "moving_variance", 1.0) + norm["epsilon"])
    kernel = parameters[before.parameters["kernel"]]
    dtype, trainable = kernel.value.dtype, kernel.trainable
    scaled = rules.for_operator(before.operator).scaled(kernel.value.astype("float64"), scale)
    bias = (value(before, "bias", 0.0) - value(norm, "moving_mean", 0.0)) * scale + value(norm, "beta", 0.0)
    name = before.parameters["kernel"].removesuffix("weight").removesuffix("kernel")
    names = {"kernel": f"{name}kernel", "bias": f"{name}bias"}
    parameters[names["kernel"]] = Parameter(scaled.astype(dtype), trainable, own=True)
    parameters[names["bias"]] = Parameter(bias.astype(dtype), trainable, own=True)
    return replace(before, parameters=names, outputs=norm.outputs)
