"""Does a converted model hold at other sizes of its open axes than those of the examples?

torch.export writes down the one way that Python went at the examples' sizes. Where it had to ask for a size to do so,
other sizes may go another way, and what it has fixed in silence may, too. Numbers tell: both sides are run there.
"""

from collections.abc import Iterator

import numpy as np
import torch

from bridge.comparison import copied, distance, said
from bridge.graph import BridgeError, Graph, flatten

ROUNDING = 10  # times torch's own distance between float32 and float64, ...
FLOOR = 1e-5  # ... which by luck may be small
MOST = 8  # decisions that are tried the other way, for each axis
Axes = list[tuple[int, int]]  # the number of an input, an axis of it


def refuse(module: torch.nn.Module, model, graph: Graph, examples: tuple, fixed: Axes) -> None:
    """Refuse a model of open sizes that torch.export has fixed, unless it computes the same at others, too."""
    tensors = examples
    for i, a in fixed:
        tensors = _resized(tensors, [(i, a)], tensors[i].shape[a] + 1)
    try:
        reason = _difference(module, model, graph, tensors, _run(module, tensors))
    except Exception as e:  # as the user's own code fails
        reason = said(e)
    if reason:
        sizes = ", ".join(f"axis {a} of input {i} at {examples[i].shape[a]}" for i, a in fixed)
        raise BridgeError(
            f"{type(module).__name__} fixes sizes that are to stay open: {sizes}. One more was tried, and there is "
            f"{reason}. Compute with x.shape where it has numbers, or name the open axes of each input: "
            f"dynamic={_others(examples, fixed)} lets these be fixed"
        )


def _others(examples: tuple, fixed: Axes) -> list[set[int]]:
    """The batch of each input, but what is fixed."""
    return [{0} - {a for n, a in fixed if n == i} for i in range(len(examples))]


def notes(module, model, graph: Graph, examples: tuple, dynamic: list[set[int]], program) -> list[str]:
    """For each open axis a sentence on the nearest size where a decision is another and the model not the module."""
    found: dict[tuple[int, int], str] = {}
    for axes, size in _undecided(program, examples, dynamic):
        if axes[0] in found:
            continue
        tensors = _resized(examples, axes, size)
        try:
            wanted = _run(module, tensors)
        except Exception:  # not a size for this module
            continue
        if reason := _difference(module, model, graph, tensors, wanted):
            found[axes[0]] = (
                f"{type(module).__name__} goes another way for inputs of shape "
                f"{', '.join(str(tuple(x.shape)) for x in tensors)} than for the example inputs, whose way the Keras "
                f"model goes: there is {reason}"
            )
    return list(found.values())


def _undecided(program, examples: tuple, dynamic: list[set[int]]) -> Iterator[tuple[Axes, int]]:
    """For each decision about the size of an axis the nearest that turns it; the batches change together."""
    guards = getattr(program.module(), "_guards_fn", None)
    batches = [(i, 0) for i, axes in enumerate(dynamic) if 0 in axes]
    others = [[(i, a)] for i, axes in enumerate(dynamic) for a in sorted(axes) if a]
    for axes in filter(None, [batches, *others] if guards else []):
        given = examples[axes[0][0]].shape[axes[0][1]]
        turned: dict[str, int] = {}
        for size in sorted(range(1, 2 * given + 2), key=lambda n: abs(n - given)):
            try:
                guards(*(torch.empty_like(x, device="meta") for x in _resized(examples, axes, size)))
            except Exception as e:  # torch says which decision it is
                turned.setdefault(str(e), size)
        yield from ((axes, size) for size in list(turned.values())[:MOST])


def _resized(tensors: tuple, axes: Axes, size: int) -> tuple:
    """The tensors with another size of some axes; what there is comes round again."""
    made = list(tensors)
    for i, a in axes:
        made[i] = made[i].index_select(a, torch.arange(size) % made[i].shape[a])
    return tuple(made)


def _run(module: torch.nn.Module, tensors: tuple) -> list[np.ndarray]:
    training = {m: m.training for m in module.modules()}
    try:
        with torch.no_grad():
            return [y.numpy() for y in flatten(module.eval()(*tensors))]
    finally:
        for m, flag in training.items():
            m.training = flag


def _limit(module: torch.nn.Module, tensors: tuple, wanted: list[np.ndarray]) -> float:
    """What of a module's outputs may be rounding, relative to the largest value."""
    double = tuple(x.double() if x.is_floating_point() else x for x in tensors)
    try:
        exact = _run(copied(module, torch.float64), double)
    except Exception:  # it makes tensors of float32 by itself
        return 0.0
    return max(ROUNDING * distance(have, want) for have, want in zip(wanted, exact, strict=True))


def _difference(module, model, graph: Graph, tensors: tuple, wanted: list[np.ndarray]) -> str:
    """In what a model is not the module: an error of a layer of Keras, or other numbers."""
    arrays = [x.numpy().transpose(v.order) for x, v in zip(tensors, graph.inputs, strict=True)]
    try:
        made = flatten(model(arrays if len(arrays) > 1 else arrays[0], training=False))
    except Exception as e:
        return said(e)
    orders = [v.order for v in flatten(graph.outputs)]
    pairs = list(zip(made, wanted, orders, strict=True))
    if any(want.ndim != len(order) for _, want, order in pairs):
        return "another number of axes"
    error = max(distance(np.asarray(have), want.transpose(order)) for have, want, order in pairs)
    small = error <= FLOOR or error <= _limit(module, tensors, wanted)
    return "" if small else f"a difference of {error:.1e}"
