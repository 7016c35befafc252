"""Sampling an image at the places of a grid, as a spatial transformer does: F.grid_sample and F.affine_grid.

Keras has no such function. What it has here is a small model of keras.ops (`sample`, `affine`), which is one layer of
the network, needs nothing but Keras, and is known again by what it computes (`bridge.composed`). keras.ops.image has
map_coordinates, which interpolates along the batch and the channels too, and affine_transform, which is one of float32.
Pixels are gathered as rows of channels, at any size; a float of 1e9 would still be cast to a pixel inside.

The places are (x, y) or (x, y, z) from -1 to 1. "border" and "reflection" move the place itself or, for cubic, the
pixels around it. At the border itself torch's gradient is 0, as it is of two ReLUs, not of a clip: where a transformer
begins at the identity, all of the border is there. Nearest rounds half to even, and has no gradient for the grid.
"""

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, channel_order, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal

FUNCTIONS = ("bilinear", "nearest", "bicubic")  # in the order of ATen's numbers
PADDINGS = ("zeros", "border", "reflection")

OPERATORS = ("grid_sample", "affine_grid")
KERAS = ("model.grid_sample", "model.affine_grid")
TORCH = ("grid_sampler", "affine_grid_generator")
CUBIC = -0.75  # torch's `a`


def LAYOUT(node: Node, context: Context) -> Placement:
    if node.operator == "affine_grid":
        return fixed(node, context)
    image, grid = node.inputs
    order = channel_order(image.rank, node["axis"], context.target)
    return Placement([order, identity(grid.rank)], [order], {"axis": order.index(node["axis"])})


def sample(image, grid, function: str, padding: str, align_corners: bool):
    """F.grid_sample in keras.ops, of an image (B, [D,] H, W, C) at the places of a grid (B, ..., 2 or 3)."""
    from keras import ops

    rank = len(image.shape) - 2
    batch = ops.cumsum(ops.cast(ops.ones_like(grid[..., 0]), "int32")[(slice(None), *[slice(0, 1)] * rank)], axis=0) - 1
    rows, weights = batch[(..., *[None] * rank)], []
    for axis in range(rank):
        size = image.shape[axis + 1]
        if size is None:
            at = tuple(slice(None) if a == axis + 1 else 0 for a in range(rank + 2))
            size = ops.sum(ops.ones_like(image[at]))
        place = grid[..., rank - 1 - axis] + 1.0
        place = place * ((size - 1) * 0.5) if align_corners else place * (size * 0.5) - 0.5
        inside = {
            "zeros": lambda x, size: x,
            "border": _border,
            "reflection": partial(_reflection, align_corners=align_corners),
        }[padding]
        if function != "bicubic":
            place = inside(place, size)
        pixels, weight = _taps(place, function)
        if function == "bicubic":
            pixels = inside(pixels, size)
        known = ops.clip(pixels, 0.0, size - 1) if isinstance(size, int) else ops.minimum(ops.relu(pixels), size - 1)
        if padding == "zeros":
            seen = ops.cast(ops.equal(known, pixels), image.dtype)
            weight = seen if weight is None else weight * seen
        weights.append(weight)
        known = ops.cast(known, "int32")
        apart = (..., *[None] * axis, slice(None), *[None] * (rank - 1 - axis))
        rows = rows * (size if isinstance(size, int) else ops.cast(size, "int32")) + known[apart]
    values = ops.take(ops.reshape(image, (-1, image.shape[-1])), rows, axis=0)  # (B, ..., taps of each axis, C)
    for weight in reversed(weights):
        if weight is None:
            values = values[..., 0, :]
        else:
            apart = (..., *[None] * (len(values.shape) - len(weight.shape) - 1), slice(None), None)
            values = ops.sum(values * weight[apart], axis=-2)
    return values


def _border(place, size):
    from keras import ops

    return (size - 1) - ops.relu((size - 1) - ops.relu(place))


def _reflection(place, size, align_corners: bool):
    """Reflected at the centers of the first and last pixel or at their outer edges, and then at the border."""
    from keras import ops

    low = 0.0 if align_corners else -0.5
    span = size - 1 if align_corners else size
    span = max(span, 1) if isinstance(size, int) else ops.maximum(span, 1.0)
    place = ops.absolute(place - low)
    place = place - ops.floor(place / (2 * span)) * (2 * span)
    return _border(span - ops.absolute(span - place) + low, size)


