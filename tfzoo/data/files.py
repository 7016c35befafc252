"""Folders of files: what is in them, whether all of it can be read, and which part goes where.

Everything is read once before the first step, several files at a time, and everything wrong is named at once.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bridge.progress import printable
from tfzoo.data import Source, Wanted
from tfzoo.data.examples import Read
from tfzoo.data.split import cut

PARTS = {"training": ("train", "training"), "validation": ("val", "valid", "validation"), "held_out": ("test",)}
SHARE = 0.15  # of the examples, for validation, and as many held out, where the folder does not say
# Data that is not read, by the first of the endings that are.
NOT_READ = {
    ".png": (".gif", ".webp", ".heic", ".avif", ".jp2", ".svg", ".psd", ".tga", ".exr", ".hdr"),
    ".wav": (".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".wma"),
}
MANY = 300  # files from which on it is said how far the reading has come
BLOCK = 4096  # files that wait for a thread at once
_sound: dict[int, int] = {}  # bytes of what was found readable in this process, by a hash of what it was and when


def parts(folder: Path) -> dict[str, Path]:
    """Find the folders of the parts: `train/` and what is beside it, or else the folder itself to learn from."""
    there = {part: [folder / name for name in names if (folder / name).is_dir()] for part, names in PARTS.items()}
    return {part: paths[0] for part, paths in there.items() if paths} if there["training"] else {"training": folder}


def beside(folder: Path) -> list[str]:
    """Say what is wrong with the folders: parts in capitals, two of one part, and what is none beside `train/`."""
    there = [path.name for path in visible(folder) if path.is_dir()]
    known = [name for names in PARTS.values() for name in names]
    problems = [
        f"{folder / name}: is no part, as it is spelt: rename it {name.lower()}/, or, if it is not meant as one, to "
        "anything else"
        for name in there
        if name not in known and name.lower() in known
    ]
    if folder in parts(folder).values():
        return problems
    for names in PARTS.values():
        if len(twice := [f"{folder / name}/" for name in names if name in there]) > 1:
            problems.append(f"{' and '.join(twice)}: are the same part; put them together")
    for name in there:
        if name.lower() not in known:
            accepted = " ".join(f"{one}/" for one in known)
            problems.append(
                f"{folder / name}: lies beside the parts and is none ({accepted}): take it away, or rename those that "
                "are not meant as parts either"
            )
    return problems


def visible(folder: Path) -> list[Path]:
    """List a folder in the order of names, without .DS_Store and the like."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def walk(folder: Path, endings: Sequence[str], problems: list[str]) -> Iterator[Path]:
    """Find the files with these endings anywhere below a folder, in the order of their paths.

    Links are followed, but none into a folder that it lies in. Added to `problems` are links to nothing, and files of
    formats that are data too, but are not read; other files are left out.
    """

    def below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
        for path in visible(folder):
            if path.is_dir():
                if path.resolve() not in above:
                    yield from below(path, (*above, path.resolve()))
            elif path.suffix.lower() in endings and path.is_file():
                yield path
            elif path.suffix.lower() in NOT_READ.get(endings[0], ()):
                problems.append(f"{path}: must be one of {' '.join(endings)}: convert it, or take it away")
            elif not path.exists():
                problems.append(f"{path}: is a link to a file that is not there")

    return below(folder, (folder.resolve(),))


def check(items: Sequence, size: Callable[[Any], int], files: Callable[[Any], Sequence[Path]]) -> tuple[int, list[str]]:
    """Read everything once; what was read before in this process, and has not changed since, is not read again.

    Args:
        items: What `size` takes.
        size: Reads an item and gives the bytes that it has in memory; raises on one that cannot be used. What was read
            is remembered by it, so it is the same object, or an equal one, in every call.
        files: Gives an item's files.

    Returns:
        The bytes of all, and what is wrong, by file.
    """
    shown = Progress(len(items))

    def one(item) -> tuple[int, list[str]]:
        paths = files(item)
        try:
            state = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in ((path, path.stat()) for path in paths)]
            known = hash((size, *state))
            if known not in _sound:
                _sound[known] = size(item)
            return _sound[known], []
        except Problems as problems:
            return 0, problems.args[0]
        except Exception as error:  # decoders raise anything on a broken file
            return 0, [f"{paths[0]}: {error}"]
        finally:
            shown.step()

    results = []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for start in range(0, len(items), BLOCK):
            results += pool.map(one, items[start : start + BLOCK])
    shown.end()
    return sum(size for size, _ in results), [problem for _, problems in results for problem in problems]


