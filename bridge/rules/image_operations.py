"""Images by functions: keras.ops.image.{rgb_to_grayscale, pad_images, gaussian_blur, sobel_edges, ssim, ...}.

A blur, Sobel's edges and the windows of SSIM are depthwise convolutions with frozen kernels; the rest is slices, pads
and arithmetic. Where a hue is none, its gradient is 0.
"""

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

OPERATORS = ()  # convolutions, slices, pads, arithmetic
TORCH = ()
LAYOUT = anything
GRAY = (0.2989, 0.5870, 0.1140)
EDGES = ([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])  # of rows, of columns


def _channels(o) -> int:
    return -3 if o.data_format == "channels_first" else -1


def _split(ops, o, x):
    """The three channels, each with its axis."""
    before = (slice(None),) * (len(x.shape) + _channels(o))
    return [x[(*before, slice(i, i + 1))] for i in range(3)]


def _gray(ops, o, x):
    if x.shape[_channels(o)] == 1:
        return x
    if x.shape[_channels(o)] is None:
        raise Unsupported("how many channels the image has is open", "fix that size")
    real = x if "float" in x.dtype else ops.cast(x, "float32")
    red, green, blue = _split(ops, o, real)
    return ops.cast(red * GRAY[0] + green * GRAY[1] + blue * GRAY[2], x.dtype)


def _to_hsv(ops, o, x):
    red, green, blue = _split(ops, o, x)
    value = ops.maximum(ops.maximum(red, green), blue)
    span = value - ops.minimum(ops.minimum(red, green), blue)
    some = span > 0
    sixth = 1 / 6 / ops.where(some, span, 1.0)
    hue = ops.where(
        ops.equal(red, value),
        sixth * (green - blue),
        ops.where(ops.equal(green, value), sixth * (blue - red) + 2 / 6, sixth * (red - green) + 4 / 6),
    )
    hue = ops.where(some, hue, 0.0)
    lit = value > 0
    saturation = ops.where(lit, span / ops.where(lit, value, 1.0), 0.0)
    return ops.concatenate([ops.where(hue < 0, hue + 1.0, hue), saturation, value], axis=_channels(o))


def _to_rgb(ops, o, x):
    hue, saturation, value = _split(ops, o, x)
    turn = hue * 6.0
    parts = (ops.abs(turn - 3.0) - 1.0, 2.0 - ops.abs(turn - 2.0), 2.0 - ops.abs(turn - 4.0))
    grays = 1.0 - saturation
    made = [(grays + saturation * ops.clip(part, 0.0, 1.0)) * value for part in parts]
    return ops.concatenate(made, axis=_channels(o))


def _sides(o, x, kind: str) -> list[list[int | None]]:
    """What is added or cut before and behind the height and the width, and the size that is asked for."""
    axes = (-2, -1) if o.data_format == "channels_first" else (-3, -2)
    names = (("top", "bottom", "height"), ("left", "right", "width"))
    return [
        [x.shape[a], getattr(o, f"{before}_{kind}"), getattr(o, f"{behind}_{kind}"), getattr(o, f"target_{size}")]
        for a, (before, behind, size) in zip(axes, names, strict=True)
    ]


def _around(o, x, pairs: list) -> tuple:
    """A value for each axis: those of the height and the width, None for the others."""
    none = (None,) * (len(x.shape) - 3)
    return (*none, None, *pairs) if o.data_format == "channels_first" else (*none, *pairs, None)


def _pad(ops, o, x):
    pairs = []
    for size, before, behind, target in _sides(o, x, "padding"):
        if None in (before, behind) and size is None:
            raise Unsupported("it pads an open size to a given one", "fix that size, or say both paddings")
        before = target - behind - size if before is None else before
        pairs.append((before, target - before - size if behind is None else behind))
    return ops.pad(x, tuple(p or (0, 0) for p in _around(o, x, pairs)))


def _crop(ops, o, x):
    cuts = []
    for size, before, behind, target in _sides(o, x, "cropping"):
        if before is None and size is None:
            raise Unsupported("it crops an open size from its end", "fix that size, or say what is cut before")
        before = size - target - behind if before is None else before
        cuts.append(slice(before, before + (size - behind - before if target is None else target)))
    return x[tuple(c or slice(None) for c in _around(o, x, cuts))]


def _row(size: int, sigma: float) -> np.ndarray:
    """A normal distribution at as many places."""
    row = np.exp(-0.5 * np.square((np.arange(size) - (size - 1) / 2) / sigma))
    return row / row.sum()


def _filtered(ops, x, kernels: list[np.ndarray], padding: str):
    """Each channel by each of the kernels; the filtered are next to each other."""
    kernel = np.repeat(np.stack(kernels, axis=-1)[:, :, None], x.shape[-1], axis=2)
    return ops.depthwise_conv(x, kernel, padding=padding, data_format="channels_last")


def _last(ops, o, *xs):
    """Images of a batch with their channels last."""
    if any(len(x.shape) != 4 or x.shape[_channels(o)] is None for x in xs):
        raise Unsupported(f"images of shape {tuple(xs[0].shape)}", "give a batch of images, of known channels")
    if any(x.dtype not in ("float32", "float64") for x in xs):
        raise Unsupported(f"images of {', '.join(x.dtype for x in xs)}", "cast them to float32 before")
    return [ops.moveaxis(x, 1, -1) if o.data_format == "channels_first" else x for x in xs]


def _blur(ops, o, x):
    (y,) = _last(ops, o, x)
    rows = [_row(n, s) for n, s in zip(o.kernel_size, o.sigma, strict=True)]
    # Keras makes rows of the second and columns of the first, and then takes their product for one of the sizes as said
    kernel = np.outer(rows[1], rows[0]).reshape(o.kernel_size)
    made = _filtered(ops, y, [kernel], "same")
    return ops.moveaxis(made, -1, 1) if o.data_format == "channels_first" else made


def _sobel(ops, o, x):
    (y,) = _last(ops, o, x)
    y = ops.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    made = _filtered(ops, y, [np.array(k) for k in EDGES], "valid")
    parts = [made[..., i::2] for i in range(2)]
    if o.data_format == "channels_first":
        parts = [ops.moveaxis(part, -1, 1) for part in parts]
    return ops.stack(parts, axis=-1)


def _ssim(ops, o, x, y):
    x, y = _last(ops, o, x, y)
    row = _row(o.filter_size, o.filter_sigma)
    kernel = np.outer(row, row)

    def windows(t):
        return _filtered(ops, t, [kernel], "valid")

    first, second = (o.k1 * o.max_val) ** 2, (o.k2 * o.max_val) ** 2
    mean, other = windows(x), windows(y)
    squares, others, both = mean * mean, other * other, mean * other
    spread = (windows(x * x) - squares) + (windows(y * y) - others)
    made = (2.0 * both + first) * (2.0 * (windows(x * y) - both) + second)
    made = made / ((squares + others + first) * (spread + second))
    return ops.mean(made, axis=(1, 2, 3))


PARTS = {
    "ops.CropImages": _crop,
    "ops.GaussianBlur": _blur,
    "ops.HSVToRGB": _to_rgb,
    "ops.PadImages": _pad,
    "ops.RGBToGrayscale": _gray,
    "ops.RGBToHSV": _to_hsv,
    "ops.SSIM": _ssim,
    "ops.SobelEdges": _sobel,
}
KERAS = tuple(PARTS)


def read_keras(layer: KerasLayer) -> list[Node]:
    return keras_parts.read(layer, PARTS)
