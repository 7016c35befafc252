"""Which tensors of a checkpoint are which of a model's, where the two have other names: by order, kind and shape.

What belongs to one layer has one name but for its end, `encoder.0.weight` and `encoder.0.bias`: together they are a
unit, and the ends and shapes of its tensors are its kind. Where the kinds of both sides are the same in the same order,
layer for layer, that is it. Else only a unit that is alone of its kind on both sides is paired: in a residual block the
last convolution and the one beside it may be of one kind, and projects list them in either order.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bridge.graph import BridgeError

END = re.compile(r"(?:(.*)[./])?([^./]+)", re.DOTALL)
ALONE, ORDER = "the only one of its kind", "by order"


@dataclass(frozen=True)
class Pair:
    """A tensor of the source and the one of the target that it fills, and how that is known."""

    source: str
    target: str
    how: str


@dataclass(frozen=True)
class Row:
    """A tensor of the source and what it fills: the names, the shapes, how it is rearranged, and how that is known."""

    source: str
    target: str
    transform: str
    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    how: str


@dataclass
class Plan:
    """What is to be filled from what.

    Attributes:
        rows: Gives a line for each tensor.
        notes: What cannot be known.
        fill: Does it, all or nothing.
    """

    rows: Callable[[], list[Row]]
    fill: Callable[[], None]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Unit:
    """The tensors of a layer: the ends of their names, their names and shapes."""

    name: str
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]

    @property
    def kind(self) -> tuple:
        """What units have in common that may be of one another: the ends of the names, and the shapes."""
        return tuple(sorted((end, shape) for end, _, shape in self.tensors))


def units(shapes: Mapping[str, tuple[int, ...]]) -> list[Unit]:
    """Put the tensors of each layer together, in the order in which the layers come first."""
    found = defaultdict(list)
    for name, shape in shapes.items():
        above, end = END.fullmatch(name).groups()
        found[above or ""].append((end, name, tuple(shape)))
    return [Unit(name, tuple(tensors)) for name, tensors in found.items()]


def match(
    source: Mapping[str, tuple[int, ...]], target: Mapping[str, tuple[int, ...]]
) -> tuple[list[Pair], list[str], list[str]]:
    """Pair the tensors of two sides.

    Args:
        source: The shapes of a checkpoint's tensors by name, in the order of its layers.
        target: Those of a model's, with the same axes.

    Returns:
        The pairs; and the names and shapes of what of the source and what of the target has none.
    """
    theirs, ours = units(source), units(target)
    groups = [grouped(theirs), grouped(ours)]
    alone = {kind for kind in groups[1] if all(len(group.get(kind, [])) == 1 for group in groups)}
    if [unit.kind for unit in ours] == [unit.kind for unit in theirs]:
        both = list(zip(theirs, ours, strict=True))
    else:
        both = [(groups[0][unit.kind][0], unit) for unit in ours if unit.kind in alone]
    pairs = []
    for a, b in both:
        names = {end: name for end, name, _ in a.tensors}
        how = ALONE if b.kind in alone else ORDER
        pairs += [Pair(names[end], name, how) for end, name, _ in b.tensors]
    taken = {pair.source for pair in pairs}, {pair.target for pair in pairs}
    left = [
        [f"{name} {tuple(shape)}" for name, shape in side.items() if name not in done]
        for side, done in zip((source, target), taken, strict=True)
    ]
    return pairs, *left


def renamed(kind: str, arrays: Mapping, shapes: Mapping[str, tuple[int, ...]], beside: set[str]):
    """Give arrays of other names those that are expected, or nothing.

    Args:
        kind: What the target is called.
        arrays: By the names of the source, in the order of its layers.
        shapes: Those that are expected, by name, in the order of the target's layers.
        beside: Ends of names that are no weights, and need no place.

    Returns:
        The arrays by the names that are expected; and the pairs.

    Raises:
        BridgeError: Lists all that has no counterpart, on either side.
    """
    source = {name: tuple(array.shape) for name, array in arrays.items() if end(name) not in beside}
    pairs, left, missing = match(source, shapes)
    if left or missing:
        raise BridgeError(
            f"the names in the state dict are not those of {kind}, and order, kind and shape of the layers do not say "
            f"which is which: give a table of names, or its module\n  - without a place: {', '.join(left) or 'nothing'}"
            f"\n  - not filled: {', '.join(missing) or 'nothing'}"
        )
    return {pair.target: arrays[pair.source] for pair in pairs}, pairs


def end(name: str) -> str:
    """The end of a name, behind the layer's."""
    return END.fullmatch(name)[2]


def grouped(some: list[Unit]) -> dict[tuple, list[Unit]]:
    """The units of each kind."""
    found = defaultdict(list)
    for unit in some:
        found[unit.kind].append(unit)
    return dict(found)
