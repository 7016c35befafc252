"""Checkpoints of any kind as a mapping from names to arrays, each of which is read when it is asked for.

    with checkpoints.open("model.weights.h5") as state:
        state["conv1/0"]                # an array
        state.tensors["conv1/0"].shape  # without reading it

Names are the file's own, with the layers' where it has them: `conv1/0` in a file of Keras 3, which numbers a layer's
weights, `conv1/kernel` in one of Keras 2, `layer1.0.conv1.weight` in one of torch, the object graph's path in one of
`tf.train.Checkpoint`. What an optimizer keeps is there, too. HDF5 and safetensors are read without TensorFlow or torch.
"""

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bridge import untrusted
from bridge.graph import BridgeError

# The ending of a file, and the module that reads it.
ENDINGS = {
    ".keras": "hdf5",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".safetensors": "safetensors",
    ".pt": "torch_file",
    ".pth": "torch_file",
    ".bin": "torch_file",
}
ACCEPTED = (
    f"Accepted: a file that ends with {', '.join(ENDINGS)}, the prefix of a tf.train.Checkpoint, a folder of such, or "
    "of a SavedModel"
)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        shape: Its sizes.
        dtype: As NumPy has it; bfloat16 and the like are those of `ml_dtypes`.
        read: Gives the array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """How much memory the array takes."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


class Checkpoint(Mapping):
    """What `open` gives: an array for each name, read when it is asked for.

    Attributes:
        path: The file.
        tensors: What the arrays are, without reading them.
        left_out: Names of what is in the file and is no tensor of numbers.
    """

    def __init__(self, path: str, tensors: Mapping[str, Tensor], left_out: list[str]):
        self.path, self.tensors, self.left_out = path, dict(tensors), left_out

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        with said_of(self.path, name):
            array = tensor.read()
            if array.shape != tensor.shape or array.dtype != tensor.dtype:
                raise ValueError(f"it is {array.dtype} {array.shape}, not {tensor.dtype} {tensor.shape}")
            return array

    def checked(self) -> dict[str, Tensor]:
        """Give the tensors so that reading one fails as `[name]` does, with the names of the file and of the tensor."""
        return {name: replace(t, read=functools.partial(self.__getitem__, name)) for name, t in self.tensors.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


@contextlib.contextmanager
def open(path: str | os.PathLike) -> Iterator[Checkpoint]:
    """Open a checkpoint.

    Args:
        path: A file of weights, by its ending (`ENDINGS`); or of TensorFlow the prefix of a checkpoint, its `.index`, a
            folder of checkpoints, of which the newest is taken, or the folder of a SavedModel.

    Yields:
        The checkpoint, whose arrays can be read until the block ends.

    Raises:
        BridgeError: There is no such file, or it is damaged, or of no kind that is read.
    """
    path = os.fspath(path)
    kind = ENDINGS.get(Path(path).suffix)
    if kind:
        untrusted.check_file(path, ACCEPTED)
    with contextlib.ExitStack() as stack:
        with said_of(path):
            tensors, left_out = stack.enter_context(
                importlib.import_module(f"bridge.checkpoints.{kind or 'tensorflow'}").reading(path)
            )
            if kind and (asked := sum(tensor.nbytes for tensor in tensors.values())) > untrusted.room(path):
                raise ValueError(f"its tensors would take {asked:,} bytes")
        yield Checkpoint(path, tensors, left_out)


@contextlib.contextmanager
def said_of(path: str, name: str = "") -> Iterator[None]:
    """Say of a file, and of a tensor in it, what goes wrong: a damaged one fails anywhere in the libraries."""
    try:
        yield
    except BridgeError:
        raise
    except (Exception, MemoryError) as e:
        inside = f", {name}:" if name else ""
        raise BridgeError(f"{path}{inside} cannot be read: {untrusted.why(e)}. {untrusted.DAMAGED_OR_OTHER}") from e
