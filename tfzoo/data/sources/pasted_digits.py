"""Handwritten digits pasted on photographs, `tfzoo.data.pasted_digits`: new ones in every epoch, nothing downloaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from tfzoo.data import Source, Wanted, pasted_digits

PATTERN = "pasted_digits"
KINDS = {"masks": "pasted_digits (digits on photographs, embedded)"}


@dataclass(frozen=True)
class Made(Sequence):
    """Pictures of a split, made when they are asked for; validation and held-out ones are the same for every seed."""

    split: str
    image_shape: tuple[int, int, int]
    seed: int
    count: int
    fixed = True
    parallel = 1  # they are made in Python, where two threads wait for one another

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int):
        if not 0 <= i < self.count:
            raise IndexError(i)
        return self.at(*divmod(i, pasted_digits.EPOCH))

    def at(self, epoch: int, i: int):
        """Make picture i of an epoch and its mask."""
        made = pasted_digits.picture(self.split, self.image_shape, self.seed, epoch, i)
        return made.image, made.mask


def open(text: str, wanted: Wanted) -> Source:
    """Open the splits as a `Source` of pictures `(H, W, 3)` float32 in [0, 1] and masks `(H, W, 1)` float32."""
    pasted_digits.check("training", wanted.image_shape)
    return Source(
        Made("training", wanted.image_shape, wanted.seed, pasted_digits.EPOCH),
        *(Made(split, wanted.image_shape, 0, wanted.pictures[split]) for split in ("validation", "held_out")),
        f"digits pasted on photographs; held out: {', '.join(pasted_digits.PHOTOGRAPHS['held_out'])}",
    )
