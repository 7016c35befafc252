"""The normal form: what both readers do to a graph, so that the same network reads the same from either side."""

from collections.abc import Callable
from dataclasses import replace

from bridge import rules
from bridge.graph import Graph, Node, Value, flatten, map_structure


def simplify(graph: Graph) -> Graph:
    """Put constant padding into the convolution or pooling that it serves, and one node where two do one thing.

    A rule says by ABSORBS which value its operator pads with; its attribute `pads` then takes in a padding node
    that nothing else reads. A rule's `merge(node, reader)` returns the one node that does the work of its node and
    of the only reader of it, or None. Its `normal(node)` returns a node in the one way in which that is said.
    """
    graph = _without_idle(_without_identities(graph))
    graph = replace(graph, nodes=[getattr(rules.for_operator(n.operator), "normal", _same)(n) for n in graph.nodes])
    consumers = graph.consumers()
    leaving = {v.name for v in flatten(graph.outputs)}
    absorbed: dict[str, Node] = {}  # value that a padding makes -> the padding
    made: dict[str, Node] = {}  # value -> the node that makes it
    nodes: dict[int, Node] = {}  # by their identity
    for node in graph.nodes:
        readers = consumers.get(node.outputs[0].name, [])
        if (
            node.operator == "padding"
            and len(readers) == 1
            and node.outputs[0].name not in leaving
            and _fits(node, readers[0])
        ):
            absorbed[node.outputs[0].name] = node
            continue
        while node.inputs and node.inputs[0].name in absorbed:
            padding = absorbed[node.inputs[0].name]
            more = [p for i, p in enumerate(padding["pads"]) if i not in (0, node["axis"])]
            pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(node["pads"], more, strict=True))
            inputs = [*padding.inputs, *node.inputs[1:]]
            node = replace(node, inputs=inputs, attributes={**node.attributes, "pads": pads})
        previous = made.get(node.inputs[0].name) if node.inputs else None
        merge = previous and getattr(rules.for_operator(previous.operator), "merge", None)
        alone = merge and len(consumers[node.inputs[0].name]) == 1 and node.inputs[0].name not in leaving
        if alone or (merge and previous.operator in getattr(rules.for_operator(previous.operator), "CONSTANTS", ())):
            merged = merge(previous, node)
            if merged:
                if alone:
                    del nodes[id(previous)]
                node = merged
        nodes[id(node)] = made[node.outputs[0].name] = node
    graph = _without_idle(replace(graph, nodes=list(nodes.values())))
    return simplify(graph) if any(map(_is_identity, graph.nodes)) else graph  # what met in between has come to nothing


def with_weights(graph: Graph) -> Graph:
    """Let operators hold the weights that nothing else reads: `ops.conv(x, self.kernel)` is a convolution.

    A rule's `holding(node, parameter)` returns the node that does so. In torch's graphs the reader has done it.
    """
    leaving, readers = {v.name for v in flatten(graph.outputs)}, graph.consumers()

    def holders(value: Value) -> list[tuple[Node, Callable]] | None:
        """All that read a value, as such or converted; None if it is more than what they hold."""
        found = []
        for node in readers.get(value.name, []):
            hold, cast = getattr(rules.for_operator(node.operator), "holding", None), node.operator == "cast"
            if not cast and (not hold or [v.name for v in node.inputs].index(value.name) != 1):
                return None
            more = holders(node.outputs[0]) if cast else [(node, hold)]
            if more is None:
                return None
            found += more
        return None if value.name in leaving else found

    changed: dict[int, Node] = {}
    for parameter in (n for n in graph.nodes if n.operator == "parameter"):
        changed |= {id(n): hold(n, parameter) for n, hold in holders(parameter.outputs[0]) or ()}
    return replace(graph, nodes=[changed.get(id(n), n) for n in graph.nodes]) if changed else graph


def _same(node: Node) -> Node:
    return node


def _is_identity(node: Node) -> bool:
    """Tell whether a node is a permutation that moves nothing, such as a "linear" activation."""
    return node.operator == "permute" and list(node["permutation"]) == sorted(node["permutation"])


def _without_identities(graph: Graph) -> Graph:
    """Leave out the permutations that move nothing."""
    same: dict[str, Value] = {}
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=[same.get(v.name, v) for v in node.inputs])
        if _is_identity(node):
            same[node.outputs[0].name] = node.inputs[0]
        else:
            nodes.append(node)
    return replace(graph, nodes=nodes, outputs=map_structure(lambda v: same.get(v.name, v), graph.outputs))


def _without_idle(graph: Graph) -> Graph:
    """Leave out what no output depends on, such as the parts of a split that nobody reads."""
    needed, nodes = {v.name for v in flatten(graph.outputs)}, []
    for node in reversed(graph.nodes):
        if any(v.name in needed for v in node.outputs):
            needed.update(v.name for v in node.inputs)
            trim = getattr(rules.for_operator(node.operator), "trimmed", None)
            nodes.append(trim(node, needed) if trim and len(node.outputs) > 1 else node)
    return replace(graph, nodes=nodes[::-1])


def _fits(padding: Node, reader: Node) -> bool:
    absorbs = getattr(rules.for_operator(reader.operator), "ABSORBS", {}).get(reader.operator)
    return (
        reader.inputs[0] == padding.outputs[0]
        and absorbs == padding.attributes.get("value", "")  # none, where it repeats what is inside
        and reader.attributes.get("pads", "same") != "same"
        and padding["pads"][0] == padding["pads"][reader["axis"]] == (0, 0)
        and all(a >= 0 and b >= 0 for a, b in padding["pads"])
    )
