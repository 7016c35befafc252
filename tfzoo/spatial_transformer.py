"""Spatial transformer (Jaderberg et al., 2015, https://arxiv.org/abs/1506.02025).

    image -+---------------------------------- sampler - rectified (h, w) - classifier - logits
           '- localisation - theta - grid (h, w, 2) -'

The localisation network sees the picture and gives a few numbers, theta. The grid generator makes of them the place in
the picture that each pixel of the output comes from; the sampler reads the picture there. Both are plain functions of
keras.ops, so theta is learned from the classifier's loss alone.

A place is (x, y): x from -1, the center of the first column, to 1, the center of the last one (`align_corners=True` in
torch), and y from the first row down to the last.
"""

from functools import partial

import keras
import numpy as np
from keras import layers, ops

from tfzoo.layers import arguments
from tfzoo.layers.classifier import signatures as signatures  # what an export serves

SIZES = {
    "default": {"localisation_widths": (20, 20), "widths": (32, 32)},
    "tiny": {
        "image_shape": (16, 16, 1),
        "localisation_widths": (4, 8),
        "localisation_units": 16,
        "widths": (8, 16),
    },
}
PARAMETERS = {"default": 1_185_378, "tiny": 40_688}
BORDERS = ("zeros", "border")
HORIZON = 1e-6  # what a projective transformation divides by, at the least


def affine(theta, size: tuple[int, int]):
    """Give the places of an affine transformation (equation 1): shift, turn, scale, shear.

    Args:
        theta: `(B, 6)`, the rows of the matrix [[a, b, c], [d, e, f]]: x = a x' + b y' + c, y = d x' + e y' + f, where
            (x', y') is the pixel's own place in the output. The identity is (1, 0, 0, 0, 1, 0).
        size: Height and width of the output in pixels.

    Returns:
        Where each pixel of the output comes from: `(B, h, w, 2)`, (x, y) from -1 to 1.

    Raises:
        ValueError: theta has another shape.
    """
    return linear(ops.reshape(known(theta, 6), (-1, 2, 3)), size)


def translation(theta, size: tuple[int, int]):
    """Give the places of a shift.

    Args:
        theta: `(B, 2)`, (x, y) in halves of the picture: at (1, 0) the output's left edge is the picture's middle. The
            identity is (0, 0).
        size: Height and width of the output in pixels.

    Returns:
        Where each pixel of the output comes from: `(B, h, w, 2)`, (x, y) from -1 to 1.

    Raises:
        ValueError: theta has another shape.
    """
    return own(known(theta, 2)[:, None, None], size)


def projective(theta, size: tuple[int, int]):
    """Give the places of a projective transformation, as of a plane that is photographed from aside.

    Args:
        theta: `(B, 8)`, the rows of the matrix [[a, b, c], [d, e, f], [g, h, 1]]: it takes (x', y', 1), the pixel's own
            place in the output, to (u, v, s), and x = u / s, y = v / s. The identity is (1, 0, 0, 0, 1, 0, 0, 0).
        size: Height and width of the output in pixels.

    Returns:
        Where each pixel of the output comes from: `(B, h, w, 2)`, (x, y) from -1 to 1. On the horizon, where s is 0, s
        is taken for 1e-6; beyond it the formula goes on as it is.

    Raises:
        ValueError: theta has another shape.
    """
    one = ops.ones_like(known(theta, 8)[:, :1])
    place = linear(ops.reshape(ops.concatenate([theta, one], axis=1), (-1, 3, 3)), size)  # (B, h, w, 3)
    s = place[..., 2:]
    s = ops.where(ops.absolute(s) < HORIZON, HORIZON, s)
    return place[..., :2] / s


