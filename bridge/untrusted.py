"""What is asked of a file before it is read, as others have made it: that it is there, whole and of an honest size."""

import zipfile
from pathlib import Path

from bridge.graph import BridgeError

DAMAGED = "The file ({:,} bytes) may be damaged: copy it once more, or save it again"
DAMAGED_OR_OTHER = "It may be damaged or of another kind than its name says: copy it once more, or save it again"
FREE = 2**28  # bytes that an archive or its weights may have, whatever the size of the file ...
GROWTH = 100  # ... and how many times the size of a larger file, as Keras has it


def check_file(path: str, accepted: str) -> int:
    """Give the size of a file in bytes, or say what there should be."""
    if not Path(path).is_file():
        raise BridgeError(f"{path}: no such file. {accepted}")
    return Path(path).stat().st_size


def room(path: str) -> int:
    """Give the bytes that a file, or the weights of its network, may unpack to."""
    return max(FREE, GROWTH * Path(path).stat().st_size)


def check_archive(path: str) -> None:
    """Refuse a zip archive with a wrong checksum, or that unpacks to what no honest one does."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(i.file_size for i in archive.infolist())
        if unpacked > room(path):
            raise ValueError(f"its archive unpacks to {unpacked:,} bytes")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged[:200]!r} in it is wrong")


def why(e: BaseException) -> str:
    """Say an error of any library in a line."""
    return f"{type(e).__name__}: {' '.join(str(e).split())[:500]}"
