"""Images by functions: keras.ops.image.{rgb_to_grayscale, pad_images, gaussian_blur, sobel_edges, ssim, ...}.

A blur, Sobel's edges and the windows of SSIM are depthwise convolutions with frozen kernels; the rest is slices, pads
and arithmetic. Where a hue is none, its gradient is 0. An affine or perspective transform by numbers takes the cells
that each pixel is made of, whose places TensorFlow computes in float32, as it does what it makes of them.
"""

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer

OPERATORS = ()  # convolutions, slices, pads, arithmetic
TORCH = ()
LAYOUT = anything
GRADIENT = (
    "TensorFlow's gradient of it is the gradient moved back, torch's is that of what it does; weights before it are "
    "trained otherwise"
)
SINGLE = 5e-7  # what TensorFlow's transforms reach, whatever the dtype
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


def _beyond(place: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Where TensorFlow looks for what is at a place along an axis, in its words and in float32."""
    n = np.float32(size)
    match mode:
        case "nearest":
            return np.clip(place, 0, n - 1)
        case "wrap":
            turned = np.where(place < 0, place + n * (np.trunc(-place / (n - 1)) + 1), place)
            turned = np.where(place > n - 1, place - n * np.trunc(place / (n - 1)), turned)
            return np.clip(turned, 0, n - 1) if size > 1 else np.zeros_like(place)
        case "reflect":
            near = np.where(place < 0, place + 2 * n * np.trunc(-place / (2 * n)), place)
            below = np.where(near < -n, near + 2 * n, -near - 1)
            above = place - 2 * n * np.trunc(place / (2 * n))
            above = np.where(above >= n, 2 * n - above - 1, above)
            turned = np.where(place < 0, below, np.where(place > n - 1, above, place))
            return np.clip(turned, 0, n - 1) if size > 1 else np.zeros_like(place)
    return place


def _moved(ops, o, x, transform: np.ndarray, mode: str):
    """The image whose pixels are those of another at the places that eight numbers say."""
    (y,) = _last(ops, o, x)
    if None in y.shape[1:]:
        raise Unsupported(f"it moves the pixels of an image of shape {tuple(x.shape)}", "fix all sizes but the batch")
    if transform.size != 8:
        raise Unsupported("it has a transform for each image", "give one transform")
    t, (high, wide, channel) = transform.astype("float32").ravel(), y.shape[1:]
    row, column = np.meshgrid(*(np.arange(n, dtype="float32") for n in (high, wide)), indexing="ij")
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = t[6] * column + t[7] * row + np.float32(1)
        places = [(t[i] * column + t[i + 1] * row + t[i + 2]) / depth for i in (3, 0)]
    if not np.isfinite(places).all():
        raise Unsupported("its transform takes pixels from infinity", "give another transform")
    rows, columns = (_beyond(p, n, mode) for p, n in zip(places, (high, wide), strict=True))
    if o.interpolation == "nearest":
        taken = [tuple(np.copysign(np.floor(np.abs(p) + np.float32(0.5)), p) for p in (rows, columns))]
        weights = [np.ones_like(rows)]
    else:
        top, left = np.floor(rows), np.floor(columns)
        taken = [(top + i, left + j) for i in (0, 1) for j in (0, 1)]
        weights = [(1 - np.abs(rows - a)) * (1 - np.abs(columns - b)) for a, b in taken]
    cells = [
        np.where((a >= 0) & (a < high) & (b >= 0) & (b < wide), a * wide + b, high * wide).astype("int32").ravel()
        for a, b in taken
    ]
    flat = ops.pad(ops.reshape(y, (-1, high * wide, channel)), ((0, 0), (0, 1), (0, 0)), constant_values=o.fill_value)
    made = [ops.take(flat, index, axis=1) for index in cells]
    if len(made) > 1:
        made = [part * w.astype(x.dtype).reshape(-1, 1) for part, w in zip(made, weights, strict=True)]
    made = ops.reshape(sum(made[1:], made[0]), (-1, high, wide, channel))
    return ops.moveaxis(made, -1, 1) if o.data_format == "channels_first" else made


def _numbers(*tensors) -> None:
    if any(hasattr(t, "_keras_history") for t in tensors):
        raise Unsupported("what it moves the pixels by is a tensor", "give it as numbers")


def _affine(ops, o, x, transform):
    _numbers(transform)
    return _moved(ops, o, x, np.asarray(transform), o.fill_mode)


def _perspective(ops, o, x, start, end):
    from keras.src.backend.tensorflow.image import compute_homography_matrix

    _numbers(start, end)
    start, end = (np.asarray(points, "float32").reshape(-1, 4, 2) for points in (start, end))
    return _moved(ops, o, x, np.asarray(compute_homography_matrix(start, end)), "constant")


PARTS = {
    "ops.AffineTransform": _affine,
    "ops.CropImages": _crop,
    "ops.GaussianBlur": _blur,
    "ops.HSVToRGB": _to_rgb,
    "ops.PadImages": _pad,
    "ops.PerspectiveTransform": _perspective,
    "ops.RGBToGrayscale": _gray,
    "ops.RGBToHSV": _to_hsv,
    "ops.SSIM": _ssim,
    "ops.SobelEdges": _sobel,
}
KERAS = tuple(PARTS)


def read_keras(layer: KerasLayer) -> list[Node]:
    nodes = keras_parts.read(layer, PARTS)
    if layer.class_name in ("ops.AffineTransform", "ops.PerspectiveTransform"):
        for name in {n for node in nodes for n in node.parameters.values()}:
            if "float" in layer.parameters[name].value.dtype.name:
                layer.parameters[name].rounding = SINGLE
        layer.notes.append(f"{layer.path}: {GRADIENT}")
    return nodes