def thin_plate(theta, size: tuple[int, int], points: int = 4):
    """Give the places of a thin-plate spline (Bookstein, 1989), the smoothest map that takes some points to others.

    Args:
        theta: `(B, 2 points^2)`, for each control point of the output, (x, y) of the place in the picture that it
            comes from. The control points are those of a regular grid from -1 to 1, row by row; they themselves are
            the identity.
        size: Height and width of the output in pixels.
        points: Control points on each side of their grid.

    Returns:
        Where each pixel of the output comes from: `(B, h, w, 2)`, (x, y) from -1 to 1.

    Raises:
        ValueError: theta has another shape.
    """
    dtype = keras.backend.standardize_dtype(theta.dtype)
    # What is interpolated is how far the points are moved, which is nothing where they are not, without rounding.
    moved = known(theta, 2 * points**2) - np.array(identity("thin_plate", points), dtype)
    moved = ops.matmul(spline(size, points).astype(dtype), ops.reshape(moved, (-1, points**2, 2)))  # (B, h w, 2)
    return own(ops.reshape(moved, (-1, *size, 2)), size)


def spline(size: tuple[int, int], points: int) -> np.ndarray:
    """Solve for the thin-plate spline: the matrix `(h w, points^2)` from values at the control points to all pixels.

    With f(p) = sum_j c_j U(|p - p_j|) + a + b x + d y and U(r) = r^2 log r^2, where c is orthogonal to 1, x and y, the
    values at the control points are a linear system in (c, a, b, d), and f is linear in those.
    """
    control = regular((points, points))

    def terms(places):
        squared = np.square(places[:, None] - control).sum(-1)
        bent = squared * np.log(np.where(squared == 0, 1, squared))
        return np.concatenate([bent, np.ones((len(places), 1)), places], axis=1)

    system = np.zeros((len(control) + 3, len(control) + 3))
    system[: len(control)] = terms(control)
    system[len(control) :, : len(control)] = system[: len(control), len(control) :].T
    return terms(regular(size)) @ np.linalg.inv(system)[:, : len(control)]


GRIDS = {"affine": affine, "translation": translation, "projective": projective, "thin_plate": thin_plate}


def identity(transform: str, points: int = 4) -> list[float]:
    """Give the theta at which a transformation of `GRIDS` changes nothing.

    Args:
        transform: A key of `GRIDS`.
        points: Control points of "thin_plate" on each side of their grid.

    Raises:
        ValueError: An argument is of another type or out of range.
    """
    arguments.refuse(arguments.among(GRIDS, transform=transform), two_or_more(points))
    if transform == "thin_plate":
        return regular((points, points)).ravel().tolist()
    return {"affine": [1, 0, 0, 0, 1, 0], "translation": [0, 0], "projective": [1, 0, 0, 0, 1, 0, 0, 0]}[transform]


def sample(image, grid, border: str = "zeros"):
    """Read a picture between its pixels, bilinearly (equation 5).

    Args:
        image: `(B, H, W, C)`; H and W are numbers, not open.
        grid: `(B, h, w, 2)`, the places to be read: (x, y) from -1 to 1.
        border: What is beyond the outermost pixels' centers: "zeros", pixels of 0, so that the picture fades out over
            the width of one; "border", the nearest of the outermost pixels.

    Returns:
        What is there, `(B, h, w, C)`. Gradients flow to the picture and the places. At a pixel's center, where the
        function has a kink, that of the place is the slope to the next pixel on the right or below.

    Raises:
        ValueError: Another border, shape or number of axes.
    """
    shape = image.shape
    arguments.refuse(
        arguments.among(BORDERS, border=border),
        [f"image must be (B, H, W, C) with H and W not open. Received: image of the shape {tuple(shape)}"]
        if len(shape) != 4 or None in shape[1:]
        else [],
        [f"grid must be (B, h, w, 2). Received: grid of the shape {tuple(grid.shape)}"]
        if len(grid.shape) != 4 or grid.shape[-1] != 2
        else [],
    )
    _, height, width, channels = shape
    pixels, weights = neighbours(grid, (width, height), border)  # (B, h, w, 2, 2), (x, y) last
    x, y = pixels[..., 0], pixels[..., 1]
    number = ops.cumsum(ops.ones_like(y[:, :1, :1, :1]), axis=0) - 1  # the picture's, in a batch of any size
    rows = (number * height + y)[..., None] * width + x[..., None, :]  # (B, h, w, 2, 2): rows, then columns
    values = ops.take(ops.reshape(image, (-1, channels)), rows, axis=0)  # (B, h, w, 2, 2, C)
    weights = weights[..., 1][..., None] * weights[..., 0][..., None, :]
    return ops.sum(values * weights[..., None], axis=(-3, -2))


