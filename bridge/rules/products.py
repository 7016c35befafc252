"""Products of tensors by other functions: keras.ops.{dot, inner, outer, tensordot, vdot, kron, cross, ...}.

They are read as sums of products (`bridge.rules.einsum`), products cell by cell and rolls. Those that torch.export has
under ATen's names torch decomposes into the same.
"""

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

OPERATORS = ()  # sums of products, products, rolls
TORCH = ()
LAYOUT = anything
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _tensordot(ops, x, y, left: list[int], right: list[int]):
    """A sum over axes of the one and of the other."""
    left, right = [a % len(x.shape) for a in left], [a % len(y.shape) for a in right]
    first = LETTERS[: len(x.shape)]
    names = dict(zip(right, (first[a] for a in left), strict=True))
    free = iter(LETTERS[len(first) :])
    second = "".join(names.get(a) or next(free) for a in range(len(y.shape)))
    kept = [c for c in first + second if (c in first) != (c in second)]
    return ops.einsum(f"{first},{second}->{''.join(kept)}", x, y)


def _tensors(x, y) -> None:
    if not all(hasattr(t, "_keras_history") for t in (x, y)):
        raise Unsupported(
            "it multiplies by a constant", "hold it in a layer such as Dense, whose weights may be frozen"
        )


def _dot(ops, o, x, y):
    _tensors(x, y)
    if not x.shape or not y.shape:
        return x * y
    return _tensordot(ops, x, y, [-1], [-1 if len(y.shape) == 1 else -2])


def _inner(ops, o, x, y):
    _tensors(x, y)
    return _tensordot(ops, x, y, [-1], [-1]) if x.shape and y.shape else x * y


def _vdot(ops, o, x, y):
    _tensors(x, y)
    if x.shape != y.shape:
        x, y = ops.reshape(x, (-1,)), ops.reshape(y, (-1,))
    return _tensordot(ops, x, y, range(len(x.shape)), range(len(x.shape)))


def _general(ops, o, x, y):
    _tensors(x, y)
    axes = o.axes
    if isinstance(axes, int):
        left, right = range(len(x.shape) - axes, len(x.shape)), range(axes)
    else:
        left, right = ([a] if isinstance(a, int) else list(a) for a in axes)
    return _tensordot(ops, x, y, left, right)


def _outer(ops, o, x, y):
    x, y = (t if len(t.shape) == 1 else ops.reshape(t, (-1,)) for t in (x, y))
    return ops.expand_dims(x, 1) * ops.expand_dims(y, 0)


def _kron(ops, o, x, y):
    rank = max(len(x.shape), len(y.shape))
    x, y = (ops.reshape(t, (*[1] * (rank - len(t.shape)), *t.shape)) if len(t.shape) < rank else t for t in (x, y))
    for axis in range(rank):
        x, y = ops.expand_dims(x, 2 * axis + 1), ops.expand_dims(y, 2 * axis)
    made = x * y  # (m0, n0, m1, n1, ...)
    sizes = [made.shape[2 * a : 2 * a + 2] for a in range(rank)]
    if sum(None in pair for pair in sizes) > 1:
        raise Unsupported("several sizes of a Kronecker product are open", "fix all sizes but the batch")
    return ops.reshape(made, [-1 if None in pair else pair[0] * pair[1] for pair in sizes])


def _cross(ops, o, x, y):
    x, y = ops.moveaxis(x, o.axisa, -1), ops.moveaxis(y, o.axisb, -1)
    sizes = x.shape[-1], y.shape[-1]
    if not set(sizes) <= {2, 3}:
        raise Unsupported(f"a cross product of vectors of sizes {sizes}", "fix them to 2 or 3")
    if sizes == (2, 2):
        return x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]
    none = [(0, 0)] * (len(x.shape) - 1), [(0, 0)] * (len(y.shape) - 1)
    x, y = (ops.pad(t, (*n, (0, 1))) if t.shape[-1] == 2 else t for t, n in zip((x, y), none, strict=True))
    made = ops.roll(x, -1, axis=-1) * ops.roll(y, -2, axis=-1) - ops.roll(x, -2, axis=-1) * ops.roll(y, -1, axis=-1)
    return ops.moveaxis(made, -1, o.axisc)


def _corrcoef(ops, o, x):
    if len(x.shape) != 2 or x.shape[1] is None:
        raise Unsupported(f"correlations of a tensor of shape {tuple(x.shape)}", "give rows of a known number of cells")
    x = x - ops.mean(x, axis=-1, keepdims=True)
    products = ops.matmul(x, ops.transpose(x)) / (x.shape[1] - 1)
    deviation = ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) / (x.shape[1] - 1))
    return ops.clip(products / (deviation * ops.transpose(deviation)), -1.0, 1.0)


def _correlate(ops, o, x, y):
    n, m = x.shape[0], y.shape[0]
    if None in (n, m):
        raise Unsupported(f"it correlates vectors of sizes {n} and {m}", "fix these sizes")
    pad = m - 1 if o.mode in ("full", "same") else 0
    image = ops.pad(ops.reshape(x, (1, n, 1)), ((0, 0), (pad, pad), (0, 0)))
    made = ops.reshape(ops.conv(image, ops.reshape(y, (m, 1, 1)), padding="valid"), (-1,))
    if o.mode != "same":
        return made
    start = (n + m - 1 - max(n, m)) // 2
    return made[(slice(start, start + max(n, m)),)]


PARTS = {
    "ops.Corrcoef": _corrcoef,
    "ops.Correlate": _correlate,
    "ops.Cross": _cross,
    "ops.Dot": _dot,
    "ops.Inner": _inner,
    "ops.Kron": _kron,
    "ops.Outer": _outer,
    "ops.Tensordot": _general,
    "ops.Vdot": _vdot,
}
KERAS = tuple(PARTS)


def read_keras(layer: KerasLayer) -> list[Node]:
    return keras_parts.read(layer, PARTS)
