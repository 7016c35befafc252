r"""Another project's names for the modules and weights of a network.

A table maps patterns of Keras' names of layers to names of modules, as `re.sub` does. A project may hold the weights of
a Dense layer by themselves, as torch's attention does; then each role has a name.

    {
        r"stage(\d)_block(\d+)_(conv\d)": r"layer\1.\2.\3",
        r"block(\d+)_qkv": {"kernel": r"layers.\1.in_proj_weight", "bias": r"layers.\1.in_proj_bias"},
    }

The first pattern that fits the whole of a name counts; a layer that none fits keeps its own.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from bridge.graph import BridgeError, Graph, Node, Obstacle, Parameter, Value
from bridge.rules import dense, to_torch_axes

Table = Mapping[str, "str | Mapping[str, str]"]


def rename(graph: Graph, table: Table) -> Graph:
    """Give the nodes of a graph the names of a table.

    Args:
        graph: What `keras_reader.read` returned; it is left as it is.
        table: From patterns to names.

    Returns:
        A graph that computes the same.

    Raises:
        BridgeError: A layer that is no Dense layer is to have a name for each of its weights.
    """
    made, obstacles = replace(graph, nodes=[], parameters=dict(graph.parameters)), []
    for node in graph.nodes:
        name, mark, call = node.name.partition("#")
        found = look_up(table, name)
        if isinstance(found, str):
            made.nodes.append(replace(node, name=f"{found}{mark}{call}"))
        elif node.operator == "dense":
            made.nodes += _flowing(node, found, made)
        else:
            reason = f"the table has a name for each of its weights, {', '.join(found)}"
            obstacles.append(Obstacle(node.name, node.operator, reason, "give it one name; a Dense layer has one each"))
    if obstacles:
        raise BridgeError(f"{graph.name} cannot be named so:", obstacles)
    return made


def look_up(table: Table, name: str) -> "str | dict[str, str]":
    """Give the name of a layer, or of each of its weights."""
    for pattern, new in table.items():
        try:
            if match := re.fullmatch(pattern, name):
                return match.expand(new) if isinstance(new, str) else {k: match.expand(v) for k, v in new.items()}
        except (re.error, IndexError) as e:
            raise BridgeError(f"the table of names has {pattern!r} -> {new!r}, which is no pattern of `re`: {e}") from e
    return name


def _flowing(node: Node, names: dict[str, str], graph: Graph) -> list[Node]:
    """The nodes of a Dense layer whose weights are tensors by themselves, with torch's axes."""
    weights = {}
    for role, held in node.parameters.items():
        name, old = names.get(role, f"{node.name}.{role}"), graph.parameters[held]
        value = to_torch_axes(old.value, dense.WEIGHTS[role][1])
        graph.parameters[f"{held}:{name}"] = Parameter(value, old.trainable)
        made = Value(f"{node.outputs[0].name}:{role}", value.shape, node.outputs[0].dtype)
        weights[role] = Node("parameter", {}, {"kernel": f"{held}:{name}"}, name, outputs=[made], scope=node.scope)
    held = [weights[role].outputs[0] for role in dense.WEIGHTS if role in weights]
    return [*weights.values(), replace(node, parameters={}, name="", inputs=[node.inputs[0], *held])]