def neighbours(grid, sizes: tuple[int, int], border: str):
    """Find the two columns and the two rows of pixels between which places are.

    Args:
        grid: `(B, h, w, 2)`, from -1 to 1.
        sizes: Width and height of the picture in pixels, as the grid has x and y.
        border: As in `sample`.

    Returns:
        Their numbers, int32 `(B, h, w, 2, 2)`, first and second, (x, y), all of them in the picture; and their weights,
        of the same shape.
    """
    last = np.array(sizes, keras.backend.standardize_dtype(grid.dtype)) - 1
    # Not (grid + 1) * last / 2: that sum rounds off what a float32 knows of a place, up to 4e-6 of 60 pixels.
    place = grid * (last / 2) + last / 2
    # Farther out than a pixel away nothing changes, and the weights of an infinite place would be no numbers.
    place = ops.clip(place, -2.0, max(sizes) + 1.0)
    if border == "border":
        # The slope at the first pixel's center is 0, as torch has it and as it is beyond; a clip's would be 1.
        place = ops.minimum(ops.relu(place), last)
    before = ops.floor(place)
    pixels = ops.stack([before, before + 1.0], axis=-2)
    # The weights are those of the place as it is; only then are its pixels brought into the picture.
    weights = ops.stack([1.0 - (place - before), place - before], axis=-2)
    if border == "border":
        pixels = ops.minimum(pixels, last)
    # What is not a number is in no picture: its weight stays none, but its pixel can be read.
    inside = ops.logical_and(pixels >= 0.0, pixels <= last)
    return ops.cast(ops.where(inside, pixels, 0.0), "int32"), weights * ops.cast(inside, weights.dtype)


def linear(matrix, size: tuple[int, int]):
    """Multiply (x', y', 1) of every pixel of an output by matrices `(B, n, 3)`: `(B, h, w, n)`.

    The coordinates are the last axis of all that is added: what has a single axis longer than 1 (a column of places,
    in a batch of one) Keras' addition may take for a bias of another axis.
    """
    x, y = axes(size, matrix.dtype)
    columns = [matrix[:, None, None, :, i] for i in range(3)]
    return columns[2] + columns[0] * x + columns[1] * y


def own(moved, size: tuple[int, int]):
    """Add every pixel's own place in an output to how far it is moved, `(B, h or 1, w or 1, 2)`: `(B, h, w, 2)`."""
    x, y = axes(size, moved.dtype)
    return moved + x * np.array([1, 0], x.dtype) + y * np.array([0, 1], y.dtype)


def axes(size: tuple[int, int], dtype) -> tuple[np.ndarray, np.ndarray]:
    """Give x of an output's columns, `(1, 1, w, 1)`, and y of its rows, `(1, h, 1, 1)`; a single one is at 0."""
    dtype = keras.backend.standardize_dtype(dtype)
    y, x = (np.arange(1 - n, n, 2) / max(n - 1, 1) for n in size)
    return x[None, None, :, None].astype(dtype), y[None, :, None, None].astype(dtype)


def regular(size: tuple[int, int]) -> np.ndarray:
    """Give the places of an output's own pixels, row by row: `(h w, 2)`, (x, y)."""
    return own(np.zeros((1, 1, 1, 2)), size).reshape(-1, 2)


def known(theta, count: int):
    """Give theta back if it is `(B, count)`."""
    if len(theta.shape) != 2 or theta.shape[-1] != count:
        raise ValueError(f"theta must be (B, {count}). Received: theta of the shape {tuple(theta.shape)}")
    return theta


