"""Resizing to the size that another tensor has, open: F.interpolate(x, size=skip.shape[2:]), as decoders do.

So is what grows or shrinks by a factor at an open size, where no layer of Keras does so: by 1.5, cubic, with
align_corners=True; and what becomes a part of another size, as size=(x.shape[2] * 3 // 4, 8) says. With a factor torch
takes its inverse for the distance of the pixels, else what the sizes say.

Keras' layers resize to numbers. What it has here is a small model of keras.ops (`bridge.composed`) that works out where
the pixels of the output lie in the input, from both sizes as they are, and gathers and weights what is around, axis
after axis. The rules are torch's: linear stays inside the image, nearest rounds down, cubic (a = -0.75) repeats the
border. Where a place of nearest lies on the edge of two pixels but for rounding, torch's own kernels differ among
themselves. Sizes that are known are `bridge.rules.resizing`'s.
"""

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from bridge import expressions
from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, channel_order, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal, single, sizes

FUNCTIONS = {"nearest": ("half_pixel", "asymmetric"), "linear": ("half_pixel", "align_corners")}
FUNCTIONS["cubic"] = FUNCTIONS["linear"]

OPERATORS = ("resize_like",)
KERAS = ("model.resize_like",)
TORCH = ()  # `resizing` reads the operators and hands over those whose sizes are another tensor's
CUBIC = -0.75  # torch's `a`


def LAYOUT(node: Node, context: Context) -> Placement:
    order = channel_order(node.inputs[0].rank, node["axis"], context.target)
    others = context.orders[1:]
    if not all(isinstance(o, tuple) for o in others):
        return fixed(node, context)
    orders = [order, *others]
    like = tuple(
        (n[0], sizes.renumbered(n[1], orders[n[0]]), *n[2:]) if isinstance(n, tuple) else n for n in node["like"]
    )
    spatial = [a for a in range(len(order)) if a not in (0, node["axis"])]
    like = tuple(like[spatial.index(a)] for a in order if a in spatial)
    return Placement([order, *others], [order], {"axis": order.index(node["axis"]), "like": like})


def resize(x, *others, function: str, rule: str, like: tuple):
    """Resize (B, ..., C) in keras.ops.

    `like` has for each axis a size, a factor (a float), or which tensor's which axis has the size, perhaps in part.
    """
    from keras import ops

    tensors = (x, *others)
    for axis, size in enumerate(like, 1):
        given = x.shape[axis] or sizes.size(x, axis, x.dtype)
        p, q = _fraction(size) if isinstance(size, float) else (None, None)
        if p and x.shape[axis]:
            size = given * p // q
        if isinstance(size, int):
            places = ops.arange(size, dtype=x.dtype)
        else:
            other, at, *part = (0, axis, (p, 0, q)) if p else size
            cells = sizes.row(tensors[other], at, x.dtype, *part)
            places, size = ops.cumsum(cells) - 1.0, ops.sum(cells)
        if rule == "align_corners":
            steps = ops.maximum(size - 1, 1) if hasattr(size, "dtype") else max(size - 1, 1)
            places = places * ((given - 1) / steps)
        else:
            places = places + 0.5 if rule == "half_pixel" else places
            places = places * q / p if p else places * (given / size)
            places = places - 0.5 if rule == "half_pixel" and function != "nearest" else places
        x = _along(x, axis, places, given, function)
    return x


def _fraction(factor: float) -> tuple[int, int]:
    simple = Fraction(factor).limit_denominator(expressions.DENOMINATORS)
    return simple.numerator, simple.denominator


def _along(x, axis: int, places, given, function: str):
    """The image with the pixels at these places along an axis."""
    from keras import ops

    def pixels(at):
        last = given - 1
        at = ops.minimum(ops.relu(at), last)
        return ops.take(x, ops.cast(at, "int32"), axis=axis)

    if function == "nearest":
        return pixels(ops.floor(places))
    if function == "linear":
        places = ops.relu(places)
    first = ops.floor(places)
    t = ops.reshape(places - first, (-1, *[1] * (len(x.shape) - axis - 1)))
    if function == "linear":
        low, high = pixels(first), pixels(first + 1.0)
        return low + (high - low) * t
    a = CUBIC

    def near(d):
        return ((a + 2) * d - (a + 3)) * d * d + 1.0

    def far(d):
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    weights = (far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t))
    taps = [pixels(first + float(i)) * weight for i, weight in zip((-1, 0, 1, 2), weights, strict=True)]
    return taps[0] + taps[1] + taps[2] + taps[3]


