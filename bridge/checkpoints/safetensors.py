"""`.safetensors`, read and written tensor by tensor (https://huggingface.co/docs/safetensors, "Format").

Eight bytes have the length of the header, little-endian; the header is JSON, from names to dtype, shape and where the
bytes are in the rest of the file. The library maps the file into memory, where what was read counts until it is closed.
"""

import contextlib
import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np

from bridge.checkpoints import Tensor
from bridge.graph import BridgeError

LONGEST = 100_000_000  # bytes of a header, as the format has it
DTYPES = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F32": np.float32,
    "F64": np.float64,
    "C64": np.complex64,
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


@contextlib.contextmanager
def reading(path: str) -> Iterator[tuple[dict[str, Tensor], list[str]]]:
    """Open a file; see `bridge.checkpoints.open`."""
    with open(path, "rb") as file:
        size = Path(path).stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(LONGEST, size - 8):
            raise ValueError(f"its header would have {length:,} bytes")
        header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no dictionary")
        header.pop("__metadata__", None)
        begin, spans = 8 + length, []
        tensors = {}
        for name, about in header.items():
            dtype, shape, (start, stop) = np.dtype(DTYPES[about["dtype"]]), tuple(about["shape"]), about["data_offsets"]
            if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
                raise ValueError(f"the sizes of {name!r:.200} are no numbers from 0 on")
            if stop - start != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name!r:.200} has {stop - start:,} bytes, not those of {dtype} {shape}")
            spans.append((start, stop))
            tensors[name] = Tensor(shape, dtype, functools.partial(read, file, begin + start, dtype, shape))
        ends = [0, *(stop for _, stop in sorted(spans))]
        if ends != [*(start for start, _ in sorted(spans)), size - begin]:
            raise ValueError("its tensors do not fill the file, one behind the other")
        yield tensors, []


def read(file: IO[bytes], start: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Read an array at a place."""
    array = np.empty(shape, dtype)
    file.seek(start)
    if file.readinto(memoryview(array.reshape(-1).view(np.uint8))) != array.nbytes:
        raise ValueError("the file ends before it")
    return array


def write(path: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, each read when it is its turn.

    Args:
        path: The file.
        tensors: By name; the names must be text without an end of its own, as JSON has it.
        metadata: Texts by name, that the library gives back as `metadata()`.

    Raises:
        BridgeError: A dtype is none of the format's; names all of them.
    """
    if wrong := [f"{name} is {t.dtype}" for name, t in tensors.items() if t.dtype not in NAMES]:
        raise BridgeError(f"safetensors has no such dtypes: {', '.join(wrong)}. Accepted: {', '.join(map(str, NAMES))}")
    # Large elements first, so that every tensor begins at a multiple of its own: the library does the same.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header, end = {"__metadata__": dict(metadata)} if metadata else {}, 0
    for name in order:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = np.ascontiguousarray(tensors[name].read())
            file.write(memoryview(array.reshape(-1).view(np.uint8)))
