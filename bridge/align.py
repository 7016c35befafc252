"""Finding, for each node of one graph, the same node of another: no names are needed, only the structure.

Two nodes are the same if they have the same operator and read the same tensors. Where several do (the branches
of an Inception block), names, what becomes of their outputs, attributes and weights decide. What is computed twice
from the same tensors, without weights, counts once, however often either side writes it down.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from bridge import rules
from bridge.graph import Graph, Node, flatten, map_structure


@dataclass
class Pair:
    """The same operator on both sides, under the name that people know it by."""

    keras: Node
    torch: Node
    label: str


def align(first: Graph, second: Graph) -> tuple[list[Pair], list[str]]:
    """Align two graphs of the same layout.

    Args:
        first: The Keras model's graph.
        second: The torch module's graph.

    Returns:
        The pairs, in the first graph's order, and a sentence for each place where the structures part; what
        follows from such a place is not listed again.
    """
    if len(first.inputs) != len(second.inputs):
        return [], [f"Keras takes {len(first.inputs)} input(s), torch {len(second.inputs)}"]
    first, second = _without_repeats(first), _without_repeats(second)
    image = {a.name: b.name for a, b in zip(first.inputs, second.inputs, strict=True)}
    ours, theirs = _by_key(first), _by_key(second)
    fates = _fates(first), _fates(second)
    counterparts: dict[int, Node] = {}  # id of a node of the first graph -> the node of the second
    taken: set[int] = set()  # ids of those
    sentences, pairs, previous = [], [], "the input"
    for node in first.nodes:
        label = node.name or f"{previous} + {node.attributes.get('function', node.operator)}"
        previous = node.name or previous
        read = [image.get(v.name) for v in node.inputs]
        if None in read[: reads(node)]:
            continue
        rivals = ours.pop(_place(node, [v.name for v in node.inputs]), [])
        options = list(product(rivals, theirs.get(_place(node, read), [])))
        if options[1:]:
            options.sort(key=lambda two: _likeness(*two, first, second, fates), reverse=True)
        for a, b in options:
            if id(a) not in counterparts and id(b) not in taken:
                counterparts[id(a)] = b
                taken.add(id(b))
        if id(node) not in counterparts and _repeatable(node):  # what one side makes of sizes of two tensors, say
            others = theirs.get(_place(node, read), [])
            again = [b for b in others if not reads(node) or (_same(node, b) and read == [v.name for v in b.inputs])]
            if again:
                counterparts[id(node)] = max(again, key=lambda b: _likeness(node, b, first, second, fates))
        if id(node) not in counterparts:
            sentences.append((f"{label} ({node.operator}) has no counterpart in the torch module", read))
            continue
        best = counterparts[id(node)]
        image.update(zip((v.name for v in node.outputs), (v.name for v in best.outputs), strict=False))
        pairs.append(Pair(node, best, label))
    rest = [n for n in second.nodes if id(n) not in taken and (reads(n) or not n.inputs)]
    if sentences:
        return pairs, [sentence + _instead(rest, read) for sentence, read in sentences]
    parted = [f"{n.name or n.operator} ({n.operator}) of the torch module has no counterpart in Keras" for n in rest]
    ours, theirs = list(flatten(first.outputs)), list(flatten(second.outputs))
    if [image.get(v.name) for v in ours] != [v.name for v in theirs]:
        parted.append(
            f"the outputs are not the same tensors: Keras returns {[v.source or v.name for v in ours]}, "
            f"torch {[v.source or v.name for v in theirs]}"
        )
    return pairs, parted + _other_keys(first.outputs, second.outputs)


def _instead(rest: list[Node], read: list[str]) -> str:
    """What the torch module does, and Keras does not, with the same tensors."""
    there = [n for n in rest if any(v.name in read for v in n.inputs)]
    names = [f"{n.name} ({n.operator})" if n.name else n.attributes.get("function", n.operator) for n in there]
    return f", which has {', '.join(names)} there" if names else ""


def _without_repeats(graph: Graph) -> Graph:
    """Leave out what is computed a second time from the same tensors, unless it has weights or is random."""
    same, kept = {}, {}
    nodes = []
    for node in graph.nodes:
        node = replace(node, inputs=[same.get(v.name, v) for v in node.inputs])
        held = sorted(node.parameters.items()) if node.operator == "parameter" else []  # which flows as it is held
        key = (*_key(node, [v.name for v in node.inputs]), repr([*sorted(node.attributes.items()), *held]))
        earlier = kept.setdefault(key, node)
        if earlier is node or not (held or _repeatable(node)):
            nodes.append(node)
        else:
            same.update(zip((v.name for v in node.outputs), earlier.outputs, strict=True))
    return replace(graph, nodes=nodes, outputs=map_structure(lambda v: same.get(v.name, v), graph.outputs))


def _repeatable(node: Node) -> bool:
    """Tell whether a node makes the same of the same tensors wherever it stands."""
    return not node.parameters and not getattr(rules.for_operator(node.operator), "RANDOM", False)


def _same(a: Node, b: Node) -> bool:
    keys = a.attributes.keys()
    return not b.parameters and keys == b.attributes.keys() and all(_equal(a[k], b[k]) for k in keys)


def _by_key(graph: Graph) -> dict[tuple, list[Node]]:
    """The nodes that do the same kind of thing to the same tensors."""
    found = defaultdict(list)
    for node in graph.nodes:
        found[_place(node, [v.name for v in node.inputs])].append(node)
    return found


def _measures(node: Node) -> bool:
    """Tell whether a node reads no more of some inputs than sizes, which other tensors may have, too."""
    return reads(node) < len(node.inputs)


def reads(node: Node) -> int:
    """How many of a node's inputs are read, and not only measured."""
    return getattr(rules.for_operator(node.operator), "READS", lambda n: len(n.inputs))(node)


