"""Your own pictures: `FOLDER/images/*` and `FOLDER/masks/*`, matched by file name without its ending.

A picture is cut to the model's aspect ratio and resized: its largest centred window for judging, random
windows of half that size and up, mirrored and re-lit, for training. Images are resampled bilinearly, masks
to the nearest pixel. Everything is checked before the first step, and every problem is reported at once.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's modes
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag and its values that swap width and height
CHANNELS = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Pair:
    """An image file and its mask file."""

    image: Path
    mask: Path


def datasets(
    folder: str | Path,
    image_shape: tuple[int, int, int],
    *,
    batch_size: int,
    seed: int,
    classes: int = 1,
    share: float = 0.15,
    start: int = 0,
):
    """Check a folder and open it as a training, a validation and a held-out set.

    Args:
        folder: Holds `images/` and `masks/`.
        image_shape: `(H, W, C)` in pixels that every picture is brought to; C is 1 (grey) or 3.
        batch_size: Pictures in a batch.
        seed: Any integer from 0; decides which pictures go where, and all augmentation.
        classes: 1 for masks of {0, 1} or {0, 255}; more for masks of class numbers from 0 to `classes - 1`.
        share: Part of the pictures, at least one, in validation, and as many in the held-out set.
        start: The batch that the training set begins with.

    Returns:
        Three `tf.data.Dataset` of float32 images `(B, H, W, C)` in [0, 1] and masks `(B, H, W, 1)`, the first
        endless and the others finite, and a line that describes them.

    Raises:
        ValueError: Lists every file that is missing, unreadable, of another size than its partner, or
            has wrong mask values.
    """
    if len(image_shape) != 3 or image_shape[-1] not in CHANNELS or not all(image_shape[:2]):
        raise ValueError(
            "a folder's pictures are brought to one fixed size: image_shape must be (height, width, 1 or 3). "
            f"Received: image_shape={image_shape}"
        )

    from tfzoo.data.numbers import count, endless

    found = pairs(folder, classes)
    order = np.random.default_rng(seed).permutation(len(found))
    kept = max(round(share * len(found)), 1)
    training, validation, held_out = ([found[i] for i in part] for part in np.split(order, [-2 * kept, -kept]))

    @lru_cache(2)
    def shuffled(epoch: int):
        return np.random.default_rng([seed, epoch]).permutation(len(training))

    def train(n: int):
        epoch, i = divmod(n, len(training))
        return example(training[shuffled(epoch)[i]], image_shape, classes, np.random.default_rng([seed, epoch, i]))

    def judge(some: list[Pair]):
        made = load(count(0, len(some)), lambda n: example(some[n], image_shape, classes), image_shape)
        return made.batch(batch_size).prefetch(4)

    return (
        load(endless(batch_size, start), train, image_shape).batch(batch_size, drop_remainder=True).prefetch(4),
        judge(validation),
        judge(held_out),
        f"{folder}: {len(training)} pictures to train on, {kept} for validation, {kept} held out",
    )


def pairs(folder: str | Path, classes: int = 1) -> list[Pair]:
    """Find and check every image with its mask.

    Args:
        folder: Holds `images/` and `masks/`.
        classes: 1 for masks of {0, 1} or {0, 255}; more for masks of class numbers.

    Returns:
        Three pairs or more, in the order of their names.

    Raises:
        ValueError: Lists everything that is wrong with the folder.
    """
    folder, problems = Path(folder), []
    images, masks = (listing(folder / name, problems) for name in ("images", "masks"))
    for stem in sorted(images.keys() ^ masks.keys()):
        path, other = (images[stem], "masks") if stem in images else (masks[stem], "images")
        problems.append(f"{path.parent.name}/{path.name}: there is no {other}/{stem}.*")
    found = [Pair(images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]
    for pair in found:
        problems += check(pair, classes)
    if not problems and len(found) < 3:
        problems.append(f"{len(found)} images with masks; 3 are needed, to train, to validate and to judge")
    if problems:
        raise ValueError(
            f"{folder} cannot be used: images/ and masks/ must hold one picture each of the same name and size "
            f"({' '.join(FORMATS)}). Found:\n  " + "\n  ".join(problems)
        )
    return found


def listing(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Find the pictures of a folder by stem; adds what is wrong to `problems`."""
    if not folder.is_dir():
        problems.append(f"{folder.name}/: there is no such folder")
        return {}
    stems = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # .DS_Store and the like
            continue
        if path.is_dir():
            problems.append(f"{folder.name}/{path.name}: is a folder, and none is looked into")
        elif not path.exists():
            problems.append(f"{folder.name}/{path.name}: is a link to a file that is not there")
        elif path.suffix.lower() in FORMATS and path.is_file():
            stems[path.stem].append(path)
        else:
            problems.append(f"{folder.name}/{path.name}: is not a picture file")
    if not stems:
        problems.append(f"{folder.name}/: holds no picture")
    for paths in stems.values():
        if len(paths) > 1:
            problems.append(f"{folder.name}/: same name twice: {', '.join(path.name for path in paths)}")
    return {stem: paths[0] for stem, paths in stems.items()}


