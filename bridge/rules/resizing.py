"""Resizing: keras.layers.{UpSampling1D, UpSampling2D, UpSampling3D, Resizing}, keras.ops.image <-> torch.nn.Upsample.

A node has a function of the distance between pixels, the rule that says where a pixel of the output lies in the input,
and whole `factors`, at any size, or `sizes`; both where the factors are not what the sizes say. The traps:

- nearest: Keras' is torch's "nearest-exact" (rule "half_pixel"), torch's "nearest" is "asymmetric". Both are a repeat
  for a whole factor, but for torch's with some factors from 41 on, as float32 rounds.
- cubic: Keras' has a = -0.5 and leaves out what is outside the image, as torch's with antialias=True does; torch's own
  has a = -0.75 and repeats the border. Antialiasing changes nothing where no axis shrinks. Without it TensorFlow looks
  the weights up in a table of 1024 places, which is 7e-4 off between them.
- align_corners=True ("align_corners") is no option of Keras' layers, but it is a scale and a translation.

TensorFlow's layers work in float32, positions too, and are 1e-5 off at a size of 300. What Keras has no function for is
an einsum with a constant matrix for each axis: nearest by torch's rule or by other factors than the sizes', and torch's
own cubic. A factor is read back from such a matrix as the simplest fraction that makes it.

At an open size a whole factor is a layer of Keras; the n-th part of the pixels is a slice and, for an even n, the mean
of two pixels, a pooling.
"""

import math
import re
from dataclasses import replace

import numpy as np

from bridge import interpolation
from bridge.graph import Node, Unsupported, Value
from bridge.layout import channels, identity
from bridge.rules import (
    KerasCall,
    KerasLayer,
    TorchCall,
    TorchOperation,
    call_source,
    padding,
    pooling,
    resizing_like,
    single,
)
from bridge.rules import slice as slices

OPERATORS = ("resize",)
KERAS = (
    *("UpSampling1D", "UpSampling2D", "UpSampling3D", "Resizing"),
    *("ops.Resize", "ops.ScaleAndTranslate"),
)
LAYOUT = channels

