"""Resizing to the size that another tensor has, open: F.interpolate(x, size=skip.shape[2:]), as decoders do.

Keras' layers resize to numbers. What it has here is a small model of keras.ops (`bridge.composed`) that works out where
the pixels of the output lie in the input, from both sizes as they are, and gathers and weights what is around, axis
after axis. The rules are torch's: linear stays inside the image, nearest rounds down, cubic (a = -0.75) repeats the
border. Where a place of nearest lies on the edge of two pixels but for rounding, torch's own kernels differ among
themselves. Sizes that are known are `bridge.rules.resizing`'s.
"""

import itertools
from collections.abc import Iterator

from bridge.expressions import WHOLE
from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, channel_order, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, sizes

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
    like = tuple(n if i is None else (i, others[i - 1].index(n)) for i, n in map(_apart, node["like"]))
    spatial = [a for a in range(len(order)) if a not in (0, node["axis"])]
    like = tuple(like[spatial.index(a)] for a in order if a in spatial)
    return Placement([order, *others], [order], {"axis": order.index(node["axis"]), "like": like})


def _apart(size) -> tuple[int | None, int]:
    """(number of the input that has the size, its axis), or (None, the size)."""
    return size if isinstance(size, tuple) else (None, size)


def resize(x, *others, function: str, rule: str, like: tuple):
    """Resize (B, ..., C) in keras.ops; `like` has for each axis a size, or which tensor's which axis has it."""
    from keras import ops

    for axis, size in enumerate(like, 1):
        if isinstance(size, tuple):
            cells = sizes.row(others[size[0] - 1], size[1], x.dtype)
            places, size = ops.cumsum(cells) - 1.0, ops.sum(cells)
        else:
            places = ops.arange(size, dtype=x.dtype)
        given = x.shape[axis] or sizes.size(x, axis, x.dtype)
        if rule == "align_corners":
            steps = ops.maximum(size - 1, 1) if hasattr(size, "dtype") else max(size - 1, 1)
            places = places * ((given - 1) / steps)
        elif rule == "half_pixel":
            places = (places + 0.5) * (given / size)
            places = places if function == "nearest" else places - 0.5
        else:
            places = places * (given / size)
        x = _along(x, axis, places, given, function)
    return x


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
    x, *others = model.inputs
    made = model.outputs[0].shape
    if len(x.shape) < 3 or len(made) != len(x.shape) or not others:
        return
    ways = [(i, a) for i, other in enumerate(others, 1) for a in range(len(other.shape)) if other.shape[a] is None]
    each = [[n] if n is not None else ways for n in made[1:-1]]
    for like in itertools.product(*each):
        for function, rules in FUNCTIONS.items():
            yield from ({"function": function, "rule": rule, "like": like} for rule in rules)


def nodes(function: str, rule: str, x: Value, call: TorchOperation) -> list[Node]:
    """The node for a call of torch whose open sizes tensors have."""
    if rule not in FUNCTIONS.get(function, ()):
        raise Unsupported(f"{function} by the rule {rule} to an open size", "export with that size fixed")
    inputs, like = [x], []
    for symbol in call.outputs[0].symbols[2:]:
        if isinstance(symbol, int):
            like.append(symbol)
            continue
        other, axis, part = sizes.source(symbol, call)
        if part != WHOLE:
            raise Unsupported(f"{function} to the size {symbol}, which no tensor has", "export with that size fixed")
        if other not in inputs[1:]:
            inputs.append(other)
        like.append((inputs.index(other, 1), axis))
    attributes = {"function": function, "rule": rule, "like": tuple(like), "axis": 1}
    return [Node("resize_like", attributes, name=call.path, inputs=inputs)]


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
    size = ", ".join(str(n) if i is None else f"{{{i}}}.shape[{int(n)}]" for i, n in map(_apart, like))
    corners = ", align_corners=True" if rule == "align_corners" else ""
    return TorchCall(f'F.interpolate({{0}}, size=({size}{"," if len(like) == 1 else ""}), mode="{mode}"{corners})')
