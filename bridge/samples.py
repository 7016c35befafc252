"""What goes into a comparison: arrays for the inputs of a model, of a size that it takes."""

import itertools
import math
from collections.abc import Iterator

import keras
import numpy as np

from bridge import rules, walk
from bridge.graph import BridgeError, Graph, Node, Value
from bridge.models import SIZES

BATCH = 3
LARGEST = 2**30  # values of a tensor, 4 GiB; a configuration can ask for any size
Sizes = dict[tuple[int, int], int]  # (number of an input, axis) -> the size of an open axis
FEW = 6  # open axes, of which any may be the batch


def sample(graph: Graph, size: int, batch: int = BATCH, seed: int = 0, given: Sizes | None = None) -> list[np.ndarray]:
    """Make random arrays for the inputs of a graph: normal numbers, or whole ones that it can take as an index.

    Args:
        graph: Of either framework.
        size: Of open axes but the first, which is the batch.
        batch: Of that.
        seed: Of the numbers.
        given: The sizes of all open axes, where they are others.
    """
    rng = np.random.default_rng(seed)
    sizes = given or {(n, a): size if a else batch for n, a in _opened(graph)}
    shapes = [[d or sizes[n, a] for a, d in enumerate(v.shape)] for n, v in enumerate(graph.inputs)]
    whole = [v.dtype.startswith(("int", "uint", "bool")) for v in graph.inputs]
    below = [_below(v, graph.consumers()) or 4 * is_whole for v, is_whole in zip(graph.inputs, whole, strict=True)]
    found = []
    for shape, value, n in zip(shapes, graph.inputs, below, strict=True):
        among = _among(value, graph)
        numbers = rng.normal(size=shape) if not n else rng.integers(0, n, shape)
        found.append((numbers if among is None else rng.choice(among, shape)).astype(value.dtype))
    return found


def _among(value: Value, graph: Graph) -> np.ndarray | None:
    """Numbers of which an operator that reads a tensor makes something else each, if one says such."""
    for node in graph.consumers().get(value.name, []):
        if say := getattr(rules.for_operator(node.operator), "AMONG", None):
            return say(node, graph.parameters)
        if node.operator == "cast" and (found := _among(node.outputs[0], graph)) is not None:
            return found
    return None


def _below(value: Value, readers: dict[str, list[Node]]) -> int:
    """What the whole numbers of a tensor must be below, for the tables that they are an index of; 0 if for none."""
    found = [np.iinfo(value.dtype).max + 1] if value.dtype in ("uint8", "int8") else []
    for node in readers.get(value.name, []):
        limit = getattr(rules.for_operator(node.operator), "BELOW", None)
        if limit and "int" in value.dtype:  # not what an index is of
            found.append(limit(node))
        elif len(node.inputs) == 1 and all("int" in v.dtype for v in node.outputs):
            found.append(_below(node.outputs[0], readers))
    return min(filter(None, found), default=0)


def inputs_of(model, graph: Graph, given=None) -> list[np.ndarray]:
    """Return the user's own arrays for a model, checked, or random ones of the first size that the model takes."""
    if given is not None:
        arrays = [np.asarray(x) for x in keras.tree.flatten(given)]
        wanted = [v.shape for v in graph.inputs]
        fits = len(arrays) == len(wanted) and all(
            a.ndim == len(w) and all(d in (None, n) for n, d in zip(a.shape, w, strict=True))
            for a, w in zip(arrays, wanted, strict=True)
        )
        if not fits:
            raise BridgeError(f"{model.name} takes inputs of shape {wanted}. Received: {[a.shape for a in arrays]}")
        return [
            a.astype(v.dtype) if v.dtype.startswith("float") else a for a, v in zip(arrays, graph.inputs, strict=True)
        ]
    for value in (*graph.inputs, *(v for n in graph.nodes for v in n.outputs)):
        if math.prod(d or (SIZES[0] if i else BATCH) for i, d in enumerate(value.shape)) > LARGEST:
            raise BridgeError(
                f"{model.name} has a tensor of shape {value.shape} at {value.name}, which is too large to compare. "
                "Pass smaller `inputs`, or convert without a comparison (--no-verify)"
            )
    # of a table that is cut to the size of an input, torch.export takes its own size for the only one
    held = {n for node in graph.nodes if not node.inputs for n in node.outputs[0].shape}
    batch = _batch(graph)
    plain = (
        dict.fromkeys(_opened(graph), size) | _first(graph, batch) for size in sorted(SIZES, key=held.__contains__)
    )
    for sizes in itertools.chain(_apart(graph, batch), plain, _other_batches(graph, batch)):
        arrays = sample(graph, 0, given=sizes)
        try:
            one = arrays[1:] == [] and graph.inputs[0].shape[:1] == (None,)  # several may not be of the same batch
            walk.run(model, [arrays[0][:1]] if one else arrays)
            return arrays
        except Exception as e:  # a size that does not fit fails in as many ways as there are layers
            error = e
    raise BridgeError(
        f"{model.name} takes none of the sizes {SIZES} in its open axes: pass `inputs`. The last try said: {error}"
    )


def _batch(graph: Graph) -> int:
    """A size of the batch by which Keras does not take what has a number for each example for a bias of an axis."""
    sums = [
        n.inputs[0].shape for n in graph.nodes if n.operator == "add" and len(n.inputs) == 2 and n.inputs[0].rank > 1
    ]
    taken = {n for shape in sums for n in (shape[1], shape[-1])}
    return next(n for n in (BATCH, 2, *range(4, 99)) if n not in taken)


def _opened(graph: Graph) -> list[tuple[int, int]]:
    return [(n, a) for n, v in enumerate(graph.inputs) for a, d in enumerate(v.shape) if d is None]


def _first(graph: Graph, batch: int) -> Sizes:
    """The batch, where it is the first axis."""
    return {(n, a): batch for n, a in _opened(graph) if not a}


def _apart(graph: Graph, batch: int) -> Iterator[Sizes]:
    """Another size for each open axis, or for each of one input: what is swapped shows."""
    axes = [(n, a) for n, a in _opened(graph) if a]
    for names in (axes, [a for _, a in axes]):
        order = list(dict.fromkeys(names))
        if len(order) > 1:
            yield _first(graph, batch) | {
                axis: SIZES[0] + 2 * order.index(name) for axis, name in zip(axes, names, strict=True)
            }


def _other_batches(graph: Graph, batch: int) -> Iterator[Sizes]:
    """The ways in which the batch may be other axes than the first, as in the states of a network of torch's."""
    opened = _opened(graph)
    for count in range(1, len(opened) + 1) if len(opened) <= FEW else ():
        for batches in itertools.combinations(opened, count):
            yield dict.fromkeys(opened, SIZES[0]) | dict.fromkeys(batches, batch)


def check_layouts(graph: Graph, layouts: dict[str, tuple[int, ...]]) -> None:
    """Refuse orders of axes that the inputs do not have."""
    ranks = {v.name: v.rank for v in graph.inputs}
    for name, order in layouts.items():
        if name not in ranks:
            raise BridgeError(f"layouts names the input {name!r}; the inputs are {sorted(ranks)}")
        if sorted(order) != list(range(ranks[name])):
            raise BridgeError(f"layouts[{name!r}] must be a permutation of {ranks[name]} axes. Received: {order}")
