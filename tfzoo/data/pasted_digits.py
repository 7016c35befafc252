"""Handwritten digits pasted on photographs, with exact masks, boxes and classes.

The digits are scikit-learn's `load_digits`, the photographs those that scikit-image and scikit-learn
bundle: nothing is downloaded. The splits share neither photograph nor digit; each has its textures, its
objects and its microscope or telescope. Validation is for choosing (the best epoch, a learning rate), so
that the held-out pictures are for judging only. The photographs text, page and clock are left out: they
show characters that no mask would name.
"""

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter

PHOTOGRAPHS = {
    "training": (
        "brick", "camera", "china", "coins", "flower", "hubble_deep_field", "moon", "retina", "stereo_motorcycle",
    ),
    "validation": ("astronaut", "cell", "grass"),
    "held_out": ("chelsea", "coffee", "gravel", "immunohistochemistry", "rocket"),
}  # fmt: skip
CONTRAST = 0.25  # least distance of a digit's luminance, at every pixel, from the mean around it
MARGIN = 4  # pixels around a digit's box that count as "around it", and that stay free of other digits
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
EPOCH = 1000  # pictures in an epoch of the training stream


@dataclass(frozen=True)
class Picture:
    """One example: image and mask in float32, boxes in pixels.

    Attributes:
        image: `(H, W, 3)` float32 in [0, 1].
        mask: `(H, W, 1)` float32, 1 on a digit and 0 elsewhere.
        boxes: `(N, 4)` int32, rows `(top, left, bottom, right)`; bottom and right are exclusive.
        classes: `(N,)` int32, 0 to 9.
    """

    image: np.ndarray
    mask: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


def picture(split: str, image_shape: tuple[int, int, int], seed: int, epoch: int, index: int) -> Picture:
    """Make picture `index` of epoch `epoch`: a pure function of its arguments.

    Args:
        split: "training", "validation" or "held_out".
        image_shape: `(H, W, 3)` in pixels, at least 32 each.
        seed: Any integer from 0; other seeds give other pictures.
        epoch: Counted from 0.
        index: Position in the epoch, from 0.

    Returns:
        One to five digits that do not overlap, each with `CONTRAST` to its surroundings.

    Raises:
        ValueError: An unknown split or an image shape that digits do not fit in.
    """
    image = background(split, image_shape, seed, epoch, index)
    rng = stream("digits", split, seed, epoch, index)
    digits, labels = handwriting(split)
    mask = np.zeros((*image.shape[:2], 1), np.float32)
    boxes, classes = [], []
    for _ in range(rng.integers(1, 6)):
        i = rng.integers(len(digits))
        shape = glyph(digits[i], min(image.shape[:2]), rng)
        box = free_place(shape.shape, image.shape[:2], boxes, rng)
        if box is None:
            continue
        top, left, bottom, right = box
        around = image[max(top - MARGIN, 0) : bottom + MARGIN, max(left - MARGIN, 0) : right + MARGIN]
        rows, columns = np.nonzero(shape)
        image[top + rows, left + columns] = ink(rows, columns, (around @ LUMINANCE).mean(), rng)
        mask[top:bottom, left:right, 0] = shape
        boxes.append(box)
        classes.append(labels[i])
    return Picture(image, mask, np.array(boxes, np.int32), np.array(classes, np.int32))


def dataset(
    split: str,
    image_shape: tuple[int, int, int],
    *,
    batch_size: int,
    seed: int,
    pictures: int | None = None,
    start: int = 0,
):
    """Stream batches of `(images, masks)`; the same arguments give the same stream.

    Args:
        split: "training" (photographs augmented), "validation" or "held_out" (photographs as they are).
        image_shape: `(H, W, 3)` in pixels.
        batch_size: Pictures in a batch.
        seed: Any integer from 0.
        pictures: How many pictures to give once; None for an endless stream, new in every epoch of `EPOCH`.
        start: The batch that an endless stream begins with.

    Returns:
        A `tf.data.Dataset` of float32 images `(B, H, W, 3)` in [0, 1] and masks `(B, H, W, 1)` in {0, 1}.

    Raises:
        ValueError: An unknown split or an image shape that digits do not fit in.
    """
    import tensorflow as tf

    from tfzoo.data.in_python import numpy_function
    from tfzoo.data.numbers import count, endless

    check(split, image_shape)

    def make(n):
        made = picture(split, image_shape, seed, *divmod(int(n), EPOCH))
        return made.image, made.mask

    def load(n):
        image, mask = numpy_function(make, [n], [tf.float32, tf.float32])
        return tf.ensure_shape(image, image_shape), tf.ensure_shape(mask, (*image_shape[:2], 1))

    numbers = endless(batch_size, start) if pictures is None else count(0, pictures)
    return numbers.map(load).batch(batch_size, drop_remainder=pictures is None).prefetch(4)


