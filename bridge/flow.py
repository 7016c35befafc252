"""Which weights of two networks are the same where their operations are not: by kind, shape and what flows into what.

Two networks may compute the same and be written otherwise: a padding beside a pooling or in it, a concatenation or an
addition of slices. What has weights is there on both sides, and reads what comes from the same others. So only these
layers are looked at: each is told by its kind and shapes, then by those before and behind it, as far as the two
networks agree (Weisfeiler & Lehman, 1968). Layers that are still alike, such as the query and the key of an attention,
are paired in their order; whether that is right, only running both can tell.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

from bridge.align import reads
from bridge.graph import Graph, Node, flatten

SHOWN = 20  # names of layers in a sentence


@dataclass
class Flow:
    """The layers of a network that have weights, by number, and what is before and behind each.

    What is around a layer is a set of ("node", number), ("input", number) and ("output", number).
    """

    nodes: list[Node]
    before: list[frozenset]
    behind: list[set]
    colours: list[int]

    def refine(self) -> list[int]:
        """The colours of the layers and of those around them, as one."""

        def seen(around) -> tuple:
            return tuple(sorted(self.colours[j] if kind == "node" else hash((kind, j)) for kind, j in around))

        around = zip(self.colours, self.before, self.behind, strict=True)
        return [hash((colour, seen(before), seen(behind))) for colour, before, behind in around]


def pairs(first: Graph, second: Graph) -> tuple[list[tuple[str, str]], list[str]]:
    """Pair the weights of two graphs of the same layout.

    Args:
        first: One network.
        second: Another, which is thought to compute the same.

    Returns:
        The names of weights, of the first and the second; and a sentence for each kind of layers of which the two have
        not the same number.
    """
    flows = [flow(graph) for graph in (first, second)]
    while Counter(flows[0].colours) == Counter(flows[1].colours):
        finer = [one.refine() for one in flows]
        told_apart = len(set(finer[0])) > len(set(flows[0].colours))
        if not told_apart or Counter(finer[0]) != Counter(finer[1]):
            break
        for one, colours in zip(flows, finer, strict=True):
            one.colours = colours
    groups = [defaultdict(list), defaultdict(list)]
    for one, group in zip(flows, groups, strict=True):
        for colour, node in zip(one.colours, one.nodes, strict=True):
            group[colour].append(node)
    found, wrong = {}, []
    for colour in dict.fromkeys((*flows[0].colours, *flows[1].colours)):
        ours, theirs = (group[colour] for group in groups)
        if len(ours) != len(theirs):
            names = [", ".join(n.name or n.operator for n in side[:SHOWN]) or "nothing" for side in (ours, theirs)]
            wrong.append(f"{names[0]} here, {names[1]} there")
            continue
        for a, b in zip(ours, theirs, strict=True):
            for role, name in a.parameters.items():
                other = b.parameters[role]
                if found.setdefault(name, other) != other:
                    wrong.append(f"{name} is used again where the other network has {other} beside {found[name]}")
    return list(found.items()), wrong


def flow(graph: Graph) -> Flow:
    """Leave out of a network what has no weights; at first a layer's colour is its kind and shapes."""
    sources = {value.name: frozenset([("input", i)]) for i, value in enumerate(graph.inputs)}
    nodes, before = [], []
    for node in graph.nodes:
        read = frozenset().union(*(sources.get(value.name, frozenset()) for value in node.inputs[: reads(node)]))
        if node.parameters and node.operator != "constant":
            before.append(read)
            read = frozenset([("node", len(nodes))])
            nodes.append(node)
        sources |= {value.name: read for value in node.outputs}
    behind: list[set] = [set() for _ in nodes]
    ends = [("output", i, sources.get(value.name, ())) for i, value in enumerate(flatten(graph.outputs))]
    for what, i, read in [*(("node", i, read) for i, read in enumerate(before)), *ends]:
        for kind, j in read:
            if kind == "node":
                behind[j].add((what, i))
    shapes = [sorted((r, graph.parameters[p].value.shape) for r, p in node.parameters.items()) for node in nodes]
    return Flow(nodes, before, behind, [hash((n.operator, *held)) for n, held in zip(nodes, shapes, strict=True)])
