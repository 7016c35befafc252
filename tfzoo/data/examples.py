"""Collections of examples: `len()`, and `[i]`, which gives a tuple of NumPy arrays.

`pipeline` asks for four more things, which may be there: `fixed`, that all examples have the shapes of the first one;
`at(epoch, index)`, which makes an example that is new in every epoch and is not shuffled; beside it
`several(epochs, indices)`, which makes as many of them in less time; `parallel`, how many are made at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Arrays(Sequence):
    """Examples in memory, of one shape: row i of every array."""

    arrays: tuple[np.ndarray, ...]
    fixed = True

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
        return tuple(array[i] for array in self.arrays)

    def choose(self, rows: np.ndarray) -> "Arrays":
        """Give some of the rows, in the order asked for."""
        return Arrays(tuple(array[rows] for array in self.arrays))


@dataclass(frozen=True)
class Read(Sequence):
    """Examples that are read when they are asked for.

    Attributes:
        items: What `read` needs to know of each.
        read: From an item to the example.
        fixed: Whether all have one shape.
        keep: Whether an example is read once and then kept in memory.
    """

    items: Sequence
    read: Callable[[Any], tuple[np.ndarray, ...]]
    fixed: bool = False
    keep: bool = False
    kept: dict[int, tuple[np.ndarray, ...]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[np.ndarray, ...]:
        if i in self.kept:
            return self.kept[i]
        example = self.read(self.items[i])
        if self.keep:
            self.kept[i] = example
        return example