def background(split: str, image_shape: tuple[int, int, int], seed: int, epoch: int, index: int) -> np.ndarray:
    """Crop the photograph that picture `index` of epoch `epoch` is pasted on: `(H, W, 3)` float32 in [0, 1]."""
    check(split, image_shape)
    rng = stream("background", split, seed, epoch, index)
    window = crop(split, image_shape, rng)()
    if split == "training":
        return augment(window, crop(split, image_shape, rng), rng)
    return np.asarray(window, np.float32) / 255


def crop(split: str, image_shape: tuple[int, int, int], rng: np.random.Generator) -> Callable[[], Image.Image]:
    """Choose a window of random size and place from a random photograph, mirrored half of the time.

    Returns:
        What cuts it, at the size wanted; most of the time it takes is spent there.
    """
    height, width, _ = image_shape
    choices = photographs(split)
    photograph = choices[rng.integers(len(choices))]
    largest = min(photograph[0].width / width, photograph[0].height / height)
    # Down to half a source pixel per pixel; any finer and the crop is a blur.
    zoom = np.exp(rng.uniform(np.log(min(0.5, largest)), np.log(largest)))
    # From the copy whose pixels are about as large as those wanted: the time is that of the pixels read.
    source = photograph[min(max(round(np.log2(zoom)), 0), len(photograph) - 1)]
    w, h = zoom * width * source.width / photograph[0].width, zoom * height * source.height / photograph[0].height
    left, top = rng.uniform(0, source.width - w), rng.uniform(0, source.height - h)
    mirrored = rng.random() < 0.5

    def cut():
        window = source.resize((width, height), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
        return window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else window

    return cut


def augment(window: Image.Image, other: Callable[[], Image.Image], rng: np.random.Generator) -> np.ndarray:
    """Make a new photograph of an old one: the few for training would soon be known by heart.

    Args:
        window: A crop in RGB.
        other: Gives a crop of the same size, blended in now and then.
        rng: Source of every choice.

    Returns:
        `(H, W, 3)` float32 in [0, 1].
    """
    if rng.random() < 0.5:
        window = window.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if rng.random() < 0.3:
        window = Image.blend(window, other(), rng.uniform(0.1, 0.5))
    if rng.random() < 0.2:
        window = window.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 2)))
    # Rows that add up to 1 keep greys grey: hue and saturation change, luminance hardly.
    mix = np.eye(3)[rng.permutation(3)] + rng.normal(0, 0.2, (3, 3))
    mix /= mix.sum(1, keepdims=True)
    contrast = np.exp(rng.normal(0, 0.3)) * (-1 if rng.random() < 0.3 else 1)  # around the middle; a negative at -1
    tint = rng.normal(0, 0.1, 3) + rng.normal(0, 0.1)
    gamma = np.linspace(0, 1, 256, dtype=np.float32) ** np.exp(rng.normal(0, 0.3))
    image = gamma.astype(np.float32).take(np.asarray(window)) @ (contrast * mix.T).astype(np.float32)
    # NumPy is slow over rows of three.
    image += np.tile((0.5 - 0.5 * contrast + tint).astype(np.float32), (image.shape[1], 1))
    if rng.random() < 0.3:
        grains = grain(2 * image.size)
        start = rng.integers(image.size)
        image += rng.uniform(0, 0.06) * grains[start : start + image.size].reshape(image.shape)
    return np.clip(image, 0, 1, image)


@lru_cache
def grain(count: int) -> np.ndarray:
    """Draw float32 `(count,)` from the normal distribution; pictures take parts, since drawing takes longer."""
    return np.random.default_rng(0).standard_normal(count, np.float32)


