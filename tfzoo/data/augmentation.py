"""Changing pictures at random, each choice a function of a key: a resumed run and any number of workers see the same.

A key is a uint64 scalar, made of the seed, the epoch and the example's number. The same operation with the same key
makes the same choice, so a pair of pictures is changed alike by changing each with the one key. Pictures are
`(H, W, C)` float32 in [0, 1]; `in_unit_range` makes them so, and so does all that resizes.

Numbers are drawn by SplitMix64 (Steele, Lea & Flood, 2014, https://doi.org/10.1145/2660193.2660195), since that is
arithmetic, which `tf.vectorized_map` does for a whole batch at once; of TensorFlow's own draws each takes one key.
"""

import math
import zlib

import numpy as np
import tensorflow as tf

GAMMA = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's step, odd and close to 2**64 by the golden ratio
TRIES = 10  # of random_resized_crop, before it takes the middle


def key(seed: int, epoch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Make the key of an example, or of several.

    Args:
        seed: Any integer from 0.
        epoch: Integers of any shape, from 0.
        number: The same, the examples'.

    Returns:
        uint64 of their shape.
    """
    return folded(folded(mixed(tf.constant(seed % 2**64, tf.uint64)), epoch), number)


def part(key: tf.Tensor, purpose: str) -> tf.Tensor:
    """Make a key for one purpose of a key's example: what is drawn for two purposes is independent."""
    return folded(key, zlib.crc32(purpose.encode()))


def uniform(key: tf.Tensor, purpose: str, low: float = 0, high: float = 1, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Draw float32 from a lower bound to before an upper one."""
    drawn = tf.cast(shifted(bits(part(key, purpose), shape), 40), tf.float32) * 2.0**-24  # all that float32 holds
    return low + drawn * (high - low)


def integers(key: tf.Tensor, purpose: str, count: int, shape: tuple[int, ...] = ()) -> tf.Tensor:
    """Draw int64 from 0 to before `count`."""
    return tf.cast(shifted(bits(part(key, purpose), shape), 1), tf.int64) % count


def bits(key: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Draw uint64 of a shape from the stream of a key, a scalar."""
    steps = np.arange(1, math.prod(shape) + 1, dtype=np.uint64).reshape(shape) * GAMMA
    return mixed(key + tf.constant(steps))


def folded(key: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """Make a key of a key and a number."""
    return mixed(key ^ mixed((tf.cast(number, tf.uint64) + 1) * tf.constant(GAMMA)))


def mixed(z: tf.Tensor) -> tf.Tensor:
    """Mix the bits of uint64, each result of one number: SplitMix64's `mix64`."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ shifted(z, shift)) * tf.constant(factor, tf.uint64)
    return z ^ shifted(z, 31)


def shifted(z: tf.Tensor, places: int) -> tf.Tensor:
    """Shift the bits of uint64 to the right."""
    return tf.bitwise.right_shift(z, tf.constant(places, tf.uint64))


def in_unit_range(image: tf.Tensor) -> tf.Tensor:
    """Turn uint8 `(H, W, C)` into float32 in [0, 1]; float32 stays as it is."""
    return tf.cast(image, tf.float32) / 255 if image.dtype == tf.uint8 else image


def in_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Turn a picture into a grey one, of luminance by ITU-R BT.601, or into one of three channels."""
    if image.shape[-1] == channels:
        return image
    return tf.image.grayscale_to_rgb(image) if channels == 3 else tf.image.rgb_to_grayscale(image)


def coloured(image: tf.Tensor) -> tf.Tensor:
    """Say whether the three channels of a picture differ anywhere."""
    red, green, blue = tf.unstack(image, axis=-1)  # takes less time than to compare with a broadcast channel
    return tf.reduce_any((red != green) | (green != blue))


def flip(key: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Mirror left and right, half of the time."""
    return tf.where(uniform(key, "flip") < 0.5, tf.reverse(image, [1]), image)


def pad_and_crop(key: tf.Tensor, image: tf.Tensor, pixels: int = 4) -> tf.Tensor:
    """Shift by up to some pixels in each direction, with black behind: for small pictures.

    Args:
        key: The example's.
        image: `(H, W, C)`.
        pixels: As He et al. (2016, https://arxiv.org/abs/1512.03385) have it for 32x32: 4.

    Returns:
        `(H, W, C)`.
    """
    shift = tf.cast(integers(key, "shift", 2 * pixels + 1, (2,)), tf.int32)
    padded = tf.pad(image, [[pixels, pixels], [pixels, pixels], [0, 0]])
    return tf.ensure_shape(window(padded, shift, tf.shape(image)[:2]), image.shape)


def random_crop(key: tf.Tensor, image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Cut out a window of a size in pixels, `(h, w)`, anywhere in a picture that is at least as large."""
    image = tf.convert_to_tensor(image)
    free = tf.shape(image)[:2] - size
    start = tf.cast(uniform(key, "crop", shape=(2,)) * tf.cast(free + 1, tf.float32), tf.int32)
    start = tf.minimum(start, free)  # a float32 below 1 may come to 1 in the product
    return tf.ensure_shape(window(image, start, size), (*size, image.shape[-1]))


def window(image: tf.Tensor, start: tf.Tensor, size: tf.Tensor | tuple[int, int]) -> tf.Tensor:
    """Cut out `(h, w)` pixels from (top, left) on."""
    rows, columns = (start[i] + tf.range(size[i]) for i in (0, 1))  # `tf.vectorized_map` knows no slices that differ
    return tf.gather(tf.gather(image, rows), columns, axis=1)


def random_resized_crop(
    key: tf.Tensor,
    image: tf.Tensor,
    size: tuple[int, int],
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Cut a window of random size, shape and place, and resize it: for photographs.

    Args:
        key: The example's.
        image: `(H, W, C)` of any size; uint8 as it was read takes the least time.
        size: `(h, w)` in pixels of the result.
        area: Least and largest share of the picture's area; Szegedy et al. (2015, https://arxiv.org/abs/1409.4842)
            have .08 and 1.
        ratio: Least and largest width by height, drawn evenly in its logarithm; theirs too.

    Returns:
        `(h, w, C)` float32 in [0, 1], bilinear and smoothed where it shrinks.
    """
    image = tf.convert_to_tensor(image)
    height, width = (tf.cast(n, tf.float32) for n in tf.unstack(tf.shape(image)[:2]))
    areas = uniform(key, "area", *area, shape=(TRIES,)) * height * width
    ratios = tf.exp(uniform(key, "ratio", *map(math.log, ratio), shape=(TRIES,)))
    widths, heights = tf.round(tf.sqrt(areas * ratios)), tf.round(tf.sqrt(areas / ratios))  # (TRIES,)
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = tf.argmax(fits)  # of the tries that fit
    # The middle, as large as it may be, where none does.
    w = tf.where(fits[first], widths[first], tf.minimum(width, tf.round(height * ratio[1])))
    h = tf.where(fits[first], heights[first], tf.minimum(height, tf.round(width / ratio[0])))
    place = tf.where(fits[first], uniform(key, "place", shape=(2,)), [0.5, 0.5])
    start = tf.floor(place * tf.stack([height - h + 1, width - w + 1]))
    scale = tf.constant(size, tf.float32) / tf.stack([h, w])
    # Both in one: less time than for a window of its own, and `tf.vectorized_map` knows no windows of several sizes.
    cut = tf.raw_ops.ScaleAndTranslate(
        images=image[None], size=size, scale=scale, translation=-start * scale, kernel_type="triangle"
    )
    return tf.ensure_shape(cut[0] / 255 if image.dtype == tf.uint8 else cut[0], (*size, image.shape[-1]))


def centre_crop(image: tf.Tensor, size: tuple[int, int], share: float = 1.0) -> tf.Tensor:
    """Cut out the middle in the shape asked for, and resize it: for judging.

    Args:
        image: `(H, W, C)` of any size.
        size: `(h, w)` in pixels of the result.
        share: Of the largest such window's sides; .875 (224 of 256 pixels) is common for photographs.

    Returns:
        `(h, w, C)` float32 in [0, 1].
    """
    image = tf.convert_to_tensor(image)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    window = tf.round(share * tf.reduce_min(shape / size) * tf.constant(size, tf.float32))
    window = tf.clip_by_value(window, 1, shape)
    top, left = tf.unstack(tf.cast((shape - window) // 2, tf.int32))
    h, w = tf.unstack(tf.cast(window, tf.int32))
    return resize(image[top : top + h, left : left + w], size)


def resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Resize to `(h, w)` pixels, bilinear and smoothed where it shrinks; gives float32 in [0, 1], of uint8 too."""
    known = None not in image.shape[:2]
    shrinks = not known or image.shape[0] > size[0] or image.shape[1] > size[1]
    resized = tf.image.resize(in_unit_range(image), size, antialias=shrinks)  # which takes longer
    return tf.ensure_shape(resized, (*size, image.shape[-1]))


def jitter(
    key: tf.Tensor,
    image: tf.Tensor,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.0,
) -> tf.Tensor:
    """Change the light and the colours.

    Args:
        key: The example's.
        image: `(H, W, C)` float32 in [0, 1].
        brightness: The picture is multiplied by 1 - brightness to 1 + brightness.
        contrast: So is the distance from the picture's mean.
        saturation: So is the distance from its grey; of three channels only.
        hue: Turned by up to this share of the colour circle in each direction, at most .5; of three channels only.

    Returns:
        `(H, W, C)` float32 in [0, 1].
    """

    def factor(purpose, strength):
        return uniform(key, purpose, max(1 - strength, 0), 1 + strength)

    image = tf.clip_by_value(image * factor("brightness", brightness), 0, 1)
    mean = tf.reduce_mean(in_channels(image, 1))
    image = tf.clip_by_value(mean + (image - mean) * factor("contrast", contrast), 0, 1)
    if image.shape[-1] == 3:
        grey = in_channels(image, 1)
        image = tf.clip_by_value(grey + (image - grey) * factor("saturation", saturation), 0, 1)
        image = tf.image.adjust_hue(image, uniform(key, "hue", -hue, hue)) if hue else image
    return image


def beta(key: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draw float32 from Beta(alpha, alpha), as the share of one of two gamma variates."""
    # float64, as two variates of a small alpha may both be 0 in float32
    seed = bits(part(key, "beta"), (2,))
    one, other = tf.unstack(
        tf.random.stateless_gamma([2], tf.bitcast(seed, tf.int64), tf.cast(alpha, tf.float64), dtype=tf.float64)
    )
    return tf.cast(one / (one + other), tf.float32)


def mixup(key: tf.Tensor, one: tuple, other: tuple, alpha: float = 0.2) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend two examples (Zhang et al., 2018, https://arxiv.org/abs/1710.09412).

    Args:
        key: The example's.
        one: Picture `(H, W, C)` float32 and label `(classes,)` float32, a row of shares.
        other: Another of the same shapes.
        alpha: Of Beta(alpha, alpha), from which the share of `one` is drawn; theirs for ImageNet.

    Returns:
        Picture and label.
    """
    share = beta(key, alpha)
    image, label = (share * a + (1 - share) * b for a, b in zip(one, other, strict=True))
    return image, label


def cutmix(key: tf.Tensor, one: tuple, other: tuple, alpha: float = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
    """Paste a box of another example's picture (Yun et al., 2019, https://arxiv.org/abs/1905.04899).

    Args:
        key: The example's.
        one: Picture `(H, W, C)` float32 and label `(classes,)` float32, a row of shares.
        other: Another of the same shapes, whose box is cut from the same place.
        alpha: Of Beta(alpha, alpha), from which the box's share is drawn; theirs.

    Returns:
        Picture and label; the shares of the label are those of the pixels, as the box may reach over the edge.
    """
    shape = tf.shape(one[0])[:2]
    sides = tf.cast(shape, tf.float32)
    box = tf.sqrt(1 - beta(key, alpha)) * sides
    centre = uniform(key, "centre", shape=(2,)) * sides
    start, stop = (tf.cast(tf.round(edge), tf.int32) for edge in (centre - box / 2, centre + box / 2))
    rows, columns = ((tf.range(shape[i]) >= start[i]) & (tf.range(shape[i]) < stop[i]) for i in (0, 1))
    inside = rows[:, None] & columns[None]  # (H, W)
    image = tf.where(inside[..., None], other[0], one[0])
    pasted = tf.reduce_mean(tf.cast(inside, tf.float32))
    return image, (1 - pasted) * one[1] + pasted * other[1]