@arguments.plain
def transformer(
    image_shape: tuple[int, int, int],
    transform: str = "affine",
    output_size: tuple[int, int] | None = None,
    localisation_widths: tuple[int, ...] = (20, 20),
    localisation_units: int = 50,
    points: int = 4,
    border: str = "zeros",
    identity_penalty: float = 0.0,
    name: str = "transformer",
) -> keras.Model:
    """Build a spatial transformer alone, which is a layer to be put in front of any network.

    Args:
        image_shape: `(H, W, C)`; H and W are at least `2**len(localisation_widths)`.
        transform: A key of `GRIDS`.
        output_size: `(h, w)` of the rectified picture in pixels; None for the image's.
        localisation_widths: Channels of the localisation network's 5x5 convolutions, each with a ReLU and a maximum
            over 2x2.
        localisation_units: Units of its hidden Dense layer.
        points: Control points of "thin_plate" on each side of their grid, from 2.
        border: What is beyond the picture: "zeros" or "border", as in `sample`.
        identity_penalty: Weight, in [0, 1), that theta's squared distance from the identity has in the loss. While the
            classifier knows nothing, an empty picture has the lowest loss, and once theta has left the picture nothing
            else brings it back.
        name: The layer's, of which a model can have but one.

    Returns:
        A model from float32 images `(B, H, W, C)` to rectified ones `(B, h, w, C)`, which begins as the identity. Its
        layer `theta` gives the transformation's numbers.

    Raises:
        ValueError: An argument is of another type or out of range, or of no effect.
    """
    arguments.refuse(
        problems(
            image_shape,
            transform,
            output_size,
            localisation_widths,
            localisation_units,
            points,
            border,
            identity_penalty,
        ),
        arguments.among(GRIDS, transform=transform) if transform is None else [],
    )
    x = image = keras.Input(image_shape, name="image")
    x = convs(x, localisation_widths, "localisation")  # (B, H/2^n, W/2^n, C')
    x = layers.Flatten(name="localisation_flatten")(x)
    x = dense(x, localisation_units, "localisation_fc")
    start = identity(transform, points)
    theta = layers.Dense(
        len(start),
        kernel_initializer="zeros",
        bias_initializer=keras.initializers.Constant(start),
        dtype="float32",  # half precision would know a place in 60 pixels to a quarter of one
        name="theta",
    )(x)
    if identity_penalty:
        penalty = layers.ActivityRegularization(l2=identity_penalty, dtype="float32", name="identity_penalty")
        theta = penalty(theta - np.float32(start)) + np.float32(start)
    generator = partial(thin_plate, points=points) if transform == "thin_plate" else GRIDS[transform]
    grid = generator(theta, tuple(output_size or image_shape[:2]))  # (B, h, w, 2)
    return keras.Model(image, sample(image, grid, border), name=name)


@arguments.plain
def spatial_transformer(
    image_shape: tuple[int, int, int] = (60, 60, 1),
    classes: int = 10,
    transform: str | None = "affine",
    output_size: tuple[int, int] | None = None,
    localisation_widths: tuple[int, ...] = (20, 20),
    localisation_units: int = 50,
    points: int = 4,
    border: str = "zeros",
    identity_penalty: float = 0.0,
    widths: tuple[int, ...] = (32, 32),
    units: int = 128,
    dropout: float = 0.0,
    include_top: bool = True,
) -> keras.Model:
    """Build a small convolutional classifier behind a spatial transformer.

    Args:
        image_shape: `(H, W, C)`; H and W are at least `2**len(localisation_widths)`.
        classes: How many there are.
        transform: A key of `GRIDS`; None for the same classifier without a transformer. The localisation network's
            arguments, which every size has, are not looked at then.
        output_size: `(h, w)` of the rectified picture in pixels, at least `2**len(widths)`; None for the image's.
        localisation_widths: Channels of the localisation network's 5x5 convolutions.
        localisation_units: Units of its hidden Dense layer.
        points: Control points of "thin_plate" on each side of their grid, from 2.
        border: What is beyond the picture: "zeros" or "border", as in `sample`.
        identity_penalty: Weight of theta's squared distance from the identity, as in `transformer`.
        widths: Channels of the classifier's 5x5 convolutions, each with a ReLU and a maximum over 2x2.
        units: Units of its hidden Dense layer.
        dropout: Rate, in [0, 1), of the dropout in front of the logits.
        include_top: Whether logits are made; else the last convolution's features are what the model gives.

    Returns:
        A model from float32 images `(B, H, W, C)` to logits `(B, classes)`, or to features `(B, h', w', widths[-1])`,
        the size halved for each width. The rectified picture, `(B, h, w, C)`, is the output of the layer `rectified`;
        `transformer` is a layer too, and `theta` one of its layers.

    Raises:
        ValueError: An argument is of another type or out of range, or of no effect.
    """
    size = output_size or (image_shape[:2] if isinstance(image_shape, (tuple, list)) else None)
    front = {
        "transform": transform,
        "output_size": output_size,
        "localisation_widths": localisation_widths,
        "localisation_units": localisation_units,
        "points": points,
        "border": border,
        "identity_penalty": identity_penalty,
    }
    arguments.refuse(
        problems(image_shape, **front),
        arguments.positive(classes=classes, units=units),
        arguments.positives(widths=widths),
        arguments.rates(dropout=dropout),
        arguments.switches(include_top=include_top),
        arguments.idle(spatial_transformer, "include_top=True", dropout=dropout) if include_top is False else [],
        halvings("classifier", "output_size or image_shape", size, widths=widths),
    )
    x = image = keras.Input(image_shape, name="image")
    if transform is not None:
        x = transformer(image_shape, **front)(x)  # (B, h, w, C)
        x = layers.Identity(dtype="float32", name="rectified")(x)
    x = convs(x, widths, "classifier")  # (B, h/2^n, w/2^n, widths[-1])
    if include_top:
        x = layers.Flatten(name="classifier_flatten")(x)
        x = dense(x, units, "classifier_fc")  # (B, units)
        x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
        # Not at random: making the picture small or empty would then lower the loss faster than anything else.
        x = layers.Dense(classes, kernel_initializer="zeros", name="logits")(x)
    return keras.Model(image, x, name="spatial_transformer")


