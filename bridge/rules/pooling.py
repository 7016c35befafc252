"""Pooling: keras.layers.{Max,Average}Pooling{1,2,3}D, Adaptive..., keras.ops <-> torch.nn.MaxPool, AvgPool, Adaptive...

The padding of a maximum is -inf. An average is of two kinds: "average_pooling" counts its padding, as zeros;
"inside_average_pooling" divides by the number of cells inside the image, as TensorFlow's SAME and torch's
`count_include_pad=False` do, and as torch's `ceil_mode` does for what it adds. Padding is explicit where it does not
depend on an open size. `ceil_mode` adds padding after the image, which is often just what SAME is.

Keras has the second kind for SAME alone. Other padding, up to half a window, is what is left of SAME with stride 1 when
the windows that torch has not are cut off and every n-th of the others is taken. More padding, the dilation that Keras'
maximum has not, and what makes n cells of an open size, are small models of keras.ops (MODELS). Global pooling is a
reduction (`bridge.rules.reduction`).
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from math import inf, prod

import numpy as np
from einops import rearrange

from bridge.graph import Node, Unsupported
from bridge.layout import channels, identity
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, call_source, literal, single, sizes
from bridge.rules.convolution import resolve_same
from bridge.rules.padding import border
from bridge.rules.reduction import reduction

WINDOWS = ("max_pooling", "average_pooling", "inside_average_pooling")
OPERATORS = (*WINDOWS, "adaptive_pooling")
AUTOCAST = "as given"
KERAS = (
    *(
        f"{kind}{function}Pooling{n}D"
        for kind in ("", "Adaptive")
        for function in ("Max", "Average")
        for n in (1, 2, 3)
    ),
    *(f"ops.{kind}{function}Pool" for kind in ("", "Adaptive") for function in ("Max", "Average")),
    *("model.inside_average_pool", "model.dilated_max_pool", "model.adaptive_pool"),
)
LAYOUT = channels
ABSORBS = {"max_pooling": -inf, "average_pooling": 0.0}  # operator -> the value that its own padding has
NAMES = {"max": ("Max", "Max"), "average": ("Average", "Avg")}  # in Keras, in torch
GLOBAL = {"max": "max", "average": "mean"}  # the reduction that pools everything

PADS = """
        pads = []
        for n, k, s in zip(x.shape[2:], self.kernel_size, self.stride):
            total = torch.sym_max(((n + s - 1) // s - 1) * s + k - n, 0)
            pads = [total // 2, total - total // 2] + pads
"""
HELPERS = (
    {
        f"MaxPool{n}dSame": f'''
class MaxPool{n}dSame(nn.MaxPool{n}d):
    """Max pooling padded to an output of ceil(size / stride) at any size, the odd pixel after the image."""

    def forward(self, x):{PADS}        return super().forward(F.pad(x, pads, value=float("-inf")))
'''
        for n in (1, 2, 3)
    }
    | {
        f"AvgPool{n}dSame": f'''
class AvgPool{n}dSame(nn.AvgPool{n}d):
    """Average of the cells inside the image, with an output of ceil(size / stride) at any size."""

    def forward(self, x):{PADS}        inside = super().forward(F.pad(torch.ones_like(x[:1, :1]), pads))
        return super().forward(F.pad(x, pads)) / inside
'''
        for n in (1, 2, 3)
    }
    | {
        f"AvgPool{n}dInside": f'''
class AvgPool{n}dInside(nn.AvgPool{n}d):
    """Average of the cells inside the image, which is padded by `pads`, as F.pad has them."""

    def __init__(self, kernel_size, stride, pads):
        super().__init__(kernel_size, stride)
        self.pads = pads

    def forward(self, x):
        inside = super().forward(F.pad(torch.ones_like(x[:1, :1]), self.pads))
        return super().forward(F.pad(x, self.pads)) / inside
'''
        for n in (1, 2, 3)
    }
)
TORCH = (
    *(f"{kind}_pool{n}d" for kind in ("max", "avg", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)),
    *(f"max_pool{n}d_with_indices" for n in (1, 2, 3)),
    *HELPERS,
)


def _inside_average(x, pool, strides, pads):
    """In keras.ops: the average of the cells inside the image, padded in any way."""
    from keras import ops

    def average(x):
        return ops.average_pool(ops.pad(x, ((0, 0), *pads, (0, 0))), pool, strides, "valid", "channels_last")

    return average(x) / average(ops.ones_like(x[:1, ..., :1]))


def _dilated_max(x, pool, strides, pads, dilation):
    """In keras.ops: the maximum of the cells of a window that are `dilation` apart; the first of equal ones counts."""
    from keras import ops

    x, most = ops.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-inf), None
    for at in itertools.product(*map(range, pool)):
        ends = [(k - 1 - i) * d for i, k, d in zip(at, pool, dilation, strict=True)]
        parts = [slice(i * d, -e or None, s) for i, d, e, s in zip(at, dilation, ends, strides, strict=True)]
        cells = x[(slice(None), *parts)]
        most = cells if most is None else ops.maximum(most, cells)
    return most


def _adaptive_pool(x, function, output_size):
    """In keras.ops: n windows along each axis, the i-th from floor(i * H / n) to ceil((i + 1) * H / n); None keeps it.

    The last axis is first, as of equal cells the first one counts.
    """
    for axis, n in reversed(list(enumerate(output_size, 1))):
        if n is not None:
            size = x.shape[axis] or sizes.size(x, axis, "float32")
            begin = size * np.arange(n, dtype="float32")[:, None]  # n times what each window begins at
            x = (_averages if function == "average" else _largest)(x, axis, n, begin, begin + size)
    return x


def _averages(x, axis: int, n: int, begin, end):
    """The averages of windows along an axis: a product with a matrix."""
    from keras import ops

    cells = ops.cumsum(sizes.row(x, axis, "float32"))
    inside = ops.logical_and(ops.greater(n * cells, begin), ops.less(n * (cells - 1.0), end))
    inside = ops.cast(inside, x.dtype)  # (n, H)
    letters = "bdefc"[: len(x.shape) - 1] + "c"
    totals = ops.einsum(f"n{letters[axis]},{letters}->{letters.replace(letters[axis], 'n')}", inside, x)
    return totals / ops.reshape(ops.sum(inside, axis=1), (-1, *[1] * (len(x.shape) - axis - 1)))


def _largest(x, axis: int, n: int, begin, end):
    """The largest cells of windows along an axis; as all windows have as many, the last cell may be there again."""
    from keras import ops

    numbers = ops.cumsum(sizes.row(x, axis, "float32", (1, 2 * n - 1, n))) - 1.0
    places = ops.minimum(ops.floor(begin / n) + numbers, ops.ceil(end / n) - 1.0)
    cells = ops.take(x, ops.cast(places, "int32"), axis=axis)  # (B, ..., n, cells, ..., C)
    first = ops.expand_dims(ops.argmax(cells, axis=axis + 1), axis + 1)
    return ops.squeeze(ops.take_along_axis(cells, first, axis=axis + 1), axis + 1)


MODELS = {
    "inside_average_pool": _inside_average,
    "dilated_max_pool": _dilated_max,
    "adaptive_pool": _adaptive_pool,
}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made, by the operations that it has."""
    found = {type(operation).__name__: operation for operation in model.operations}
    if len(model.inputs) > 1:
        return
    if name == "adaptive_pool" and "Cumsum" in found and {"Argmax", "Einsum"} & found.keys():
        yield {"function": "max" if "Argmax" in found else "average", "output_size": model.outputs[0].shape[1:-1]}
    pads = tuple(map(tuple, found["Pad"].pad_width))[1:-1] if "Pad" in found else ()
    if len(pads) != len(model.inputs[0].shape) - 2:
        return
    if name == "inside_average_pool" and (pool := found.get("AveragePool")):
        rank = len(pads)
        yield {"pool": _numbers(pool.pool_size, rank), "strides": _numbers(pool.strides, rank), "pads": pads}
    elif name == "dilated_max_pool":
        parts = [o for o in model.operations if type(o).__name__ == "GetItem"]
        keys = [tuple(n.arguments.args[1]) for o in parts for n in o._inbound_nodes]
        keys = [k[1:] for k in keys if len(k) == len(pads) + 1]
        if keys:
            starts = [sorted({k[axis].start for k in keys}) for axis in range(len(pads))]
            dilation = tuple(s[1] if len(s) > 1 else 1 for s in starts)
            strides = tuple(p.step for p in keys[0])
            yield {"pool": tuple(map(len, starts)), "strides": strides, "pads": pads, "dilation": dilation}


def merge(node: Node, reader: Node) -> Node | None:
    """Take into a pooling what only selects from what it makes.

    A window of one cell takes every n-th window. A crop leaves out windows at the edges of an average over the cells
    inside, which is less padding.
    """
    if node.operator not in WINDOWS or node["pads"] == "same" or "dilation" in node.attributes:
        return None
    pads, strides = node["pads"], node["strides"]
    if reader.operator in WINDOWS and set(reader["pool_size"]) == {1} and _unpadded(reader["pads"]):
        strides = tuple(s * t for s, t in zip(strides, reader["strides"], strict=True))
    elif node.operator == "inside_average_pooling" and set(strides) == {1} and reader.operator == "padding":
        cut = reader["pads"]
        more = [p for i, p in enumerate(cut) if i not in (0, node["axis"])]
        pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(pads, more, strict=True))
        if any(cut[0]) or any(cut[node["axis"]]) or max(map(max, cut)) > 0 or min(map(min, pads)) < 0:
            return None
    else:
        return None
    function = "max" if node.operator == "max_pooling" else "average"
    counted = node.operator == "average_pooling"
    merged = _pooling(function, node["pool_size"], strides, pads, node["axis"], node.name, counted)
    return replace(merged, inputs=node.inputs, outputs=reader.outputs)


def _in_double(layer, x):
    """What pooling over three axes does, in any dtype: over height and width, then over depth."""
    from keras import ops

    pooled = ops.max_pool if type(layer).__name__ == "MaxPooling3D" else ops.average_pool
    (k, *pool), (s, *strides) = layer.pool_size, layer.strides
    options = {"padding": layer.padding, "data_format": "channels_last"}
    axes = "b c d h w" if layer.data_format == "channels_first" else "b d h w c"
    batch = x.shape[0]
    x = pooled(rearrange(x, f"{axes} -> (b d) h w c"), tuple(pool), tuple(strides), **options)
    height = x.shape[1]
    x = pooled(rearrange(x, "(b d) h w c -> b d (h w) c", b=batch), (k, 1), (s, 1), **options)
    return rearrange(x, f"b d (h w) c -> {axes}", h=height)


DOUBLE = dict.fromkeys(("MaxPooling3D", "AveragePooling3D"), _in_double)


def _unpadded(pads) -> bool:
    return pads != "same" and not any(map(any, pads))


def _pooling(function: str, pool, strides, pads, axis: int, name: str, counted: bool = False) -> Node:
    inside = function == "average" and not counted and not _unpadded(pads)
    operator = "inside_average_pooling" if inside else f"{function}_pooling"
    return Node(operator, {"pool_size": pool, "strides": strides, "pads": pads, "axis": axis}, name=name)


def average(pool: tuple[int, ...], strides: tuple[int, ...], axis: int) -> Node:
    """The node of an average without padding; none moves anything where the windows have one cell."""
    if set(pool) == set(strides) == {1}:
        return Node("permute", {"permutation": identity(len(pool) + 2)})
    return _pooling("average", pool, strides, ((0, 0),) * len(pool), axis, "")


def _adaptive(function: str, shape, output_size, axis: int, name: str) -> list[Node]:
    """Pooling to a given size, None for an open one that stays; by other means where Keras cannot do it (`_holds`)."""
    given = _spatial(shape, axis)
    if 0 in (*given, *output_size):
        raise Unsupported(f"adaptive pooling from {tuple(given)} to {tuple(output_size)}", "leave no size empty")
    if set(output_size) <= {1, None}:
        spatial = [a for a in range(1, len(shape)) if a != axis]
        axes = [a for a, o in zip(spatial, output_size, strict=True) if o]
        return [reduction(GLOBAL[function], axes, len(shape), True, name)]
    if None in given or _holds(given, output_size):
        return [Node("adaptive_pooling", {"function": function, "output_size": output_size, "axis": axis}, name=name)]
    if not any(n % o for n, o in zip(given, output_size, strict=True)):
        pool = tuple(n // o for n, o in zip(given, output_size, strict=True))
        return [_pooling(function, pool, pool, ((0, 0),) * len(pool), axis, name)]
    # an axis of one cell is repeated before, and one that becomes one cell is pooled as a whole afterwards
    grown = tuple(max(o, 2) if n == 1 else n for n, o in zip(given, output_size, strict=True))
    middle = tuple(g if o == 1 else o for g, o in zip(grown, output_size, strict=True))
    whole = tuple(m // o for m, o in zip(middle, output_size, strict=True))
    nodes = []
    if grown != tuple(given):
        pads = _around(tuple((0, g - n) for g, n in zip(grown, given, strict=True)), axis)
        nodes += border("edge", pads, shape, "")
        nodes[-1].shape = _resized(shape, grown, axis)
    if middle != grown:
        nodes += _adaptive(function, _resized(shape, grown, axis), middle, axis, "")
        nodes[-1].shape = _resized(shape, middle, axis)
    if set(whole) != {1}:
        nodes.append(_pooling(function, whole, whole, ((0, 0),) * len(whole), axis, ""))
    return [*nodes[:-1], replace(nodes[-1], name=name, shape=None)]


def _around(pads, axis: int) -> tuple:
    """Pads of the spatial axes as those of all."""
    pads = [(0, 0), *pads]
    pads.insert(axis, (0, 0))
    return tuple(pads)


def _resized(shape, given, axis: int) -> tuple:
    resized = [shape[0], *given]
    resized.insert(axis, shape[axis])
    return tuple(resized)


def _holds(given, output_size) -> bool:
    """Tell whether Keras can pool adaptively: on TensorFlow it also makes windows one cell larger than ceil(n / o)."""
    return not any(n is None or -(-n // o) + 1 > n for n, o in zip(given, output_size, strict=True))


def _spatial(shape, axis: int) -> list[int | None]:
    return [n for i, n in enumerate(shape) if i not in (0, axis)]


def _same(shape, axis: int, pool, strides):
    return resolve_same(shape, axis, pool, strides, (1,) * len(pool))


def _ceil(size: int | None, pool: int, stride: int, pad: int) -> int:
    """The padding that torch's ceil_mode adds after an axis: a window that begins inside the image is completed.

    At an open size it is all that a window may need, which makes no window too many: even the first cell of the last
    one, `size + 2 * pad - pool + stride - 1` at most, is inside where the stride is no more than `pool - pad`.
    """
    if size is None:
        if stride > pool - pad:
            raise Unsupported(
                f"ceil_mode=True with an open size, a window of {pool} with padding {pad} and stride {stride}",
                "export with that size fixed, or use ceil_mode=False",
            )
        return stride - 1
    count = -(-(size + 2 * pad - pool) // stride) + 1
    if (count - 1) * stride >= size + pad:
        count -= 1
    return max(0, (count - 1) * stride + pool - size - 2 * pad)


def _ceil_is_same(pool, strides) -> bool:
    """Tell whether ceil_mode without padding is SAME at any size: it has at most one pixel to add, after the image."""
    return all(k == 1 or (k == 2 and s > 1) for k, s in zip(pool, strides, strict=True))


def _ceils(pads, given, pool, strides) -> bool:
    """Tell whether ceil_mode adds just what these pads have more after the image than before it."""
    if pads == "same":
        return _ceil_is_same(pool, strides)
    return all(
        a <= k // 2 and (n is not None or s <= k - a) and b - a == _ceil(n, k, s, a)
        for (a, b), n, k, s in zip(pads, given, pool, strides, strict=True)
    )


def read_keras(layer: KerasLayer) -> list[Node]:
    c, axis, shape = layer.config, layer.axis, layer.inputs[0].shape
    if layer.class_name == "model.inside_average_pool":
        return [_pooling("average", c["pool"], c["strides"], c["pads"], axis, layer.path)]
    if layer.class_name == "model.dilated_max_pool":
        return [_dilated(_pooling("max", c["pool"], c["strides"], c["pads"], axis, layer.path), c["dilation"])]
    function = "max" if "Max" in layer.class_name else "average"
    if layer.class_name == "model.adaptive_pool":
        return [Node("adaptive_pooling", c | {"axis": axis}, name=layer.path)]
    if "Adaptive" in layer.class_name:
        if layer.outputs[0].rank != layer.rank:
            raise Unsupported(
                f"Keras takes its output to be of shape {layer.outputs[0].shape}",
                f"use the layer, Adaptive{NAMES[function][0]}Pooling{layer.rank - 2}D",
            )
        return _adaptive(function, shape, _numbers(c["output_size"], layer.rank - 2), axis, layer.path)
    pool = _numbers(c["pool_size"], layer.rank - 2)
    strides = _numbers(pool if c["strides"] is None else c["strides"], layer.rank - 2)
    pads = _same(shape, axis, pool, strides) if c["padding"] == "same" else ((0, 0),) * len(pool)
    return [_pooling(function, pool, strides, pads, axis, layer.path)]


def _numbers(value, length: int) -> tuple[int, ...]:
    """A size that Keras takes as one number or several, as several."""
    return (value,) * length if isinstance(value, int) else tuple(value)


def write_keras(node: Node) -> list[KerasCall]:
    rank = node.inputs[0].rank - 2
    if node.operator == "adaptive_pooling":
        if None in _spatial(node.inputs[0].shape, node["axis"]):
            options = {k: node[k] for k in ("function", "output_size")}
            return [KerasCall("model.adaptive_pool", options)]
        return [KerasCall(f"Adaptive{NAMES[node['function']][0]}Pooling{rank}D", {"output_size": node["output_size"]})]
    pool, strides, pads, before, padding = node["pool_size"], node["strides"], node["pads"], [], "valid"
    counted = node.operator == "average_pooling"
    if dilation := node.attributes.get("dilation"):
        return [
            KerasCall("model.dilated_max_pool", {"pool": pool, "strides": strides, "pads": pads, "dilation": dilation})
        ]
    same = pads == "same" or (any(map(any, pads)) and pads == _same(node.inputs[0].shape, node["axis"], pool, strides))
    if same and not counted:
        padding = "same"
    elif node.operator == "inside_average_pooling":
        return _write_inside(rank, pool, strides, pads)
    elif any(map(any, pads)) and counted:
        before = [KerasCall(f"ZeroPadding{rank}D", {"padding": pads if rank > 1 else pads[0]}, "_pad")]
    elif any(map(any, pads)):
        before = [KerasCall("ops.pad", {"pad_width": ((0, 0), *pads, (0, 0)), "constant_values": -inf}, "_pad")]
    kind = "Max" if node.operator == "max_pooling" else "Average"
    config = {"pool_size": pool, "strides": strides, "padding": padding}
    return [*before, KerasCall(f"{kind}Pooling{rank}D", config)]


def _write_inside(rank: int, pool, strides, pads) -> list[KerasCall]:
    """SAME with stride 1, less the windows that these pads do not have."""
    crop = tuple(((k - 1) // 2 - a, k // 2 - b) for k, (a, b) in zip(pool, pads, strict=True))
    if min(map(min, crop)) < 0:
        return [KerasCall("model.inside_average_pool", {"pool": pool, "strides": strides, "pads": pads})]
    calls = [KerasCall(f"AveragePooling{rank}D", {"pool_size": pool, "strides": (1,) * rank, "padding": "same"})]
    if any(map(any, crop)):
        calls.append(KerasCall(f"Cropping{rank}D", {"cropping": crop if rank > 1 else crop[0]}, "_crop"))
    if max(strides) > 1:
        calls.append(KerasCall(f"AveragePooling{rank}D", {"pool_size": (1,) * rank, "strides": strides}, "_stride"))
    return calls


def read_torch(call: TorchOperation) -> list[Node]:
    x, name = call.inputs[0], call.path
    rank = next(int(c) for c in call.target if c.isdigit())
    function = "max" if "max" in call.target.lower() else "average"
    if x.rank != rank + 2:
        raise Unsupported(f"an input of shape {x.shape} has no batch", "give it a batch")
    if "indices" in call.target:
        raise Unsupported("return_indices=True", "Keras' pooling has no indices: leave them out", final=True)
    size = call.numbers("output_size" if "adaptive" in call.target else "kernel_size", rank)
    if "adaptive" in call.target:
        size = tuple(None if n == Size(str(s)) else n for n, s in zip(size, x.symbols[2:], strict=True))
    if not all(isinstance(n, int | None) for n in size):
        raise Unsupported("its size is computed from an open size of the input", "export with that size fixed")
    if "adaptive" in call.target:
        *before, last = _adaptive(function, x.shape, size, 1, name)
        return [*before, replace(last, outputs=call.outputs[:1])]
    strides = call.numbers("stride", rank) or size
    if call.target.endswith("Inside"):
        pads = tuple(zip(call["pads"][-2::-2], call["pads"][::-2], strict=True))
        return [_pooling(function, size, strides, pads, 1, name)]
    if call.target in HELPERS:
        return [_pooling(function, size, strides, _same(x.shape, 1, size, strides), 1, name)]
    dilation = call.numbers("dilation", rank) if function == "max" else (1,) * rank
    if set(dilation) != {1}:
        return [_read_dilated(call, size, strides, dilation, rank)]
    padding, added = call.numbers("padding", rank), (0,) * rank
    if call["ceil_mode"]:
        if not any(padding) and _ceil_is_same(size, strides):
            return [_pooling(function, size, strides, _same(x.shape, 1, size, strides), 1, name)]
        added = tuple(_ceil(*args) for args in zip(x.shape[2:], size, strides, padding, strict=True))
    pads = tuple((p, p + more) for p, more in zip(padding, added, strict=True))
    counted = function == "average" and call["count_include_pad"]
    if divisor := call.arguments.get("divisor_override"):  # of the sum: all cells count, as zeros
        whole = Node("multiply", {"number": prod(size) / divisor})
        return [_pooling(function, size, strides, pads, 1, name, True), *([whole] if divisor != prod(size) else [])]
    if not (counted and any(padding) and any(added)):
        return [_pooling(function, size, strides, pads, 1, name, counted and not any(added))]
    # the zeros of `padding` count, what ceil_mode adds does not
    grown = _resized(x.shape, [n and n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)], 1)
    zeros = Node("padding", {"pads": _around([(p, p) for p in padding], 1), "value": 0.0}, shape=grown)
    return [zeros, _pooling(function, size, strides, tuple((0, more) for more in added), 1, name)]


def _read_dilated(call: TorchOperation, size, strides, dilation, rank: int) -> Node:
    """A maximum over windows with gaps."""
    if call["ceil_mode"]:
        raise Unsupported("ceil_mode=True with a dilation", "use ceil_mode=False, and pad the image")
    pads = tuple((p, p) for p in call.numbers("padding", rank))
    return _dilated(_pooling("max", size, strides, pads, 1, call.path), dilation)


def _dilated(node: Node, dilation) -> Node:
    """The same maximum with gaps in its windows; none along an axis where they have one cell."""
    dilation = tuple(d if k > 1 else 1 for d, k in zip(dilation, node["pool_size"], strict=True))
    return node if set(dilation) == {1} else replace(node, attributes={**node.attributes, "dilation": dilation})


def write_torch(node: Node) -> TorchCall:
    rank = node.inputs[0].rank - 2
    if node.operator == "adaptive_pooling":
        constructor = call_source(f"nn.Adaptive{NAMES[node['function']][1]}Pool{rank}d", single(node["output_size"]))
        return TorchCall("{self}({0})", constructor)
    pool, strides, pads = (node[k] for k in ("pool_size", "strides", "pads"))
    given = _spatial(node.inputs[0].shape, node["axis"])
    counted, inside = (node.operator == f"{kind}average_pooling" for kind in ("", "inside_"))
    name = f"{'Avg' if counted or inside else 'Max'}Pool{rank}d"
    options = {} if strides == pool else {"stride": single(strides)}
    dilation = node.attributes.get("dilation")
    if dilation:
        options["dilation"] = single(dilation)
    before, expression = (0,) * rank if pads == "same" else tuple(a for a, _ in pads), "{self}({0})"
    # AvgPool3d refuses an image smaller than its window, however much it pads
    small = name == "AvgPool3d" and any(map(any, pads)) and any(k > (n or 1) for k, n in zip(pool, given, strict=True))
    if not small and pads != "same" and all(a == b <= k // 2 for (a, b), k in zip(pads, pool, strict=True)):
        pass
    elif not small and not counted and not dilation and _ceils(pads, given, pool, strides):
        options["ceil_mode"] = True
    elif pads == "same" or (inside and pads == _same(node.inputs[0].shape, node["axis"], pool, strides)):
        return TorchCall(expression, call_source(f"{name}Same", pool, stride=strides), helpers=(f"{name}Same",))
    elif inside:
        flat = tuple(p for pair in reversed(pads) for p in pair)
        constructor = call_source(f"{name}Inside", pool, stride=strides, pads=flat)
        return TorchCall(expression, constructor, helpers=(f"{name}Inside",))
    else:
        flat = tuple(p for pair in reversed(pads) for p in pair)
        value = "" if counted else ', value=float("-inf")'
        before, expression = (0,) * rank, f"{{self}}(F.pad({{0}}, {literal(flat)}{value}))"
    if any(before):
        options["padding"] = single(before)
        if inside:
            options["count_include_pad"] = False
    return TorchCall(expression, call_source(f"nn.{name}", single(pool), **options))
