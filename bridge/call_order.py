"""The calls of a Keras layer that each change it, in the graph's order.

Keras runs a functional model by depth, and what is equally deep mostly from the last branch to the first. The moving
statistics of a BatchNormalization that is called for several branches depend on the order, which torch goes by. So an
Identity takes the input of such a call together with what the call before has made: the call is behind that then.
"""

from dataclasses import replace

from bridge import rules
from bridge.graph import Graph, Node


def in_order(graph: Graph) -> Graph:
    """Put a "together" node before each call that changes its layer and that nothing keeps behind the last such one."""
    calls: dict[tuple, set[str]] = {}
    for node in graph.nodes:
        statistics = getattr(rules.for_operator(node.operator), "STATISTICS", ())
        if any(role in node.parameters for role in statistics) and not node.attributes.get("frozen"):
            calls.setdefault(tuple(sorted(node.parameters.items())), set()).add(node.outputs[0].name)
    for made in calls.values():
        graph = _behind(graph, made) if len(made) > 1 else graph
    return graph


def _behind(graph: Graph, made: set[str]) -> Graph:
    """Let each of the calls that make these values depend on the one before."""
    last, behind = None, set()  # what the last call has made, and what depends on it
    nodes = []
    for node in graph.nodes:
        if node.outputs[0].name in made:
            if last and node.inputs and not any(v.name in behind for v in node.inputs):
                given = [last, node.inputs[0]]
                kept = [replace(v, name=f"{node.outputs[0].name}:{i}:together") for i, v in enumerate(given)]
                nodes.append(Node("together", inputs=given, outputs=kept))
                node = replace(node, inputs=[kept[1], *node.inputs[1:]])
            last, behind = node.outputs[0], {node.outputs[0].name}
        elif any(v.name in behind for v in node.inputs):
            behind |= {v.name for v in node.outputs}
        nodes.append(node)
    return replace(graph, nodes=nodes)
