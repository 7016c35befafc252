"""What `tf.train.Checkpoint` writes, and the variables of a SavedModel, by their paths in the graph of objects."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bridge.checkpoints import ACCEPTED, Tensor
from bridge.graph import BridgeError

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
BOOKKEEPING = ("_CHECKPOINTABLE_OBJECT_GRAPH",)


@contextlib.contextmanager
def reading(path: str) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Open a checkpoint; see `bridge.checkpoints.open`."""
    prefix = find(path)
    from bridge import _quiet

    _quiet.import_tensorflow()
    import tensorflow as tf

    reader = tf.train.load_checkpoint(prefix)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    tensors, left_out = {}, []
    for key in sorted(shapes):
        dtype = np.dtype(dtypes[key].as_numpy_dtype)
        if dtype.kind == "O":  # text, such as the graph of objects itself
            left_out += [] if key in BOOKKEEPING else [key]
            continue
        read = functools.partial(value, reader, key)
        tensors[key.removesuffix(VALUE)] = Tensor(tuple(shapes[key]), dtype, read)
    yield tensors, left_out


def value(reader, key: str) -> np.ndarray:
    """Read an array."""
    return np.asarray(reader.get_tensor(key))


def find(path: str) -> str:
    """Give the prefix of a checkpoint that a path means, which is not TensorFlow's to guess where there is none."""
    given = Path(path)
    if (given / "saved_model.pb").is_file():
        given = given / "variables" / "variables"
    elif given.is_dir():
        every = sorted(given.glob("*.index"), key=lambda p: (p.stat().st_mtime_ns, p.name))
        if not every:
            raise BridgeError(f"{path} has no checkpoint in it. {ACCEPTED}")
        given = every[-1]
    prefix = str(given).removesuffix(".index")
    if not Path(f"{prefix}.index").is_file():
        raise BridgeError(f"{path}: no such checkpoint. {ACCEPTED}")
    return prefix
