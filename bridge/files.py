"""Writing whole or not at all: to the side, then renamed."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bridge.graph import BridgeError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the request was good, the disk or a limit on it gave out


class WriteFailed(BridgeError):
    """There was no room for a result: a run that failed, not bad input."""

    exit_code = 3


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Give another name beside `path` to write to; it becomes `path` when the block ends well, else it goes.

    Args:
        path: The file or folder to be; a file of that name is replaced, a folder must not exist. Folders above it
            are made, and go again when the block fails.

    Yields:
        Where to write. It begins with a dot, which TensorFlow Serving takes for no version, and keeps the ending.
    """
    above = path.absolute().parent
    made = [p for p in (above, *above.parents) if not p.exists()]
    side = path.with_name(f".partial-{os.getpid()}-{path.name[-200:]}")  # another process may write the same path
    try:
        try:
            above.mkdir(parents=True, exist_ok=True)
        except FileExistsError as e:  # "File exists" would read as if it should not
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above)) from e
        remove(side)
        yield side
        os.replace(side, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what matters
            remove(side)
        for p in made:
            with contextlib.suppress(OSError):  # never made, or somebody else uses it by now
                p.rmdir()
        raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """`aside`, where a failure to write is a `BridgeError` that names the path and the reason."""
    try:
        with aside(path) as side:
            yield side
    except OSError as e:
        reason = e.strerror or e
        if e.errno in FULL:
            raise WriteFailed(
                f"{path} cannot be written: {reason}. Nothing of it was left; make room, or name another place"
            ) from e
        raise BridgeError(f"{path} cannot be written: {reason}. Name a place that can be") from e


def remove(path: Path) -> None:
    """Remove a file or a folder that may not be there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
