"""Finding, for each node of one graph, the same node of another: no names are needed, only the structure.

Two nodes are the same if they have the same operator and read the same tensors. Where several do (the branches
of an Inception block), names, attributes and shapes decide.
"""

import re
from dataclasses import dataclass

import numpy as np

from bridge.graph import Graph, Node, flatten

COMMUTATIVE = ("add", "multiply", "maximum", "minimum")


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
    sentences = []
    if len(first.inputs) != len(second.inputs):
        return [], [f"Keras takes {len(first.inputs)} input(s), torch {len(second.inputs)}"]
    image = {a.name: b.name for a, b in zip(first.inputs, second.inputs, strict=True)}
    open_nodes: dict[tuple, list[Node]] = {}
    for node in second.nodes:
        open_nodes.setdefault(_key(node, [v.name for v in node.inputs]), []).append(node)
    pairs, previous = [], "the input"
    for node in first.nodes:
        label = node.name or f"{previous} + {node.attributes.get('function', node.operator)}"
        previous = node.name or previous
        read = [image.get(v.name) for v in node.inputs]
        if None in read:
            continue
        candidates = open_nodes.get(_key(node, read), [])
        if not candidates:
            sentences.append(f"{label} ({node.operator}) has no counterpart in the torch module")
            continue
        best = max(candidates, key=lambda m: _likeness(node, m, first, second)) if candidates[1:] else candidates[0]
        candidates.remove(best)
        image.update(zip((v.name for v in node.outputs), (v.name for v in best.outputs), strict=False))
        pairs.append(Pair(node, best, label))
    if not sentences:
        sentences += [
            f"{n.name or n.operator} ({n.operator}) of the torch module has no counterpart in Keras"
            for rest in open_nodes.values()
            for n in rest
        ]
        ours, theirs = list(flatten(first.outputs)), list(flatten(second.outputs))
        if [image.get(v.name) for v in ours] != [v.name for v in theirs]:
            sentences.append(
                f"the outputs are not the same tensors: Keras returns {[v.source or v.name for v in ours]}, "
                f"torch {[v.source or v.name for v in theirs]}"
            )
        sentences += _other_keys(first.outputs, second.outputs)
    return pairs, sentences


def _key(node: Node, read: list[str]) -> tuple:
    """What a node does to which tensors; `a + b` and `b + a` are the same to the last bit."""
    return (node.operator, *(sorted(read) if node.operator in COMMUTATIVE else read))


def _other_keys(a, b) -> list[str]:
    """A sentence for each dictionary of outputs that has other keys on the other side."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"the outputs have other keys: {sorted(a)} in Keras, {sorted(b)} in torch"]
        return [s for k in a for s in _other_keys(a[k], b[k])]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return [s for x, y in zip(a, b, strict=False) for s in _other_keys(x, y)]
    return []


def _likeness(a: Node, b: Node, first: Graph, second: Graph) -> tuple:
    same_name = bool(a.name) and _plain(a.name) == _plain(b.name)
    same = sum(_equal(v, b.attributes.get(k)) for k, v in a.attributes.items())
    arrays = [
        (first.parameters[n].value, second.parameters[b.parameters[r]].value)
        for r, n in a.parameters.items()
        if r in b.parameters
    ]
    shapes = sum(x.shape == y.shape for x, y in arrays)
    weights = sum(np.array_equal(x, y) for x, y in arrays)
    return same_name, shapes, weights, same


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
        for key in a.attributes.keys() | b.attributes.keys():
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
            elif not np.array_equal(mine.value, theirs.value):
                worst = np.abs(mine.value.astype("float64") - theirs.value.astype("float64")).max()
                found.append(f"{pair.label}.{role}: the weights differ by up to {worst:.1e}")
            if mine.trainable != theirs.trainable:
                found.append(
                    f"{pair.label}.{role}: {'trained' if mine.trainable else 'frozen'} in Keras, "
                    f"{'trained' if theirs.trainable else 'frozen'} in torch"
                )
    return list(dict.fromkeys(found)) + _sharing(pairs)


def _sharing(pairs: list[Pair]) -> list[str]:
    """A sentence for each weight that is one on one side and several, however equal, on the other."""
    theirs: dict[str, set[str]] = {}
    mine: dict[str, set[str]] = {}
    for pair in pairs:
        for role in pair.keras.parameters.keys() & pair.torch.parameters.keys():
            a, b = pair.keras.parameters[role], pair.torch.parameters[role]
            theirs.setdefault(a, set()).add(b)
            mine.setdefault(b, set()).add(a)
    return [
        f"the sharing differs: {one} is one weight in {here}, {len(several)} in {there}: {', '.join(sorted(several))}"
        for here, there, found in (("Keras", "torch", theirs), ("torch", "Keras", mine))
        for one, several in found.items()
        if len(several) > 1
    ]