FUNCTIONS = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic", "lanczos3": "lanczos3"}  # Keras' names
METHODS = {  # those of scale_and_translate
    **dict.fromkeys(("linear", "bilinear", "trilinear", "triangle"), "linear"),
    **dict.fromkeys(("cubic", "bicubic", "tricubic"), "cubic"),
    "lanczos3": "lanczos3",
}
MODES = {  # torch's names for one, two and three axes
    "nearest": ("nearest-exact",) * 3,
    "linear": ("linear", "bilinear", "trilinear"),
    "cubic": (None, "bicubic", None),
    "lanczos3": (None, "lanczos", None),
}
ATEN = {
    **{f"upsample_nearest{n}d": ("nearest", "asymmetric") for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": ("nearest", "half_pixel") for n in (1, 2, 3)},
    **{f"upsample_{mode}{n}d": ("linear", "half_pixel") for n, mode in enumerate(MODES["linear"], 1)},
    **{f"_upsample_{mode}2d_aa": (FUNCTIONS[mode], "half_pixel") for mode in ("bilinear", "bicubic")},
    "_upsample_lanczos2d_aa": ("lanczos3", "half_pixel"),
    "upsample_bicubic2d": ("cubic", "half_pixel"),
}
TORCH = tuple(ATEN)

EINSUMS = {3: "bwc,wx->bxc", 4: "bhwc,hy,wx->byxc", 5: "bdhwc,dz,hy,wx->bzyxc"}


def LIMIT(node: Node) -> float:
    """Torch's cubic weights are constants in Keras, of the dtype of the tensor."""
    return 2e-7 if node.attributes.get("a") == interpolation.TORCHS else 0.0


def resize(
    function: str,
    given,
    sizes,
    axis: int,
    name: str,
    factors=None,
    rule: str = "half_pixel",
    antialias: bool = False,
    a: float = interpolation.KEYS,
) -> Node:
    """Return the normal form.

    Args:
        function: A value of `FUNCTIONS`.
        given: The sizes of the input without batch and channels, None where open.
        sizes: The same of the output.
        axis: The axis of the channels.
        name: The name of the node.
        factors: By how much each axis grows, where the framework has been told; else the sizes say it.
        rule: "half_pixel", "align_corners" or "asymmetric".
        antialias: Whether the function is widened along axes that shrink.
        a: The coefficient of a cubic function.
    """
    given, sizes = tuple(given), tuple(sizes)
    factors = tuple(factors) if factors else (None,) * len(given)
    pairs = list(zip(given, sizes, strict=True))
    told = rule != "align_corners" and not all(map(_says, given, sizes, factors))
    if _in_matrices(function, a) and None not in given:
        scales = factors if told else (None,) * len(given)
        named = interpolation.named(
            [interpolation.matrix(function, rule, *pair, f) for pair, f in zip(pairs, scales, strict=True)]
        )
        if named is None:
            raise Unsupported(
                f"scale factors {factors} from {given} to {sizes}, which are no simple fractions",
                "give factors of three decimals at most, recompute_scale_factor=True, or the size",
                final=True,
            )
        function, rule, factors = named
        told, a = factors is not None, interpolation.TORCHS
    whole = (None,) * len(given) if told else tuple(map(_whole, given, sizes, factors or (None,) * len(given)))
    if None in whole and None in sizes:
        raise Unsupported(
            "its size is computed from an open size of the input",
            "export with that size fixed, or give a whole number as scale_factor",
        )
    if set(whole) == {1}:
        return Node("permute", {"permutation": identity(len(given) + 2)}, name=name)
    if rule == "asymmetric" and None not in whole and all(map(interpolation.repeats, whole)):
        rule = "half_pixel"
    if rule == "align_corners" and None not in given and all(n in (1, m) for n, m in pairs):
        rule = "half_pixel"
    antialias = antialias and function != "nearest" and not all(map(_grows, given, sizes, whole))
    attributes = {
        "function": function,
        "rule": rule,
        "sizes": sizes if None in whole else None,
        "factors": tuple(map(float, factors)) if told else None if None in whole else whole,
        "antialias": antialias,
        "axis": axis,
    }
    return Node("resize", attributes | ({"a": a} if function == "cubic" else {}), name=name)


def _whole(given: int | None, size: int | None, factor: float | None) -> int | None:
    """The whole number by which an axis grows, if it does."""
    if given is not None and size is not None:
        return size // given if size % given == 0 else None
    return int(factor) if size is None and factor == int(factor or 0) else None


def _says(given: int | None, size: int | None, factor: float | None) -> bool:
    """Whether a factor is what the sizes say."""
    return factor is None or given is None or math.isclose(given * factor, size, rel_tol=1e-9)


def _grows(given: int | None, size: int | None, whole: int | None) -> bool:
    return whole is not None or (given is not None and size >= given)


def _in_matrices(function: str, a: float) -> bool:
    """Whether Keras has no function for it, but for what is a repeat."""
    return function == "nearest" or (function == "cubic" and a == interpolation.TORCHS)


def _align(given: int, size: int) -> tuple[float, float]:
    """The scale and translation that put the corners of an axis onto each other."""
    if given == 1:
        return float(size), 0.0
    scale = (size - 1) / (given - 1) if size > 1 else 1.0
    return scale, 0.5 * (1 - scale)


def spatial(shape, axis: int) -> tuple[int | None, ...]:
    """The sizes without batch and channels."""
    return tuple(n for i, n in enumerate(shape) if i not in (0, axis))


def _size(operation) -> tuple[int, int]:
    return operation.size if hasattr(operation, "size") else (operation.height, operation.width)


def aspect_pads(operation, given, size) -> list[tuple[int, int]]:
    """What crop_to_aspect_ratio takes off height and width, as negative pads, or pad_to_aspect_ratio puts there."""
    fitting = [int(np.float32(given[1 - i] * size[i]) / np.float32(size[1 - i])) for i in (0, 1)]
    if operation.pad_to_aspect_ratio:
        return [(max(f - n, 0) // 2,) * 2 for n, f in zip(given, fitting, strict=True)]  # an odd pixel is left out
    if not operation.crop_to_aspect_ratio:
        return [(0, 0), (0, 0)]
    kept = [max(min(n, f), 1) for n, f in zip(given, fitting, strict=True)]
    return [(-((n - k) // 2), k + (n - k) // 2 - n) for n, k in zip(given, kept, strict=True)]


def in_double(operation, x, *more):
    """What a layer or function of Keras does, in float64."""
    from keras import ops

    if hasattr(operation, "spatial_dims"):  # of numbers that are not an array scale_and_translate makes float32
        shape, scale, translation = more
        scale, translation = np.asarray(scale, "float64"), np.asarray(translation, "float64")
        options = (operation.spatial_dims, operation.method, operation.antialias)
        return ops.image.scale_and_translate(x, shape, scale, translation, *options)
    if operation.interpolation == "nearest":
        return operation.call(x)
    axes = (2, 3) if operation.data_format == "channels_first" else (1, 2)
    if hasattr(operation, "pad_to_aspect_ratio"):
        size = _size(operation)
        pads = dict(zip(axes, aspect_pads(operation, [x.shape[a] for a in axes], size), strict=True))
        grown = [tuple(max(p, 0) for p in pads.get(a, (0, 0))) for a in range(4)]
        x = ops.pad(x, grown, constant_values=operation.fill_value)
        for a, (before, after) in pads.items():
            x = ops.take(x, range(-min(before, 0), x.shape[a] + min(after, 0)), axis=a)
    else:
        size = [x.shape[a] * f for a, f in zip(axes, operation.size, strict=True)]
    shape = [size[axes.index(a)] if a in axes else n for a, n in enumerate(x.shape)]
    scale, method = np.divide(size, [x.shape[a] for a in axes]), FUNCTIONS[operation.interpolation]
    antialias = getattr(operation, "antialias", False)
    return ops.image.scale_and_translate(x, shape, scale, np.zeros(2), axes, method, antialias)


DOUBLE = dict.fromkeys(("UpSampling2D", "Resizing", "ops.Resize", "ops.ScaleAndTranslate"), in_double)


def read_keras(layer: KerasLayer) -> list[Node]:
    if "float" not in layer.inputs[0].dtype:
        raise Unsupported(f"it resizes {layer.inputs[0].dtype}", "convert the image to a float dtype before")
    if layer.class_name == "ops.ScaleAndTranslate":
        return [_from_scale_and_translate(layer)]
    if layer.class_name in ("Resizing", "ops.Resize"):
        return from_resizing(layer.operation, layer.inputs[0], layer.path)
    given, factors = spatial(layer.inputs[0].shape, layer.axis), layer.config["size"]
    factors = (factors,) if isinstance(factors, int) else tuple(factors)
    sizes = tuple(n and n * f for n, f in zip(given, factors, strict=True))
    function = _function(layer.config.get("interpolation", "nearest"))
    if function == "cubic" and not all(interpolation.in_table(1, f) for f in factors):
        raise _table(f"a bicubic UpSampling2D by {factors}", "use Resizing with antialias=True")
    return [resize(function, given, sizes, layer.axis, layer.path, factors)]


def _function(interpolation: str) -> str:
    if interpolation not in FUNCTIONS:
        raise Unsupported(f"interpolation={interpolation!r}", f"use one of {', '.join(FUNCTIONS)}")
    return FUNCTIONS[interpolation]


def _table(reason: str, remedy: str) -> Unsupported:
    return Unsupported(f"{reason}, which TensorFlow looks up in a table that is 1e-3 off", remedy)


def from_resizing(operation, x: Value, name: str) -> list[Node]:
    """Read a Resizing, or anything that has its attributes: perhaps padding or a crop, and the resizing itself."""
    axis = 1 if operation.data_format == "channels_first" else x.rank - 1
    size = _size(operation)
    if x.rank != 4:
        raise Unsupported(f"an input of shape {x.shape} has no batch", "give it a batch")
    given, function, nodes = spatial(x.shape, axis), _function(operation.interpolation), []
    if operation.crop_to_aspect_ratio or operation.pad_to_aspect_ratio:
        option = "crop_to_aspect_ratio" if operation.crop_to_aspect_ratio else "pad_to_aspect_ratio"
        if None in given:
            raise Unsupported(f"{option}=True at an open size", "give the model an Input of a fixed size")
        pads = aspect_pads(operation, given, size)
        given = tuple(n + a + b for n, (a, b) in zip(given, pads, strict=True))
        if any(map(any, pads)):
            pads = [(0, 0), *pads[: axis - 1], (0, 0), *pads[axis - 1 :]]
            shape = tuple(n and n + a + b for n, (a, b) in zip(x.shape, pads, strict=True))
            value = float(operation.fill_value) if operation.pad_to_aspect_ratio else 0.0
            nodes = [replace(padding.constant(pads, value, ""), shape=shape)]
    antialias = bool(operation.antialias)
    if function in ("cubic", "lanczos3") and not antialias and not all(map(_grows, given, size, (None, None))):
        raise Unsupported(
            f"interpolation={operation.interpolation!r} to {tuple(size)}, where an axis shrinks or is open, without "
            "antialiasing",
            "torch has it with antialiasing alone: use antialias=True",
        )
    if function == "cubic" and not antialias and not all(map(interpolation.in_table, given, size)):
        raise _table(f"interpolation='bicubic' from {given} to {tuple(size)}", "use antialias=True, which is exact")
    return [*nodes, resize(function, given, size, axis, name, antialias=antialias)]


def _from_scale_and_translate(layer: KerasLayer) -> Node:
    x, made, config = layer.inputs[0], layer.outputs[0], layer.config
    axes = [a % x.rank for a in config["spatial_dims"]]
    axis = 1 if axes == list(range(2, x.rank)) else x.rank - 1
    given, sizes = spatial(x.shape, axis), spatial(made.shape, axis)
    scale, translation = (np.asarray(layer.arguments[k], "float64") for k in ("scale", "translation"))
    if x.rank not in (3, 4, 5) or axes != [a for a in range(1, x.rank) if a != axis] or None in (*given, *sizes):
        raise Unsupported(
            f"it scales axes {tuple(axes)} of {x.shape}",
            "scale all but batch and channels, of an input of a fixed size",
        )
    function, antialias = METHODS.get(config["method"]), config["antialias"]
    shrinks, rule = min(scale) < 1, "half_pixel"
    if function is None or (x.rank != 4 and (function != "linear" or (antialias and shrinks))):
        raise Unsupported(f"method={config['method']!r} with antialias={antialias} on {x.shape}", "resize images")
    if function != "linear" and shrinks and not antialias:
        raise Unsupported(f"method={config['method']!r} without antialiasing", "use antialias=True")
    if np.allclose([scale, translation], np.transpose([_align(n, m) for n, m in zip(given, sizes, strict=True)]), 1e-6):
        rule = "align_corners"
    elif translation.any() or not all(map(_as_torch, given, sizes, scale)):
        raise Unsupported(
            f"scale={scale.tolist()} and translation={translation.tolist()} from {given} to {sizes}",
            "torch can scale the whole image, or keep its corners where they are",
        )
    if rule == "align_corners" and (function != "linear" or (antialias and shrinks)):
        reason = f"method={config['method']!r} with antialias={antialias} and corners that stay where they are"
        raise Unsupported(reason, "use method='linear' without antialiasing")
    return resize(function, given, sizes, axis, layer.path, scale.tolist(), rule, antialias)


def _as_torch(given: int, size: int, scale: float) -> bool:
    """Whether torch makes that size of that scale; where it is the same, it does not scale."""
    return size == math.floor(given * scale + 1e-9) and (size != given or scale == 1)


def of_einsum(layer: KerasLayer) -> Node | None:
    """The node for keras.ops.einsum with the matrices of a resizing, as the bridge writes it."""
    x, *matrices = layer.arguments["operands"]
    rank = layer.rank
    if x is layer.inputs[0] and len(layer.inputs) == 1 and layer.config["subscripts"] == EINSUMS.get(rank):
        arrays = list(map(np.asarray, matrices))
        if named := interpolation.named(arrays):
            given, sizes = zip(*(m.shape for m in arrays), strict=True)
            function, rule, factors = named
            return resize(function, given, sizes, rank - 1, layer.path, factors, rule, a=interpolation.TORCHS)
    return None


def write_keras(node: Node) -> list[KerasCall]:
    x, made, axis = node.inputs[0], node.outputs[0], node["axis"]
    given, sizes, factors = spatial(x.shape, axis), spatial(made.shape, axis), node["factors"]
    function, rank = node["function"], len(given)
    plain = node["rule"] == "half_pixel" and node.attributes.get("a") != interpolation.TORCHS
    kind = next(name for name, ours in FUNCTIONS.items() if ours == function)
    if plain and node["sizes"] is None:
        if function == "nearest":
            return [KerasCall(f"UpSampling{rank}D", {"size": factors if rank > 1 else factors[0]})]
        if rank == 2 and (function != "cubic" or all(interpolation.in_table(1, f) for f in factors)):
            return [KerasCall("UpSampling2D", {"size": factors, "interpolation": kind})]
    if plain and rank == 2 and None not in sizes and not (node["sizes"] and factors):
        options = {"antialias": True} if node["antialias"] or function in ("cubic", "lanczos3") else {}
        options |= {"height": sizes[0], "width": sizes[1], "interpolation": kind}
        return [KerasCall("Resizing", options)]
    if None in (*given, *sizes):
        raise Unsupported(
            f"{function} interpolation by the rule {node['rule']!r} over {rank} axes at an open size",
            "Keras has it at fixed sizes alone: export with the sizes fixed",
        )
    if function == "nearest" or node.attributes.get("a") == interpolation.TORCHS:
        axes = zip(given, sizes, factors if node["sizes"] and factors else (None,) * rank, strict=True)
        matrices = [interpolation.matrix(function, node["rule"], *numbers, x.dtype) for numbers in axes]
        return [KerasCall("ops.einsum", leading=(EINSUMS[x.rank],), trailing=tuple(matrices))]
    if node["rule"] == "align_corners":
        scale, translation = np.transpose([_align(n, m) for n, m in zip(given, sizes, strict=True)])
    else:
        scale, translation = np.array(factors or np.divide(sizes, given), "float64"), np.zeros(rank)
    options = {"spatial_dims": tuple(range(1, rank + 1)), "method": function, "antialias": node["antialias"]}
    numbers = {"output_shape": made.shape, "scale": scale, "translation": translation}
    return [KerasCall("ops.image.scale_and_translate", numbers | options)]


def read_torch(call: TorchOperation) -> list[Node]:
    a, x, made = call.arguments, call.inputs[0], call.outputs[0]
    if "float" not in x.dtype:
        rounds = not call.target.startswith(("upsample_nearest", "_upsample_nearest"))  # as torch's parts need not do
        raise Unsupported(f"it resizes {x.dtype}", "convert the image to a float dtype before", final=rounds)
    function, rule = ATEN[call.target]
    antialias = call.target.endswith("_aa")
    if a.get("align_corners"):
        if antialias:
            raise Unsupported("align_corners=True with antialias=True", "use one of them")
        rule = "align_corners"
    factors = a.get("scale_factors") or [a.get(k) for k in ("scales_d", "scales_h", "scales_w", "scales") if k in a]
    if not factors or None in factors:
        factors = [_ratio(*two) for two in zip(x.symbols[2:], made.symbols[2:], strict=True)]
    else:
        pairs = zip(x.symbols[2:], made.symbols[2:], factors, strict=True)
        factors = [_passes(call.target, *pair, made.shape[2:]) for pair in pairs]
    given, sizes = x.shape[2:], made.shape[2:]
    if function == "nearest":
        interpolation.check_rounding(rule, given, sizes, factors, x.dtype)
    if antialias:
        _check_width(x.shape[1], given, sizes)
    if not antialias and None in factors and any(isinstance(n, str) for n in made.symbols[2:]):
        return resizing_like.nodes(function, rule, x, call)
    if None in given and not antialias and None not in factors:
        plain = rule != "align_corners" and function != "cubic" and (function == "nearest" or x.rank == 4)
        whole = [f == int(f) for f in factors]
        if not plain or not all(w or _part(f) for f, w in zip(factors, whole, strict=True)):
            return resizing_like.nodes(function, rule, x, call, factors)
        if not all(whole):
            return _in_parts(function, rule, x, made, factors, call.path)
    a = interpolation.KEYS if antialias else interpolation.TORCHS
    return [resize(function, given, sizes, 1, call.path, factors, rule, antialias, a)]


def _passes(target: str, given, size, factor: float, sizes) -> float:
    """The factor by which torch works: it passes over an axis that keeps its size, or nearest on one that doubles."""
    nearest = "nearest" in target
    small = len(sizes) == 2 and None not in sizes and sum(sizes) <= 128
    if given == size and target != "upsample_bicubic2d" and (not nearest or (small and "exact" not in target)):
        return 1.0
    doubles = target == "upsample_nearest2d" and small and isinstance(given, int) and size == 2 * given
    return 2.0 if doubles else factor


def _check_width(channels: int | None, given, sizes) -> None:
    """Refuse what torch takes in the wrong order between its two passes."""
    if sizes[1] == 1 and len({1, sizes[0], given[0]}) == 3 and channels != 1:
        raise Unsupported(
            f"antialiased resizing from {tuple(given)} to {tuple(sizes)}: torch exchanges channels and rows where the "
            "width becomes 1",
            "resize to the height first, and to the width next",
        )


def _part(factor: float | None) -> int | None:
    """The n of a factor of 1/n, if torch makes n // factor of any size by it."""
    n = round(1 / factor) if factor and factor < 1 else 1
    return n if n > 1 and factor == 1 / n and all(math.floor(i * factor) == i // n for i in range(4096)) else None


def _in_parts(function: str, rule: str, x: Value, made: Value, factors, name: str) -> list[Node]:
    """Nodes for factors of 1/n at open sizes: every n-th pixel or, half-way between two, their mean."""
    items, pool, strides, cut, given = [slice(None)] * 2, [], [], [*x.shape[:2]], [*x.shape[:2]]
    for n, size, factor in zip(x.shape[2:], made.shape[2:], factors, strict=True):
        part = _part(factor) or 1
        mean = function == "linear" and part % 2 == 0
        before = 0 if rule == "asymmetric" else part // 2 - mean
        after = part - 1 - mean - before
        items.append(slice(before, -after or None, 1 if mean else part))
        cut.append(size if part > 1 and not mean else n and n - before - after)
        given.append(size if part > 1 else n)
        pool.append(1 + mean)
        strides.append(part if mean else 1)
    nodes = slices.index(x, tuple(items), replace(x, name=f"{made.name}:cut", shape=tuple(cut), symbols=()), "")
    means = replace(made, name=f"{made.name}:means", shape=tuple(given), symbols=())
    nodes.append(replace(pooling.average(tuple(pool), tuple(strides), 1), inputs=nodes[-1].outputs, outputs=[means]))
    whole = [1.0 if _part(f) else f for f in factors]
    last = resize(function, given[2:], made.shape[2:], 1, name, whole, rule)
    return [*nodes, replace(last, inputs=[means], outputs=[made])]


def _ratio(given: int | str, size: int | str) -> float | None:
    """The whole factor that torch.export's names of two open sizes show."""
    if isinstance(given, int) or isinstance(size, int) or given == size:
        return 1.0 if given == size else None
    for pattern in (r"(\d+)\*(.+)", r"TruncToInt\((\d+)\.0\*ToFloat(\(.+\))\)"):
        found = re.fullmatch(pattern, size)
        if found and (found[2] == f"({given})" or (found[2] == given and given.isalnum())):
            return float(found[1])
    return None


def write_torch(node: Node) -> TorchCall:
    function, factors, sizes = node["function"], node["factors"], node["sizes"]
    rank = node.inputs[0].rank - 2
    mode, rule = MODES[function][rank - 1], node["rule"]
    given, made = (spatial(v.shape, node["axis"]) for v in (node.inputs[0], node.outputs[0]))
    if function == "nearest" and (rule == "asymmetric" or (not sizes and all(map(interpolation.repeats, factors)))):
        mode, rule = "nearest", "asymmetric"
    if function == "nearest":
        interpolation.check_rounding(rule, given, made, factors, node.inputs[0].dtype)
    options = {"scale_factor": single(factors)} if factors else {"size": single(sizes)}
    options["mode"] = mode
    if node["rule"] == "align_corners":
        options["align_corners"] = True
    if node["antialias"] or function == "lanczos3" or node.attributes.get("a") == interpolation.KEYS:
        options["antialias"] = True  # nn.Upsample has no such option
        _check_width(node.inputs[0].shape[node["axis"]], given, made)
    elif node.name:
        return TorchCall("{self}({0})", call_source("nn.Upsample", **options))
    return TorchCall(call_source("F.interpolate", **options).replace("(", "({0}, ", 1))
