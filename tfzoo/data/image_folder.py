"""Pictures with masks: `FOLDER/images/*` and `FOLDER/masks/*`, matched by file name without its ending.

A picture is cut to the model's aspect ratio and resized: its largest centred window for judging, random
windows of half that size and up, mirrored and re-lit, for training. Images are resampled bilinearly, masks
to the nearest pixel. Everything is checked before the first step, and every problem is reported at once.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from tfzoo.data import Source, Wanted, files, split
from tfzoo.data.pictures import FORMATS, displayed, open_picture, read_image, shrunk

CHANNELS = {1: "L", 3: "RGB"}
FINEST = 4  # pixels of a picture for one of the model's, across its largest window: across the smallest it is half


@dataclass(frozen=True)
class Pair:
    """An image file, its mask file, and the size that is enough of them, as in `pictures.open_picture`."""

    image: Path
    mask: Path
    enough: tuple[int, int] | None = None
    kept: list = field(default_factory=list, repr=False, compare=False)  # both, decoded, where they are to be kept

    def read(self, classes: int) -> tuple[Image.Image, Image.Image]:
        """Decode both, to one size."""
        if self.kept:
            return self.kept[0]
        image, mask = read_image(self.image, self.enough), read_mask(self.mask, classes)
        return image, mask.resize(image.size, Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Windows(Sequence):
    """Examples at the model's size, cut from pairs: `[i]` from the middle, `at` anew in every epoch.

    Attributes:
        pairs: What `read(classes)` gives a picture and a mask of.
        image_shape: `(H, W, C)` in pixels.
        classes: As in `tfzoo.data.Wanted`.
        seed: Any integer from 0.
        keep: Whether the decoded pictures are kept in memory.
    """

    pairs: Sequence
    image_shape: tuple[int, int, int]
    classes: int
    seed: int
    keep: bool = False
    fixed = True

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return example(self.pair(i), self.image_shape, self.classes)

    def at(self, epoch: int, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut and augment the picture that comes i-th in an epoch."""
        pair = self.pair(split.order(self.seed, epoch, len(self))[i])
        return example(pair, self.image_shape, self.classes, np.random.default_rng([*b"window", self.seed, epoch, i]))

    def pair(self, i: int):
        """Give a pair, decoded if it is to be kept: once, also where several threads decode it at the same time."""
        pair = self.pairs[i]
        if self.keep and not pair.kept:
            pair.kept[:] = [pair.read(self.classes)]
        return pair


@dataclass(frozen=True)
class Size:
    """Reads a pair to see whether that can be done; gives the bytes in memory."""

    classes: int
    enough: tuple[int, int] | None = None

    def __call__(self, pair: Pair) -> int:
        problems, sizes, turned = [], {}, {}
        for path, read, option in ((pair.image, read_image, self.enough), (pair.mask, read_mask, self.classes)):
            try:
                read(path, option)
                sizes[path], turned[path] = displayed(path)
            except Exception as error:  # Pillow's decoders raise anything on a broken file
                problems.append(f"{path}: {error}")
        if len(set(sizes.values())) > 1:
            said = " and ".join(f"{path} ({w}x{h})" for path, (w, h) in sizes.items()) + ": differ in size"
            for path in filter(turned.get, sizes):
                said += f"; {path} is turned by its EXIF tag: save it turned, without the tag"
            problems.append(said)
        if problems:
            raise files.Problems(problems)
        width, height = shrunk(sizes[pair.image], self.enough)
        return width * height * 5  # Pillow has four bytes for a pixel of RGB, and one of the mask


def windows(parts: Sequence[Sequence], wanted: Wanted, description: str, keep: bool = False) -> Source:
    """Make a `Source` of three parts' pairs; only the training is augmented, as only it is asked for `at`."""
    return Source(
        *(Windows(pairs, wanted.image_shape, wanted.classes, wanted.seed, keep) for pairs in parts), description
    )


def check_shape(image_shape: tuple[int, int, int]) -> None:
    """Refuse a size that pictures cannot be cut to; raises a ValueError."""
    if image_shape is None or len(image_shape) != 3 or image_shape[-1] not in CHANNELS or not all(image_shape[:2]):
        raise ValueError(
            "pictures and masks are brought to one fixed size: image_shape must be (height, width, 1 or 3). "
            f"Received: image_shape={image_shape}"
        )


def enough(image_shape: tuple[int, int, int]) -> tuple[int, int]:
    """Give the width and height of pictures that are enough for a model's."""
    height, width, _ = image_shape
    return FINEST * width, FINEST * height


def listing(folder: Path, problems: list[str], enough: tuple[int, int] | None = None) -> list[Pair]:
    """Find every image of a folder with its mask, in the order of their names; adds what is wrong to `problems`."""
    images, masks = (stems(folder / name, problems) for name in ("images", "masks"))
    for stem in sorted(images.keys() ^ masks.keys()):
        path, other = (images[stem], "masks") if stem in images else (masks[stem], "images")
        problems.append(f"{path}: there is no {folder / other / stem}.*")
    return [Pair(images[stem], masks[stem], enough) for stem in sorted(images.keys() & masks.keys())]


def stems(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Find the pictures of a folder by stem; adds what is wrong to `problems`."""
    if not folder.is_dir():
        problems.append(f"{folder}/: there is no such folder")
        return {}
    stems = defaultdict(list)
    for path in files.visible(folder):
        if path.is_dir():
            problems.append(f"{path}: is a folder, and none is looked into")
        elif not path.exists():
            problems.append(f"{path}: is a link to a file that is not there")
        elif path.suffix.lower() in FORMATS and path.is_file():
            stems[path.stem].append(path)
        else:
            problems.append(f"{path}: is not a picture file")
    if not stems:
        problems.append(f"{folder}/: holds no picture")
    for paths in stems.values():
        if len(paths) > 1:
            problems.append(f"{folder}/: same name twice: {', '.join(path.name for path in paths)}")
    return {stem: paths[0] for stem, paths in stems.items()}


def read_mask(path: Path, classes: int) -> Image.Image:
    """Decode a mask to class numbers of 8 bits; a palette's index is the class, whatever its colour and alpha."""
    values = np.asarray(open_picture(path, opaque=False)).astype(np.uint8)  # (H, W) or (H, W, C)
    if values.ndim == 3:
        colours, alpha = np.split(values, [3 if values.shape[-1] > 2 else 1], axis=-1)
        if np.ptp(colours, axis=-1).any() or (alpha != 255).any():
            raise ValueError("a mask must have one channel. Received: a coloured or transparent picture")
        values = colours[..., 0]
    return as_mask(values, classes)


def as_mask(values: np.ndarray, classes: int) -> Image.Image:
    """Turn values `(H, W)` uint8 into class numbers; raises a ValueError if they cannot be those."""
    present = np.flatnonzero(Image.fromarray(values).histogram())
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
        pair: What has `read(classes)`, which gives the picture and the mask.
        image_shape: `(H, W, C)` in pixels.
        classes: As in `tfzoo.data.Wanted`.
        rng: Augments; None gives the centred window as it is.

    Returns:
        Image `(H, W, C)` float32 in [0, 1] and mask `(H, W, 1)` float32 of class numbers.
    """
    height, width, channels = image_shape
    image, mask = pair.read(classes)
    image = image.convert(CHANNELS[channels])
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