class Problems(ValueError):
    """What is wrong with an item, if more than one sentence about its first file: a list of them."""


class Progress:
    """A line on stderr that says how many files have been read: kept up to date on a terminal, else written once."""

    def __init__(self, count: int):
        self.count, self.done, self.last, self.live = count, 0, time.monotonic(), sys.stderr.isatty()
        if count > MANY and not self.live:
            print(f"reading {count:,} files once, to see whether all are whole", file=sys.stderr)

    def step(self) -> None:
        self.done += 1
        if self.live and self.count > MANY and time.monotonic() - self.last > 0.2:
            self.last = time.monotonic()
            print(f"\rreading files: {self.done:,} of {self.count:,}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self.live and self.count > MANY:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def refuse(folder: Path, rule: str, problems: list[str]) -> None:
    """Raise one ValueError for all problems, if there are any; paths are shown from the folder on."""
    if problems:
        found = "\n  ".join(problems).replace(f"{folder}{os.sep}", "")
        raise ValueError(printable(f"{folder} cannot be used: {rule}. Found:\n  {found}"))


def source(
    folder: Path,
    wanted: Wanted,
    *,
    read: Callable[[Any], tuple],
    noun: str,
    label: Callable[[Any], str] | None = None,
    classes: tuple[str, ...] | None = None,
    **listed,
) -> Source:
    """Open a folder whose examples are files.

    Args:
        folder: With or without `train/`, `val/` and `test/` in it.
        wanted: What for.
        read: From an item to its example.
        noun: What the items are, in words.
        label: An item's class.
        classes: The classes' names.
        listed: The other arguments of `found`.

    Raises:
        ValueError: Lists everything that is wrong.
    """
    items, size = found(folder, noun=noun, **listed)
    items = complete(items, wanted.seed, label)
    keep = size <= wanted.keep
    return Source(
        *(Read(items[part], read, keep=keep) for part in PARTS), description(folder, items.values(), noun), classes
    )


def found(
    folder: Path,
    *,
    listing: Callable[[Path, list[str]], Sequence],
    size: Callable[[Any], int],
    rule: str,
    noun: str,
    files: Callable[[Any], Sequence[Path]] = lambda item: [item],
    among: Callable[[dict[str, Sequence]], list[str]] = lambda items: [],
    fewest: int = 3,
) -> tuple[dict[str, list], int]:
    """Find and check the items of a folder.

    Args:
        folder: With or without `train/`, `val/` and `test/` in it.
        listing: From the folder of a part and a list to add problems to, to its items.
        size: As in `check`.
        rule: What the folder must be like, in words.
        noun: What the items are, in words.
        files: An item's files.
        among: What is wrong with all items together, from those of each part.
        fewest: Items of which three parts can be made.

    Returns:
        The items of each part that is there, and the bytes of all.

    Raises:
        ValueError: Lists everything that is wrong.
    """
    there, problems = parts(folder), beside(folder)
    items = {}
    for part, path in there.items():
        before = len(problems)
        items[part] = list(listing(path, problems))
        if path != folder and not items[part] and len(problems) == before:
            problems.append(f"{path}: holds no {noun}; take it away, or put some into it")
    size_of_all, unreadable = check([item for some in items.values() for item in some], size, files)
    problems += unreadable + among(items)
    if not problems and len(items["training"]) <= fewest - len(items):
        problems.append(f"{len(items['training'])} {noun}; {fewest} are needed, to train, to validate and to judge")
    refuse(folder, rule, problems)
    return items, size_of_all


def description(folder: Path, parts: Iterable[Sequence], noun: str) -> str:
    """Say in a line how many there are in the three parts."""
    training, validation, held_out = map(len, parts)
    return printable(f"{folder}: {training} {noun} to train on, {validation} for validation, {held_out} held out")


def complete(items: dict[str, list], seed: int, label: Callable[[Any], str] | None = None) -> dict[str, list]:
    """Give all parts, in the order of `PARTS`: those not there are cut off the training part, `SHARE` of it each."""
    training, made = items["training"], dict(items)
    count = len(training)
    for salt, part in enumerate(("held_out", "validation")):
        if part not in items:
            share = SHARE * count / len(made["training"])
            labels = label and [label(item) for item in made["training"]]
            rest, off = cut(len(made["training"]), share, [seed, salt], labels)
            made["training"], made[part] = ([made["training"][i] for i in some] for some in (rest, off))
    return {part: made[part] for part in PARTS}