def glyph(digit: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a digit smoothly at a random size, angle and slant.

    Args:
        digit: From `handwriting`.
        side: Shorter side of the picture in pixels.
        rng: Source of every choice.

    Returns:
        `(h, w)` bool, cut to the digit's own box.
    """
    size = side * rng.uniform(0.2, 0.45)  # of the 8x8 grid, in pixels
    angle, slant = rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.3)  # radians; shear
    canvas = math.ceil(1.6 * size)
    step = len(digit) / 12 * 8 / size  # of the drawn digit, for a pixel
    a, d = step * math.cos(angle), step * math.sin(angle)  # x' = a x + b y: a rotation of a shear
    b, e = a * slant - d, d * slant + a
    coefficients = (a, b, (len(digit) - (a + b) * canvas) / 2, d, e, (len(digit) - (d + e) * canvas) / 2)
    resampling = Image.Resampling.NEAREST if step > 1 else Image.Resampling.BILINEAR
    drawn = Image.fromarray(digit).transform((canvas, canvas), Image.Transform.AFFINE, coefficients, resampling)
    shape = np.asarray(drawn) > 255 * rng.uniform(0.4, 0.5)  # a lower level draws thicker strokes
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    return shape[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def free_place(
    shape: tuple[int, int], side: tuple[int, int], boxes: list[tuple[int, ...]], rng: np.random.Generator
) -> tuple[int, ...] | None:
    """Find a box of this shape, `MARGIN` pixels or more away from the others; None after 20 tries."""
    for _ in range(20):
        top, left = rng.integers(np.subtract(side, shape) + 1).tolist()
        bottom, right = top + shape[0], left + shape[1]
        gaps = (max(max(top, t) - min(bottom, b), max(left, f) - min(right, r)) for t, f, b, r in boxes)
        if all(gap >= MARGIN for gap in gaps):  # negative: overlap
            return top, left, bottom, right
    return None


def ink(rows: np.ndarray, columns: np.ndarray, surroundings: float, rng: np.random.Generator) -> np.ndarray:
    """Mix a gradient of two colours, both brighter or both darker than the surroundings by `CONTRAST`.

    Args:
        rows: Of the digit's pixels, `(N,)` int.
        columns: The same.
        surroundings: Mean luminance around the digit, in [0, 1].
        rng: Source of every choice.

    Returns:
        The pixels' colours, `(N, 3)` float32 in [0, 1].
    """
    darker, brighter = max(surroundings - CONTRAST, 0), max(1 - surroundings - CONTRAST, 0)
    dark = rng.random() * (darker + brighter) < darker
    ends = []
    for _ in range(2):
        luminance = rng.uniform(0, darker) if dark else rng.uniform(1 - brighter, 1)
        colour = rng.random(3)
        own = colour @ LUMINANCE
        # Towards black or white until the luminance is met: stays inside [0, 1].
        ends.append(colour * luminance / own if own > luminance else 1 - (1 - colour) * (1 - luminance) / (1 - own))
    angle = rng.uniform(0, 2 * np.pi)
    ramp = columns * math.cos(angle) + rows * math.sin(angle)
    ramp -= ramp.min()
    ramp /= max(ramp.max(), 1)
    return (ends[0] + ramp[:, None] * (ends[1] - ends[0])).astype(np.float32)


@lru_cache
def photographs(split: str) -> list[list[Image.Image]]:
    """Load the split's photographs in RGB, the shorter side at most 512 pixels; each at once, a half and a quarter."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    def load(name):
        if name in ("china", "flower"):
            return load_sample_image(f"{name}.jpg")
        image = getattr(skimage.data, name)()
        return image[0] if name == "stereo_motorcycle" else image  # left picture, right picture, disparity

    images = [Image.fromarray(load(name)).convert("RGB") for name in PHOTOGRAPHS[split]]
    for image in images:
        image.thumbnail([round(n * min(1, 512 / min(image.size))) for n in image.size])
    return [[image, image.reduce(2), image.reduce(4)] for image in images]


@lru_cache
def handwriting(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Load the split's digits and their classes `(N,)`.

    The digits are `(N, 96, 96)` uint8, 255 for ink: 8x8 in a frame of 2 empty pixels, drawn smoothly at eight times the
    size.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits, labels = load_digits(return_X_y=True)
    chosen = {"training": np.arange(len(labels))}
    for part, share in (("held_out", 360), ("validation", 180)):  # a fifth, a tenth
        chosen["training"], chosen[part] = train_test_split(
            chosen["training"], test_size=share, stratify=labels[chosen["training"]], random_state=0
        )
    framed = np.pad(digits[chosen[split]].reshape(-1, 8, 8) * (255 / 16), ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    drawn = [np.asarray(Image.fromarray(digit).resize((96, 96), Image.Resampling.BICUBIC)) for digit in framed]
    return np.stack(drawn), labels[chosen[split]]


def stream(purpose: str, split: str, seed: int, epoch: int, index: int) -> np.random.Generator:
    """Seed a generator for one purpose of one picture."""
    return np.random.default_rng([zlib.crc32(f"{purpose} {split}".encode()), seed, epoch, index])


def check(split: str, image_shape: tuple[int, int, int]) -> None:
    """Raise one ValueError that names every argument that cannot be used."""
    problems = []
    if split not in PHOTOGRAPHS:
        problems.append(f"split must be one of {', '.join(PHOTOGRAPHS)}. Received: split={split!r}")
    if len(image_shape) != 3 or image_shape[-1] != 3 or any(n is None or n < 32 for n in image_shape[:2]):
        problems.append(
            "pasted_digits makes colour pictures of a fixed size, at least 32x32: image_shape must be "
            f"(height, width, 3). Received: image_shape={image_shape}"
        )
    if problems:
        raise ValueError("\n".join(problems))
