"""Random access to TFRecord files: where each record lies is read once, by going from length to length.

A record is its length (uint64, little-endian), a checksum of that, the bytes, and a checksum of them
(https://www.tensorflow.org/tutorials/load_data/tfrecord). The checksums are not looked at; that the records end where
the file does is.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HEAD, FOOT = 12, 4  # bytes before and after a record's own


class Records(Sequence):
    """The records of several files, one after the other; may be read from several threads.

    Args:
        paths: The files, in order.
        lengths: How many records each has to have.

    Raises:
        ValueError: A file is cut short, or has another number of records.
    """

    def __init__(self, paths: Sequence[str | Path], lengths: Sequence[int]):
        self.paths = [Path(path) for path in paths]
        self.starts = [starts(path, length) for path, length in zip(self.paths, lengths, strict=True)]
        self.ends = np.cumsum([len(some) for some in self.starts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, i: int) -> bytes:
        file = int(np.searchsorted(self.ends, i, side="right"))
        start = int(self.starts[file][i - self.ends[file]])
        # Opened anew, which takes microseconds: a set may have more files than a process may have open.
        with self.paths[file].open("rb", buffering=0) as opened:
            (length,) = struct.unpack("<Q", os.pread(opened.fileno(), 8, start))
            return os.pread(opened.fileno(), length, start + HEAD)


def starts(path: Path, count: int) -> np.ndarray:
    """Find where the records of a file begin, int64 `(count,)`; raises a ValueError if they are not `count`."""
    found, at, size = [], 0, path.stat().st_size
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(8)
            found.append(at)
            at += HEAD + (struct.unpack("<Q", head)[0] if len(head) == 8 else size) + FOOT
    if at != size or len(found) != count:
        raise ValueError(f"{path}: must hold {count} whole records. Received: {len(found)}, {size} bytes. Get it anew")
    return np.array(found, np.int64)