def _place(node: Node, read: list[str]) -> tuple:
    """What a node does to which tensors; where it reads sizes alone, the numbers tell whether these are right."""
    return (*_key(node, read[: reads(node)]), node.outputs[0].rank)


def _fates(graph: Graph) -> dict[str, int]:
    """A number for each value that says what becomes of it, to the end: the same number, the same fate."""
    ends = [v.name for v in flatten(graph.outputs)]
    readers = graph.consumers()
    fates: dict[str, int] = {}
    for node in reversed(graph.nodes):
        for value in node.outputs:
            uses = [hash(("output", i)) for i, name in enumerate(ends) if name == value.name]
            for reader in readers.get(value.name, []):
                places = [i for i, v in enumerate(reader.inputs) if v.name == value.name]
                what = repr(sorted(reader.attributes.items()))
                further = tuple(fates[v.name] for v in reader.outputs)
                uses.append(hash((reader.operator, what, () if _commutes(reader) else tuple(places), further)))
            fates[value.name] = hash(tuple(sorted(uses)))
    return fates


def _key(node: Node, read: list[str]) -> tuple:
    """What a node does to which tensors; `a + b` and `b + a` are the same to the last bit."""
    return (node.operator, *(sorted(read) if _commutes(node) else read))


def _commutes(node: Node) -> bool:
    return node.operator in getattr(rules.for_operator(node.operator), "COMMUTATIVE", ())


def _other_keys(a, b) -> list[str]:
    """A sentence for each dictionary of outputs that has other keys on the other side."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"the outputs have other keys: {sorted(a)} in Keras, {sorted(b)} in torch"]
        return [s for k in a for s in _other_keys(a[k], b[k])]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return [s for x, y in zip(a, b, strict=False) for s in _other_keys(x, y)]
    return []


def _likeness(a: Node, b: Node, first: Graph, second: Graph, fates) -> tuple:
    same_name = bool(a.name) and _plain(a.name) == _plain(b.name)
    same_fate = fates[0][a.outputs[0].name] == fates[1][b.outputs[0].name]
    same = sum(_equal(v, b.attributes.get(k)) for k, v in a.attributes.items())
    arrays = [
        (first.parameters[n].value, second.parameters[b.parameters[r]].value)
        for r, n in a.parameters.items()
        if r in b.parameters
    ]
    shapes = sum(x.shape == y.shape for x, y in arrays)
    weights = sum(np.array_equal(x, y) for x, y in arrays)
    return same_name, shapes, same_fate, weights, same


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]+", "_", name.lower())


def _equal(a, b) -> bool:
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, float) or isinstance(b, float):
        return (
            isinstance(a, (int, float))
            and isinstance(b, (int, float))
            and bool(np.isclose(a, b, rtol=1e-6, atol=1e-12))
        )
    return a == b


def differences(pairs: list[Pair], first: Graph, second: Graph) -> list[str]:
    """Compare aligned nodes as data: settings, weights bit for bit, and what is trained.

    Returns:
        A sentence for each difference.
    """
    found = []
    for pair in pairs:
        a, b = pair.keras, pair.torch
        for key in a.attributes.keys() | b.attributes.keys() if not (_measures(a) or _measures(b)) else ("kind",):
            mine, theirs = a.attributes.get(key), b.attributes.get(key)
            if not _equal(mine, theirs):
                found.append(f"{pair.label}: {key} is {mine} in Keras and {theirs} in torch")
        for role in a.parameters.keys() | b.parameters.keys():
            if role not in a.parameters or role not in b.parameters:
                found.append(f"{pair.label}: only {'Keras' if role in a.parameters else 'torch'} has a {role}")
                continue
            mine, theirs = first.parameters[a.parameters[role]], second.parameters[b.parameters[role]]
            if mine.value.shape != theirs.value.shape:
                found.append(
                    f"{pair.label}.{role}: shape {mine.value.shape} in Keras and {theirs.value.shape} in torch"
                )
            elif not np.array_equal(mine.value, theirs.value, equal_nan="float" in mine.value.dtype.name):
                worst = np.abs(mine.value.astype("float64") - theirs.value.astype("float64")).max()
                found.append(f"{pair.label}.{role}: the weights differ by up to {worst:.1e}")
            if mine.trainable != theirs.trainable:
                found.append(
                    f"{pair.label}.{role}: {'trained' if mine.trainable else 'frozen'} in Keras, "
                    f"{'trained' if theirs.trainable else 'frozen'} in torch"
                )
    return list(dict.fromkeys(found)) + _sharing(pairs)


def _sharing(pairs: list[Pair]) -> list[str]:
    """A sentence for each weight but constants that is one on one side and several, however equal, on the other."""
    theirs: dict[str, set[str]] = {}
    mine: dict[str, set[str]] = {}
    for pair in pairs:
        constant = getattr(rules.for_operator(pair.keras.operator), "BUFFERS", ())
        for role in (pair.keras.parameters.keys() & pair.torch.parameters.keys()) - set(constant):
            a, b = pair.keras.parameters[role], pair.torch.parameters[role]
            theirs.setdefault(a, set()).add(b)
            mine.setdefault(b, set()).add(a)
    return [
        f"the sharing differs: {one} is one weight in {here}, {len(several)} in {there}: {', '.join(sorted(several))}"
        for here, there, found in (("Keras", "torch", theirs), ("torch", "Keras", mine))
        for one, several in found.items()
        if len(several) > 1
    ]
