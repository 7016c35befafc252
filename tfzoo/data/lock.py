"""One process at a time: workers that open the same data at once download it once."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Wait until no other process or thread is between these lines for a folder, and keep others out.

    The lock is a file in the folder, as network file systems lock no folders, and ends with the process. Where it
    cannot be made, nothing can be downloaded either, and nothing is waited for.

    Args:
        folder: Is made if it is not there.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((Path(folder) / ".tfzoo.lock").open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
