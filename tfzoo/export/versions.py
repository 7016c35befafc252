"""The folder of a model's versions: `models/unet/1/`, `models/unet/2/`, ..., and the server's settings beside them.

TensorFlow Serving looks into it every second, takes every folder of digits for a version, and serves the highest.
"""

import re
from pathlib import Path

from bridge.files import remove
from tfzoo.export import configs

SAVED_MODEL = "saved_model.pb"
LEFT_OVER = re.compile(r"\.partial-(\d+)-")  # what an export that was killed wrote to the side


def choose(folder: Path, version: int | None, marker: str = SAVED_MODEL) -> int:
    """Choose the version to write, having looked at everything in the folder.

    Args:
        folder: The folder of the versions, which may not exist yet.
        version: A number above all that are there; None for the next.
        marker: A file that a version holds.

    Returns:
        The version.

    Raises:
        ValueError: Lists what is no version, or the version is not above the highest one.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    there = {int(path.name) for path in entries if path.name.isdecimal() and (path / marker).is_file()}
    foreign = [
        path.name
        for path in entries
        if not (path.name.isdecimal() and (path / marker).is_file())
        and path.name not in configs.NAMES
        and not LEFT_OVER.match(path.name)
    ]
    if foreign:
        raise ValueError(
            f"a folder of versions holds versions ({marker} in folders of digits) and {', '.join(configs.NAMES)}. "
            f"Received: {folder}, which also has {', '.join(foreign[:5])}{', ...' if len(foreign) > 5 else ''}. "
            "Name another folder with --output, or move them."
        )
    highest = max(there, default=0)
    if version is not None and version <= highest:
        raise ValueError(
            f"a version is never overwritten, and a server serves the highest. Received: version {version} in "
            f"{folder}, which has version {highest}. Accepted: --version {highest + 1} or more, or none for the next."
        )
    return version or highest + 1


def tidy(folder: Path) -> None:
    """Remove what exports that were killed have left: of processes that are no more."""
    for path in folder.glob(".partial-*") if folder.is_dir() else ():
        found = LEFT_OVER.match(path.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            remove(path)


def check_free(path: Path) -> None:
    """Refuse to publish under a number that another export has taken meanwhile."""
    if path.exists():
        raise ValueError(f"another export has written {path} meanwhile: export again, for the next number.")


def highest(folder: Path) -> Path:
    """Give the folder of the highest version; a version itself is given back.

    Raises:
        ValueError: There is none.
    """
    if (folder / SAVED_MODEL).is_file():
        return folder
    found = [path for path in folder.glob("*") if path.name.isdecimal() and (path / SAVED_MODEL).is_file()]
    if not found:
        raise ValueError(
            f"no exported model: {folder}. Accepted: a version such as models/unet/1, which holds {SAVED_MODEL}, or a "
            "folder of versions. A run is exported first: tfzoo export RUN."
        )
    return max(found, key=lambda path: int(path.name))
