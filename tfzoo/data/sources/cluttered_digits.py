"""Handwritten digits turned, anywhere in a picture, among pieces of other digits: new ones in every epoch.

After the cluttered MNIST of Jaderberg et al. (2015, https://arxiv.org/abs/1506.02025), of scikit-learn's digits, which
are embedded; a digit's angle is known, so that what a spatial transformer makes of it can be measured. The splits are
those of `digits`, and the pieces in a picture are of its own split.
"""

import math
import zlib
from collections.abc import Sequence
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
DRAWS = 2 + 6 * PIECES  # the digit's place; of every piece its digit, its place in that, and its place
TURNS = 32  # angles and sizes of a digit: after as many epochs they come again, at other places, among other pieces
KEPT = 1500 * TURNS  # digits that are drawn once, since that takes longer than all else
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
    made = pictures(split, size, seed, [epoch], [index])
    return Picture(made.image[0], int(made.label[0]), float(made.angle[0]), tuple(made.center[0].tolist()))


def pictures(split: str, size: tuple[int, int], seed: int, epochs: Sequence[int], indices: Sequence[int]) -> Picture:
    """Make several pictures, which takes less time than one after another.

    Args:
        split: As in `picture`.
        size: The same.
        seed: The same.
        epochs: Of each picture.
        indices: The same.

    Returns:
        The parts of all as arrays, the pictures' axis first.
    """
    check(split, size)
    (digits, labels), scale = handwriting(split), min(size) / SIDE
    rounds, chosen = np.divmod(np.asarray(indices), len(digits))
    rounds, numbers = np.stack([epochs, rounds], -1), np.empty((len(chosen), DRAWS))
    for one in np.unique(rounds, axis=0):  # few: in a round comes every digit
        those = (rounds == one).all(1)
        chosen[those] = in_order(split, seed, one[0], chosen[those])
        numbers[those] = draws(split, DRAWS, seed, *one.tolist())[chosen[those]]
    images, every = np.zeros((len(chosen), *size), np.uint8), np.arange(len(chosen))[:, None, None]
    for first in range(2, 2 + 6 * PIECES, 6):
        others = (chosen + 1 + below(len(digits) - 1, numbers[:, first])) % len(digits)
        ink = pieces(split, others, scale, numbers[:, first + 1 : first + 4])
        corners = below(np.subtract(size, ink.shape[1:]) + 1, numbers[:, first + 4 : first + 6])
        where = every, *windows(corners, ink.shape[1])
        images[where] = np.maximum(images[where], ink)  # what is there is darkened only
    angles, centers = np.empty(len(chosen)), np.empty((len(chosen), 2))
    places = numbers[:, :2].tolist()
    make = turned if scale <= 1 else turned.__wrapped__  # larger ones would fill the memory
    for n, (epoch, round, digit) in enumerate(np.stack([*rounds.T, chosen], -1).tolist()):
        ink, middle, angles[n] = make(split, seed, scale, epoch % TURNS, round, digit)
        top, left = (int(places[n][axis] * (size[axis] - ink.shape[axis] + 1)) for axis in (0, 1))
        there = images[n, top : top + ink.shape[0], left : left + ink.shape[1]]
        np.maximum(there, ink, out=there)
        centers[n] = left + middle[0], top + middle[1]
    return Picture(images[..., None], labels[chosen], angles, centers)


def angle(split: str, index: int, seed: int = 0, epoch: int = 0) -> float:
    """Give the angle of a picture's digit, in radians, as `Picture` has it, without making the picture.

    Args:
        split: As in `picture`.
        index: The example's number.
        seed: As in `picture`; validation and held-out examples of a source have 0.
        epoch: The same.
    """
    check(split)
    round, row = divmod(index, len(handwriting(split)[0]))
    return turn(split, seed, epoch % TURNS, round, in_order(split, seed, epoch, row))[0]


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
        return tuple(part[0] for part in self.several([epoch], [i]))

    def several(self, epochs: Sequence[int], numbers: Sequence[int]) -> tuple:
        """Make pictures of epochs, as `at` does each."""
        made = pictures(self.split, self.size, self.seed, epochs, numbers)
        return (made.image, made.label) if self.labelled else (made.image,)


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
        f"digits turned by up to 60 degrees, each in {TURNS} ways, anywhere on {size[0]}x{size[1]} pixels, among "
        "pieces of others",
        tuple("0123456789") if labelled else None,
    )


