"""Handwritten digits turned, anywhere in a picture, among pieces of other digits: new ones in every epoch.

After the cluttered MNIST of Jaderberg et al. (2015, https://arxiv.org/abs/1506.02025), of scikit-learn's digits, which
are embedded; a digit's angle is known, so that what a spatial transformer makes of it can be measured. The splits are
those of `digits`, and the pieces in a picture are of its own split.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from tfzoo.data import Source, Wanted
from tfzoo.data.pasted_digits import handwriting
from tfzoo.data.split import order

PATTERN = "cluttered_digits"
KINDS = {kind: "cluttered_digits (digits turned and moved among pieces, embedded)" for kind in ("classes", "images")}
SPLITS = ("training", "validation", "held_out")
SIDE = 60  # pixels of the picture, where nobody says otherwise; of others all that follows is in proportion
DIGIT = 24  # pixels of the 8x8 digit
LARGEST = math.radians(60)  # angle
PIECES, PIECE = 8, 6  # how many, and their pixels
DRAWS = 4 + 6 * PIECES  # angle, size and place; digit, place in it and place of every piece
SMALLEST = 16  # pixels of a picture, in which the strokes of a digit are still apart


@dataclass(frozen=True)
class Picture:
    """One example.

    Attributes:
        image: `(H, W, 1)` uint8, 255 for ink.
        label: The digit's class, 0 to 9.
        angle: By how much it is turned, in radians, from the x axis (to the right) to the y axis (down): clockwise, as
            it is seen, where it is positive. The affine grid of a turn by this angle turns it back.
        center: (x, y) of the middle of its 8x8 grid, in pixels from the picture's upper left corner.
    """

    image: np.ndarray
    label: int
    angle: float
    center: tuple[float, float]


def picture(split: str, size: tuple[int, int], seed: int, epoch: int, index: int) -> Picture:
    """Make picture `index` of epoch `epoch`: a pure function of its arguments.

    Args:
        split: "training", "validation" or "held_out".
        size: Height and width in pixels, at least 16 each.
        seed: Any integer from 0; other seeds give other pictures.
        epoch: Counted from 0.
        index: Position in the epoch, from 0. In an epoch of training each digit comes once, in an order of its own; the
            others come as they are, again and again.

    Returns:
        A digit that is in the picture as a whole, over the pieces and under them.

    Raises:
        ValueError: An unknown split or a size that digits do not fit in.
    """
    check(split, size)
    digits, labels = handwriting(split)
    i = order(seed, epoch, len(digits))[index] if split == "training" else index % len(digits)
    draws = stream(split, seed, epoch, index)
    turned = turn(draws)
    scale = min(size) / SIDE
    drawn, middle = draw(digits[i], scale * DIGIT * (0.9 + 0.2 * next(draws)), turned)
    image = np.zeros(size, np.uint8)
    for _ in range(PIECES):
        other = (i + 1 + below(len(digits) - 1, draws)) % len(digits)
        paste(image, piece(split, other, scale, draws), draws)
    top, left = paste(image, drawn, draws)
    center = (left + middle[0], top + middle[1])
    return Picture(image[..., None], int(labels[i]), turned, center)


def angle(split: str, index: int, seed: int = 0, epoch: int = 0) -> float:
    """Give the angle of a picture's digit, in radians, as `Picture` has it, without making the picture.

    Args:
        split: As in `picture`.
        index: The example's number.
        seed: As in `picture`; validation and held-out examples of a source have 0.
        epoch: The same.
    """
    check(split)
    return turn(stream(split, seed, epoch, index))


@dataclass(frozen=True)
class Made(Sequence):
    """Pictures of a split, made when they are asked for; validation and held-out ones are the same for every seed."""

    split: str
    size: tuple[int, int]
    seed: int
    pictures: int
    labelled: bool
    fixed = True
    parallel = 1  # they are made in Python, where two threads wait for one another

    def __len__(self) -> int:
        return self.pictures

    def __getitem__(self, i: int) -> tuple:
        if not 0 <= i < self.pictures:
            raise IndexError(i)
        return self.at(0, i)

    def at(self, epoch: int, i: int) -> tuple:
        """Make picture i of an epoch, and its class if that is wanted."""
        made = picture(self.split, self.size, self.seed, epoch, i)
        return (made.image, np.int64(made.label)) if self.labelled else (made.image,)


def open(text: str, wanted: Wanted) -> Source:
    """Open the splits as a `Source` of pictures `(H, W, 1)` uint8 and class numbers int64.

    H and W are those of `wanted.image_shape`, 60 where there is none.
    """
    size = tuple(wanted.image_shape[:2]) if wanted.image_shape else (SIDE, SIDE)
    check("training", size)
    labelled = wanted.kind == "classes"
    return Source(
        Made("training", size, wanted.seed, len(handwriting("training")[0]), labelled),
        *(Made(split, size, 0, wanted.pictures[split], labelled) for split in SPLITS[1:]),
        f"digits turned by up to 60 degrees, anywhere on {size[0]}x{size[1]} pixels, among pieces of others",
        tuple("0123456789") if labelled else None,
    )


def draw(digit: np.ndarray, side: float, turned: float) -> tuple[np.ndarray, tuple[float, float]]:
    """Draw a digit smoothly.

    Args:
        digit: From `handwriting`, which has a frame of half the digit's side.
        side: Of the 8x8 grid, in pixels.
        turned: Its angle, as in `Picture`.

    Returns:
        `(h, w)` uint8, cut to the ink, and (x, y) of the grid's middle in it.
    """
    canvas = math.ceil(9 / 8 * side * math.sqrt(2))  # the ink reaches half a pixel out of the grid, if at all
    step = len(digit) / 1.5 / side  # of `digit`, for a pixel
    a, b = step * math.cos(turned), step * math.sin(turned)  # from where a pixel comes: turned back
    c, f = (len(digit) - (a + b) * canvas) / 2, (len(digit) - (a - b) * canvas) / 2
    drawn = Image.fromarray(digit).transform(
        (canvas, canvas), Image.Transform.AFFINE, (a, b, c, -b, a, f), Image.Resampling.BILINEAR
    )
    left, top, right, bottom = drawn.getbbox()
    return np.asarray(drawn)[top:bottom, left:right], (canvas / 2 - left, canvas / 2 - top)


def piece(split: str, i: int, scale: float, draws: Iterator[float]) -> np.ndarray:
    """Cut a piece with ink in it out of digit i of a split, upright: `(PIECE scale, PIECE scale)` uint8."""
    drawn, ink, side = upright(split, i, scale)
    row, column = ink[below(len(ink), draws)]
    top, left = row - below(side, draws), column - below(side, draws)
    return drawn[top : top + side, left : left + side]


@lru_cache(2**12)
def upright(split: str, i: int, scale: float) -> tuple[np.ndarray, list[list[int]], int]:
    """Draw digit i of a split to be cut up: `(h, w)` uint8, (row, column) of its ink, and the pieces' side.

    It has a frame of that side, so that a stroke at the digit's edge may be anywhere in a piece.
    """
    side = max(round(scale * PIECE), 1)
    drawn = np.pad(draw(handwriting(split)[0][i], scale * DIGIT, 0.0)[0], side)
    return drawn, np.argwhere(drawn > 127).tolist(), side


def paste(image: np.ndarray, ink: np.ndarray, draws: Iterator[float]) -> tuple[int, int]:
    """Put ink anywhere in an image, as a whole; what is there is darkened only. Gives top and left."""
    top, left = (below(image.shape[axis] - ink.shape[axis] + 1, draws) for axis in (0, 1))
    there = image[top : top + ink.shape[0], left : left + ink.shape[1]]
    np.maximum(there, ink, out=there)
    return top, left


def turn(draws: Iterator[float]) -> float:
    """Choose an angle, which is the first thing that is chosen for a picture."""
    return LARGEST * (2 * next(draws) - 1)


def below(count: int, draws: Iterator[float]) -> int:
    """Choose a number from 0 to before `count`."""
    return int(next(draws) * count)


@lru_cache
def word(split: str) -> int:
    """Give the number that keeps a split's draws apart from the others'."""
    return zlib.crc32(f"cluttered {split}".encode())


def stream(split: str, seed: int, epoch: int, index: int) -> Iterator[float]:
    """Draw the numbers of one picture, in [0, 1): all at once, since a call for each takes longer than its use."""
    return iter(np.random.default_rng([word(split), seed, epoch, index]).random(DRAWS).tolist())


def check(split: str, size: tuple[int | None, ...] = (SIDE, SIDE)) -> None:
    """Raise one ValueError that names every argument that cannot be used."""
    problems = []
    if split not in SPLITS:
        problems.append(f"split must be one of {', '.join(SPLITS)}. Received: split={split!r}")
    if len(size) != 2 or any(n is None or n < SMALLEST for n in size):
        problems.append(
            f"cluttered_digits makes pictures of a fixed size, at least {SMALLEST}x{SMALLEST}. Received: {tuple(size)}"
        )
    if problems:
        raise ValueError("\n".join(problems))
