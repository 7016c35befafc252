"""Which weights of two networks are the same where their operations are not: by kind, shape and what flows into what.

Two networks may compute the same and be written otherwise: a padding beside a pooling or in it, a concatenation or an
addition of slices. What has weights is there on both sides, and reads what comes from the same others. So only these
layers are looked at: each is told by its kind and shapes, then by those before and behind it, as far as the two
networks agree (Weisfeiler & Lehman, 1968). Layers that are still alike, such as the query and the key of an attention,
are paired in their order; whether that is right, only running both can tell.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import permutations

from bridge.align import reads
from bridge.graph import Graph, Node, flatten

SHOWN = 20  # names of layers in a sentence


@dataclass
class Layer:
    """A layer with weights, or a part of one: its operator, and for each role the weight's name and shape."""

    name: str
    operator: str
    weights: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def kind(self) -> int:
        """What layers have in common that may be of one another."""
        return hash((self.operator, *sorted((role, shape) for role, (_, shape) in self.weights.items())))


@dataclass
class Flow:
    """The layers of a network that have weights, by number, and what is before and behind each.

    What is around a layer is a set of ("node", number), ("input", number) and ("output", number).
    """

    layers: list[Layer]
    before: list[frozenset]
    behind: list[set]
    colours: list[int]

    def refine(self) -> list[int]:
        """The colours of the layers and of those around them, as one."""

        def seen(around) -> tuple:
            return tuple(sorted(self.colours[j] if kind == "node" else hash((kind, j)) for kind, j in around))

        around = zip(self.colours, self.before, self.behind, strict=True)
        return [hash((colour, seen(before), seen(behind))) for colour, before, behind in around]


def pairs(first: Graph, second: Graph, order: tuple[int, ...] = ()) -> tuple[list[tuple[str, str]], list[str]]:
    """Pair the weights of two graphs of the same layout.

    Args:
        first: One network.
        second: Another, which is thought to compute the same.
        order: How the second's layers are put where as many are alike, one of `orders`; by default as they come.

    Returns:
        The names of weights, of the first and the second; and a sentence for each kind of layers of which the two have
        not the same number.
    """
    groups = _groups(first, second)
    found, wrong = {}, []
    for ours, theirs in groups:
        if len(ours) != len(theirs):
            names = [", ".join(one.name for one in side[:SHOWN]) or "nothing" for side in (ours, theirs)]
            wrong.append(f"{names[0]} here, {names[1]} there")
            continue
        theirs = [theirs[i] for i in order] if len(theirs) == len(order) else theirs
        for a, b in zip(ours, theirs, strict=True):
            for role, (name, _) in a.weights.items():
                other = b.weights[role][0]
                if found.setdefault(name, other) != other:
                    wrong.append(f"{name} is used again where the other network has {other} beside {found[name]}")
    return list(found.items()), wrong


def orders(first: Graph, second: Graph) -> list[tuple[int, ...]]:
    """The orders in which layers that are alike may be tried, the same for all of which there are as many."""
    sizes = {len(ours) for ours, theirs in _groups(first, second) if len(ours) == len(theirs)}
    return [order for n in sorted(sizes & {2, 3, 4}) for order in permutations(range(n)) if order != tuple(range(n))]


def _groups(first: Graph, second: Graph) -> list[tuple[list[Layer], list[Layer]]]:
    """The layers of both that nothing tells apart; Dense layers are taken in parts if it is these that correspond."""
    for in_parts in (False, True):
        flows = [flow(graph, in_parts) for graph in (first, second)]
        while Counter(flows[0].colours) == Counter(flows[1].colours):
            finer = [one.refine() for one in flows]
            told_apart = len(set(finer[0])) > len(set(flows[0].colours))
            if not told_apart or Counter(finer[0]) != Counter(finer[1]):
                break
            for one, colours in zip(flows, finer, strict=True):
                one.colours = colours
        sides = [defaultdict(list), defaultdict(list)]
        for one, side in zip(flows, sides, strict=True):
            for colour, layer in zip(one.colours, one.layers, strict=True):
                side[colour].append(layer)
        found = [tuple(side[c] for side in sides) for c in dict.fromkeys((*flows[0].colours, *flows[1].colours))]
        if not in_parts:
            whole = found
        if all(len(ours) == len(theirs) for ours, theirs in found):
            return found
    return whole


def flow(graph: Graph, in_parts: bool = False) -> Flow:
    """Leave out of a network what has no weights; at first a layer's colour is its kind.

    Args:
        graph: The network.
        in_parts: A Dense layer that is cut up at once, into query, key and value, counts as several.
    """
    sources = {value.name: frozenset([("input", i)]) for i, value in enumerate(graph.inputs)}
    readers = graph.consumers()
    layers, before = [], []
    for node in graph.nodes:
        if all(value.name in sources for value in node.outputs):
            continue  # a part of the layer before
        read = frozenset().union(*(sources.get(value.name, frozenset()) for value in node.inputs[: reads(node)]))
        if not node.parameters or node.operator == "constant":
            sources |= {value.name: read for value in node.outputs}
            continue
        for layer, values in _layers(node, graph, readers if in_parts else {}):
            sources |= {value.name: frozenset([("node", len(layers))]) for value in values}
            layers.append(layer)
            before.append(read)
    behind: list[set] = [set() for _ in layers]
    ends = [("output", i, sources.get(value.name, ())) for i, value in enumerate(flatten(graph.outputs))]
    for what, i, read in [*(("node", i, read) for i, read in enumerate(before)), *ends]:
        for kind, j in read:
            if kind == "node":
                behind[j].add((what, i))
    return Flow(layers, before, behind, [layer.kind for layer in layers])


def _layers(node: Node, graph: Graph, readers: dict[str, list[Node]]) -> list[tuple[Layer, list]]:
    """A layer and what it makes; of a Dense layer whose readers all cut it up, a layer for each part."""
    shapes = {role: (name, graph.parameters[name].value.shape) for role, name in node.parameters.items()}
    name, made = node.name or node.operator, node.outputs
    cuts = [reader for reader in readers.get(made[0].name, []) if reader.operator == "slice"]
    axis = made[0].rank - 1
    same = [(cut["start"], cut["stop"]) for cut in cuts if (cut["axis"], cut["step"]) == (axis, 1)]
    same = sorted((start or 0, made[0].shape[-1] if stop is None else stop) for start, stop in same)
    whole = [n for part in same for n in part]
    if (
        node.operator != "dense"
        or len(same) < 2
        or len(same) != len(readers[made[0].name])
        or any("[" in held for held in node.parameters.values())
        or whole[1:-1:2] != whole[2::2]
        or (whole[0], whole[-1]) != (0, made[0].shape[-1])
    ):
        return [(Layer(name, node.operator, shapes), made)]
    parts = []
    for start, stop in same:
        weights = {
            role: (f"{held}[{start}:{stop}]", (*shape[:-1], stop - start)) for role, (held, shape) in shapes.items()
        }
        values = [cut.outputs[0] for cut in cuts if (cut["start"] or 0) == start]
        parts.append((Layer(f"{name}[{start}:{stop}]", node.operator, weights), values))
    return parts