def check(pair: Pair, classes: int) -> list[str]:
    """List what is wrong with a pair."""
    problems, sizes = [], {}
    for read, path in ((read_image, pair.image), (lambda path: read_mask(path, classes), pair.mask)):
        try:
            sizes[f"{path.parent.name}/{path.name}"] = read(path).size
        except Exception as error:  # Pillow's decoders raise anything on a broken file
            problems.append(f"{path.parent.name}/{path.name}: {error}")
    if len(set(sizes.values())) > 1:
        said = " and ".join(f"{name} ({w}x{h})" for name, (w, h) in sizes.items()) + ": differ in size"
        for path in (pair.image, pair.mask):
            if Image.open(path).getexif().get(ORIENTATION) in TURNED:
                said += f"; {path.parent.name}/{path.name} is turned by its EXIF tag: save it turned, without the tag"
        problems.append(said)
    return problems


def open_picture(path: Path) -> Image.Image:
    """Decode a file as it is displayed; raises on a broken file and on one of more than Pillow's pixel limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = ImageOps.exif_transpose(Image.open(path, formats=sorted(set(FORMATS.values()))))
    if picture.mode not in EIGHT_BIT:
        raise ValueError(f"must have 8 bits per channel. Received: Pillow's mode {picture.mode}")
    return picture


def read_image(path: Path) -> Image.Image:
    """Decode an image to RGB."""
    return open_picture(path).convert("RGB")


def read_mask(path: Path, classes: int) -> Image.Image:
    """Decode a mask to class numbers, 8 bits per pixel; a palette's index is the class."""
    values = np.asarray(open_picture(path)).astype(np.uint8)  # (H, W) or (H, W, C)
    if values.ndim == 3:
        colours, alpha = np.split(values, [3 if values.shape[-1] > 2 else 1], axis=-1)
        if np.ptp(colours, axis=-1).any() or (alpha != 255).any():
            raise ValueError("a mask must have one channel. Received: a coloured or transparent picture")
        values = colours[..., 0]
    present = np.unique(values)
    if classes == 1 and set(present) <= {0, 255}:
        values = values // 255
    elif present[-1] >= max(classes, 2):
        accepted = "0 and 1, or 0 and 255" if classes == 1 else f"class numbers from 0 to {classes - 1}"
        shown = ", ".join(map(str, present[:8])) + (f", ... ({len(present)} values)" if len(present) > 8 else "")
        raise ValueError(f"mask values must be {accepted}. Received: {shown}")
    return Image.fromarray(values)


def example(pair: Pair, image_shape: tuple[int, int, int], classes: int, rng: np.random.Generator | None = None):
    """Load a pair at the model's size.

    Args:
        pair: The files.
        image_shape: `(H, W, C)` in pixels.
        classes: As in `pairs`.
        rng: Augments; None gives the centred window as it is.

    Returns:
        Image `(H, W, C)` float32 in [0, 1] and mask `(H, W, 1)` float32 of class numbers.
    """
    height, width, channels = image_shape
    image, mask = read_image(pair.image).convert(CHANNELS[channels]), read_mask(pair.mask, classes)
    zoom = min(image.width / width, image.height / height) * (1 if rng is None else rng.uniform(0.5, 1))
    w, h = zoom * width, zoom * height
    x, y = (0.5, 0.5) if rng is None else rng.random(2)
    left, top = x * (image.width - w), y * (image.height - h)
    box = (left, top, left + w, top + h)
    image = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box), np.float32) / 255
    mask = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST, box), np.float32)
    image, mask = image.reshape(image_shape), mask[..., None]
    if rng is not None:
        if rng.random() < 0.5:
            image, mask = image[:, ::-1], mask[:, ::-1]
        light = rng.normal(0, 0.1, channels) + rng.normal(0, 0.1)
        image = np.clip((image - 0.5) * np.exp(rng.normal(0, 0.2)) + 0.5 + light, 0, 1)
    return image.astype(np.float32), np.ascontiguousarray(mask)


def load(numbers, make: Callable, image_shape: tuple[int, int, int]):
    """Turn a `tf.data.Dataset` of numbers into one of the images and masks that `make` gives for them."""
    import tensorflow as tf

    def one(n):
        image, mask = tf.numpy_function(lambda n: make(int(n)), [n], [tf.float32, tf.float32], stateful=False)
        return tf.ensure_shape(image, image_shape), tf.ensure_shape(mask, (*image_shape[:2], 1))

    # Decoding large photographs takes longer than a training step; Pillow lets go of Python's lock for it.
    return numbers.map(one, num_parallel_calls=2, deterministic=True)