def _taps(place, function: str):
    """The pixels along an axis that make the value at each place, and their weights, as a last axis."""
    from keras import ops

    if function == "nearest":
        return ops.round(place)[..., None], None
    first = ops.floor(place)
    t, a = place - first, CUBIC
    if function == "bilinear":
        return ops.stack([first, first + 1.0], axis=-1), ops.stack([1.0 - t, t], axis=-1)

    def near(d):
        return ((a + 2) * d - (a + 3)) * d * d + 1.0

    def far(d):
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
    return ops.stack([first - 1.0, first, first + 1.0, first + 2.0], axis=-1), ops.stack(weights, axis=-1)


def affine(theta, sizes: tuple[int, ...], align_corners: bool):
    """F.affine_grid in keras.ops: the places to which matrices (B, n, n + 1) move the pixels of an image of n axes."""
    rank = len(sizes)
    apart = (slice(None), *[None] * rank, slice(None))
    grid = theta[..., rank][apart]  # (B, 1, ..., n)
    for axis, size in enumerate(sizes):
        steps = np.arange(1 - size, size, 2, dtype="int32").reshape([-1 if a == axis else 1 for a in range(rank + 1)])
        part = theta[..., rank - 1 - axis][apart] * steps
        grid = grid + part / max(size - align_corners, 1)
    return grid  # (B, *sizes, n)


MODELS = {"grid_sample": sample, "affine_grid": affine}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made, by its inputs and output."""
    inputs, output = model.inputs, model.outputs[0]
    ranks = [len(x.shape) for x in inputs]
    if name == "affine_grid" and ranks == [3] and None not in output.shape[1:]:
        yield from ({"sizes": tuple(output.shape[1:-1]), "align_corners": align} for align in (False, True))
    elif name == "grid_sample" and ranks in ([4, 4], [5, 5]) and inputs[1].shape[-1] == ranks[0] - 2:
        functions = FUNCTIONS if ranks[0] == 4 else FUNCTIONS[:2]
        for function, padding, align in itertools.product(functions, PADDINGS, (False, True)):
            yield {"function": function, "padding": padding, "align_corners": align}


def read_keras(layer: KerasLayer) -> list[Node]:
    axis = {"axis": layer.rank - 1} if layer.class_name == "model.grid_sample" else {}
    return [Node(layer.class_name.removeprefix("model."), layer.config | axis, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    given = {k: v for k, v in node.attributes.items() if k != "axis"}
    return [KerasCall(f"model.{node.operator}", given)]


def read_torch(call: TorchOperation) -> list[Node]:
    if call.target == "affine_grid_generator":
        sizes = tuple(call["size"])[2:]
        if not all(isinstance(n, int) for n in sizes):
            raise Unsupported("its size is computed from an open size of the input", "export with that size fixed")
        return [Node("affine_grid", {"sizes": sizes, "align_corners": call["align_corners"]}, name=call.path)]
    attributes = {
        "function": FUNCTIONS[call["interpolation_mode"]],
        "padding": PADDINGS[call["padding_mode"]],
        "align_corners": call["align_corners"],
        "axis": 1,
    }
    image, grid = call["input"], call["grid"]
    if not isinstance(image, Value) or not isinstance(grid, Value):
        raise Unsupported("its image or grid is a constant or a weight", "let both flow")  # the reader does so
    return [Node("grid_sample", attributes, name=call.path, inputs=[image, grid])]


def write_torch(node: Node) -> TorchCall:
    corners = f"align_corners={node['align_corners']}"
    if node.operator == "affine_grid":
        sizes = ", ".join(map(str, node["sizes"]))
        return TorchCall(f"F.affine_grid({{0}}, ({{0}}.shape[0], 1, {sizes}), {corners})")
    options = f"mode={literal(node['function'])}, padding_mode={literal(node['padding'])}, {corners}"
    return TorchCall(f"F.grid_sample({{0}}, {{1}}, {options})")
