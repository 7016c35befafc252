"""Tensors joined, cut and turned, by other functions: keras.ops.{hstack, append, hsplit, rot90, slice, diff, ...}.

They are read as concatenations, slices, flips and permutations. TensorFlow's vstack joins vectors end to end; that of
NumPy stacks them. A start of slice_update that is a tensor is refused, as is what joins or cuts the batch by a number.
"""

from math import prod

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

OPERATORS = ()  # concatenations, slices, flips, permutations
TORCH = ()  # torch.export has their parts, or `bridge.decomposition` makes them
LAYOUT = anything


def _append(ops, o, x1, x2):
    if o.axis is None:
        raise Unsupported("it joins the flattened tensors, the batch along", "give it an axis")
    return ops.concatenate([x1, x2], axis=o.axis)


def _dstack(ops, o, xs):
    if len(xs[0].shape) < 2:
        xs = [ops.expand_dims(x, 0) for x in xs]
    return ops.concatenate([ops.expand_dims(x, 2) if len(x.shape) == 2 else x for x in xs], axis=2)


def _array_split(ops, o, x):
    n, size = o.indices_or_sections, x.shape[o.axis]
    if size is None or not isinstance(n, int):
        raise Unsupported(f"sections {n} of an axis of size {size}", "give a number of sections, and fix that size")
    sizes = [size // n + (i < size % n) for i in range(n)]
    return ops.split(x, np.cumsum(sizes)[:-1].tolist(), axis=o.axis)


def _rot90(ops, o, x):
    first, second = (a % len(x.shape) for a in o.axes)
    match o.k % 4:
        case 0:
            return x
        case 1:
            return ops.swapaxes(ops.flip(x, second), first, second)
        case 2:
            if None in (x.shape[first], x.shape[second]) or x.shape[first] != x.shape[second]:
                raise Unsupported("Keras on TensorFlow mixes up what is not square by k=2", "use keras.ops.flip")
            return ops.flip(x, (first, second))
    return ops.flip(ops.swapaxes(x, first, second), second)


def _slice(ops, o, x, start):
    if not _plain(start) or not all(isinstance(n, int) for n in o.shape):
        raise Unsupported("it starts or ends where a tensor says", "use keras.ops.take with an index")
    pairs = zip(np.ravel(start).tolist(), o.shape, strict=True)
    return x[tuple(slice(a, None if n == -1 else a + n) for a, n in pairs)]


def _plain(numbers) -> bool:
    return not hasattr(numbers, "_keras_history") and not any(hasattr(n, "_keras_history") for n in numbers)


def _slice_update(ops, o, x, start, updates):
    if not _plain(start):
        raise Unsupported("it writes to where a tensor says", "use keras.ops.where with a mask")
    start, axes = np.ravel(start).tolist(), range(len(x.shape))
    whole = [a for a in axes if start[a] == 0 and updates.shape[a] == x.shape[a]]
    opened = [a for a in axes if None in (x.shape[a], updates.shape[a]) and a not in whole]
    if opened or any(not 0 <= start[a] <= x.shape[a] - updates.shape[a] for a in axes if a not in whole):
        raise Unsupported(
            f"it writes a tensor of shape {tuple(updates.shape)} to {start} of one of {tuple(x.shape)}",
            "fix these sizes, and write inside of the tensor",
        )
    made = updates
    for a in reversed([a for a in axes if a not in whole]):  # what is before and behind it along each axis
        around = x[tuple(slice(start[b], start[b] + made.shape[b]) if b < a and b not in whole else slice(None)
                         for b in axes)]  # fmt: skip
        before = tuple(slice(None, start[a]) if b == a else slice(None) for b in axes)
        behind = tuple(slice(start[a] + updates.shape[a], None) if b == a else slice(None) for b in axes)
        joined = (
            [around[before]] * (start[a] > 0) + [made] + [around[behind]] * (start[a] + updates.shape[a] < x.shape[a])
        )
        made = ops.concatenate(joined, axis=a)
    return made


def _diff(ops, o, x):
    for _ in range(o.n):
        before = (slice(None),) * (o.axis % len(x.shape))
        later, earlier = x[(*before, slice(1, None))], x[(*before, slice(None, -1))]
        x = ops.not_equal(later, earlier) if x.dtype == "bool" else later - earlier
    return x


def _meshgrid(ops, o, xs):
    sizes = [prod(x.shape) if None not in x.shape else None for x in xs]
    if None in sizes or len(xs) == 1:
        raise Unsupported(f"it makes grids of tensors of sizes {sizes}", "fix these sizes")
    rank = len(xs)
    places = [1, 0, *range(2, rank)] if o.indexing == "xy" else list(range(rank))
    shape = [sizes[places.index(a)] for a in range(rank)]
    spread = [
        ops.reshape(x, [-1 if a == place else 1 for a in range(rank)]) for x, place in zip(xs, places, strict=True)
    ]
    return [ops.broadcast_to(x, shape) for x in spread]


PARTS = {
    "ops.Append": _append,
    "ops.ArraySplit": _array_split,
    "ops.Diff": _diff,
    "ops.Dsplit": lambda ops, o, x: ops.split(x, o.indices_or_sections, axis=2),
    "ops.Dstack": _dstack,
    "ops.Hsplit": lambda ops, o, x: ops.split(x, o.indices_or_sections, axis=0 if len(x.shape) == 1 else 1),
    "ops.Hstack": lambda ops, o, xs: ops.concatenate(xs, axis=0 if len(xs[0].shape) == 1 else 1),
    "ops.Meshgrid": _meshgrid,
    "ops.Rot90": _rot90,
    "ops.Slice": _slice,
    "ops.SliceUpdate": _slice_update,
    "ops.Vsplit": lambda ops, o, x: ops.split(x, o.indices_or_sections, axis=0),
    "ops.Vstack": lambda ops, o, xs: ops.concatenate(xs, axis=0),
}
KERAS = tuple(PARTS)


def read_keras(layer: KerasLayer) -> list[Node]:
    return keras_parts.read(layer, PARTS)