MODELS = {"resize_like": resize}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    x = model.inputs[0]
    made, kinds = model.outputs[0].shape, [type(operation).__name__ for operation in model.operations]
    rank = len(x.shape)
    if rank < 3 or len(made) != rank or kinds.count("Take") % (rank - 2):
        return
    function = {1: "nearest", 2: "linear", 4: "cubic"}.get(kinds.count("Take") // (rank - 2))
    rows, ways = sizes.taken(model), []
    for axis, size in enumerate(made[1:-1], 1):
        row = rows.get(axis)
        if size is None and row is None:
            return
        ways.append([size] if row is None else [row[:2] if row[2] == expressions.WHOLE else row])
        p, c, q = row[2] if row else (size, 0, x.shape[axis] or 1)
        if (row is None or row[:2] == (0, axis)) and c == 0:
            ways[-1].append(p / q)
    for like, rule in itertools.product(itertools.product(*ways), FUNCTIONS.get(function, ())):
        floats = {isinstance(n, float) for n in like}
        if floats == {False} or (floats == {True} and rule != "align_corners"):
            yield {"function": function, "rule": rule, "like": like}


def nodes(function: str, rule: str, x: Value, call: TorchOperation, factors=None) -> list[Node]:
    """The node for a call of torch with open sizes, by these factors if any."""
    if rule not in FUNCTIONS.get(function, ()):
        raise Unsupported(f"{function} by the rule {rule} to an open size", "export with that size fixed")
    inputs, like, made = [x], [], call.outputs[0].symbols[2:]
    for at, symbol in enumerate(made):
        if factors:
            factor = _by(factors[at], x.symbols[at + 2], symbol, function, rule)
            if rule == "align_corners":  # the sizes alone matter
                p, q = _fraction(factor)
                own = (0, at + 2) if p == q else (0, at + 2, (p, 0, q))
                factor = symbol if isinstance(symbol, int) else own
            like.append(factor)
            continue
        if isinstance(symbol, int):
            like.append(symbol)
            continue
        other, axis, part = sizes.source(symbol, call)
        if other not in inputs:
            inputs.append(other)
        like.append((inputs.index(other), axis, *([] if part == expressions.WHOLE else [part])))
    attributes = {"function": function, "rule": rule, "like": tuple(like), "axis": 1}
    return [Node("resize_like", attributes, name=call.path, inputs=inputs)]


def _by(factor: float, given, size, function: str, rule: str) -> float:
    """The factor of an axis, if it is a simple fraction and what is made of any size by it is what torch makes."""
    p, q = _fraction(factor)
    if p / q != factor or not expressions.equal(str(size), f"({given}) * {p} // {q}"):
        raise Unsupported(
            f"the scale factor {factor} at an open size, which is no simple fraction or not in floating point",
            "export with that size fixed, or give a factor such as 1.5",
        )
    if function == "nearest":
        half = 0.5 if rule == "half_pixel" else 0.0
        places = np.arange(expressions.SIZES) + half
        exact = np.floor_divide(places * 2 * q, 2 * p)
        # torch's kernel for small images passes over an axis that keeps its size, and repeats one that doubles
        passed = [(n, m) for n in range(1, 128) for m in [n * p // q] if rule == "asymmetric" and m in (n, 2 * n)]
        plain = all((exact[:m] == np.arange(m) // (m // n)).all() for n, m in passed)
        for kind in (np.float32, np.float64):  # torch's kernels work in one of them, and fuse the product and the sum
            scale = kind(1 / factor)
            fused = np.maximum((np.float64(scale) * places - half).astype(kind), 0) + kind(half)
            for rounded in (places.astype(kind) * scale, fused):
                if not plain or not np.array_equal(np.floor(rounded.astype("float32")), exact):
                    raise Unsupported(
                        f"nearest interpolation by {factor} at an open size, which torch rounds to another pixel",
                        "export with that size fixed, or use another factor",
                        final=True,
                    )
    return float(factor)


def read_keras(layer: KerasLayer) -> list[Node]:
    return [Node("resize_like", layer.config | {"axis": layer.rank - 1}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("model.resize_like", {k: v for k, v in node.attributes.items() if k != "axis"})]


def read_torch(call: TorchOperation) -> list[Node]:
    raise NotImplementedError("`resizing` reads the operators")


def write_torch(node: Node) -> TorchCall:
    function, rule, like = node["function"], node["rule"], node["like"]
    names = {"linear": ("linear", "bilinear", "trilinear")[len(like) - 1], "cubic": "bicubic"}
    mode = names.get(function, "nearest" if rule == "asymmetric" else "nearest-exact")
    options = f'mode="{mode}"' + (", align_corners=True" if rule == "align_corners" else "")
    own = [n[:2] == (0, a) and n[2:] and n[2][1] == 0 for a, n in enumerate(like, 2) if isinstance(n, tuple)]
    if rule == "align_corners" and len(own) == len(like) and all(own):
        like = [p / q for _, _, (p, _, q) in like]
    if isinstance(like[0], float):
        return TorchCall(f"F.interpolate({{0}}, scale_factor={literal(single(tuple(like)))}, {options})")
    size = ", ".join(sizes.text(f"{{{n[0]}}}", *n[1:]) if isinstance(n, tuple) else str(n) for n in like)
    return TorchCall(f"F.interpolate({{0}}, size=({size}{',' if len(like) == 1 else ''}), {options})")