def convs(x, widths: tuple[int, ...], name: str):
    """Convolve, rectify and halve, once for each width: `(B, H, W, C)` to `(B, H/2^n, W/2^n, widths[-1])`."""
    for i, width in enumerate(widths):
        conv = layers.Conv2D(
            width, 5, padding="same", activation="relu", kernel_initializer="he_normal", name=f"{name}_conv{i}"
        )
        x = layers.MaxPooling2D(name=f"{name}_pool{i}")(conv(x))
    return x


def dense(x, units: int, name: str):
    """Make a hidden layer: `(B, C)` to `(B, units)`."""
    return layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=name)(x)


def problems(
    image_shape, transform, output_size, localisation_widths, localisation_units, points, border, identity_penalty
) -> list[str]:
    """List what is wrong with a transformer's arguments; None is a `transform` too."""
    return [
        *arguments.image_shape(image_shape, open_size=False),
        *arguments.among((*GRIDS, None), transform=transform),
        *([] if output_size is None else arguments.positives(2, output_size=output_size)),
        *arguments.positives(localisation_widths=localisation_widths),
        *arguments.positive(localisation_units=localisation_units),
        *two_or_more(points),
        *arguments.among(BORDERS, border=border),
        *arguments.rates(identity_penalty=identity_penalty),
        *(
            arguments.idle(
                transformer,
                "a transform",
                output_size=output_size,
                border=border,
                identity_penalty=identity_penalty,
            )
            if transform is None
            else halvings("localisation network", "image_shape", image_shape, localisation_widths=localisation_widths)
        ),
        *(
            arguments.idle(transformer, "transform='thin_plate'", points=points)
            if transform != "thin_plate" and not two_or_more(points)
            else []
        ),
    ]


def two_or_more(points) -> list[str]:
    """Control points on each side of their grid: an integer from 2."""
    good = arguments.is_positive(points) and points >= 2
    return [] if good else [f"points must be an integer from 2. Received: points={points!r}"]


def halvings(network: str, names: str, size, **widths) -> list[str]:
    """Height and width that can be halved for each of some widths, where both are what they must be otherwise."""
    ((name, some),) = widths.items()
    if arguments.positives(**widths) or not isinstance(size, (tuple, list)) or len(size) < 2:
        return []
    if not all(map(arguments.is_positive, size[:2])) or min(size[:2]) >= 2 ** len(some):
        return []
    return [
        f"the {network} halves its picture {len(some)} times, so the first two of {names} must be {2 ** len(some)} or "
        f"more. Received: {tuple(size)}, {name}={some!r}"
    ]