@lru_cache(KEPT)
def turned(
    split: str, seed: int, scale: float, epoch: int, round: int, digit: int
) -> tuple[np.ndarray, tuple[float, float], float]:
    """Draw a digit as `turn` chooses: the ink and the middle that `draw` gives, and the angle."""
    angle, size = turn(split, seed, epoch, round, digit)
    ink, middle = draw(handwriting(split)[0][digit], scale * DIGIT * size, angle)
    return ink.copy(), middle, angle  # without what it was cut from


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


def pieces(split: str, others: np.ndarray, scale: float, draws: np.ndarray) -> np.ndarray:
    """Cut a piece with ink in it out of each of some digits, upright.

    Args:
        split: Whose digits they are.
        others: Their numbers `(N,)`.
        scale: Of the picture, 1 for 60 pixels.
        draws: `(N, 3)` in [0, 1): which pixel of the ink, and where in the piece it is.

    Returns:
        `(N, PIECE scale, PIECE scale)` uint8.
    """
    drawn, ink, starts, side = upright(split, scale)
    inked = ink[starts[others] + below(starts[others + 1] - starts[others], draws[:, 0])]  # (N, 2): row, column
    return drawn[(others[:, None, None], *windows(inked - below(side, draws[:, 1:]), side))]


@lru_cache(len(SPLITS))
def upright(split: str, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Draw the digits of a split to be cut up.

    Returns:
        `(N, h, w)` uint8, each with a frame of a piece's side, so that a stroke at its edge may be anywhere in a piece;
        (row, column) of their ink, the first digit's first; where in that each digit's begins, and the last one's ends;
        and the pieces' side.
    """
    side = max(round(scale * PIECE), 1)
    apart = [np.pad(draw(digit, scale * DIGIT, 0.0)[0], side) for digit in handwriting(split)[0]]
    drawn = np.zeros((len(apart), *np.max([one.shape for one in apart], 0)), np.uint8)
    for whole, one in zip(drawn, apart, strict=True):
        whole[: one.shape[0], : one.shape[1]] = one
    digits, *ink = np.nonzero(drawn > 127)
    return drawn, np.stack(ink, -1), np.searchsorted(digits, np.arange(len(drawn) + 1)), side


def windows(corners: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Give rows `(N, side, 1)` and columns `(N, 1, side)` of windows by their upper left corners `(N, 2)`."""
    rows, columns = (corners[:, axis, None] + np.arange(side) for axis in (0, 1))
    return rows[:, :, None], columns[:, None]


def turn(split: str, seed: int, epoch: int, round: int, digit: int) -> tuple[float, float]:
    """Choose the angle of a digit, in radians, and its size, in DIGIT."""
    first, second = draws(split, 2, seed, epoch, round)[digit].tolist()
    return LARGEST * (2 * first - 1), 0.9 + 0.2 * second


def below(count, draws: np.ndarray) -> np.ndarray:
    """Choose numbers from 0 to before `count` by draws in [0, 1)."""
    return (draws * count).astype(np.int64)


def in_order(split: str, seed: int, epoch: int, rows):
    """Give the digits that come at some rows of a round: those for training in an order of every epoch's own."""
    return order(seed, int(epoch), len(handwriting(split)[0]))[rows] if split == "training" else rows


@lru_cache(8)
def draws(split: str, count: int, seed: int, epoch: int, round: int) -> np.ndarray:
    """Draw some numbers in [0, 1) for every digit of a split, `(N, count)`; those of two counts are independent."""
    seeds = [zlib.crc32(f"cluttered {split} {count}".encode()), seed, epoch, round]
    return np.random.default_rng(seeds).random((len(handwriting(split)[0]), count))


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
