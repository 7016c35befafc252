"""One way in to all data: `tfzoo.data.open(text, kind, seed=...)`, where `text` is what `--data` says.

Every file of `sources/` is a source, found by what the text says; docs/data.md has the texts and the folders' layouts.
A source gives collections of examples as they are; `pipeline` puts them in order and into batches, and on the way there
`augmentation` changes them.
"""

import importlib
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

KINDS = {
    "classes": "uint8 pictures (H, W, C) and int64 class numbers",
    "masks": "float32 pictures (H, W, C) in [0, 1] and float32 masks (H, W, 1) of class numbers, at the model's size",
    "pairs": "two uint8 pictures (H, W, 3) of one size",
    "images": "uint8 pictures (H, W, C)",
    "audio": "float32 waveforms (window,) in [-1, 1]",
}


@dataclass(frozen=True)
class Source:
    """What there is to learn from, in three parts that share no example.

    Attributes:
        training: `len()` and `[i]`, which gives a tuple of NumPy arrays, as `KINDS` has them.
        validation: The same, to choose by (the best epoch, a learning rate).
        held_out: The same, to judge by only.
        description: One line for people; two openings of the same data have the same.
        classes: The classes' names in the order of their numbers; None where there are none.
    """

    training: Sequence
    validation: Sequence
    held_out: Sequence
    description: str
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Wanted:
    """What a recipe wants of a source.

    Attributes:
        kind: A key of `KINDS`.
        seed: Any integer from 0; decides which examples go where, if the data does not say.
        image_shape: `(H, W, C)` in pixels of the model's input; only "masks" needs it: a mask is cut with its picture.
        classes: Classes of masks; 1 for those of {0, 1} or {0, 255}.
        pictures: How many pictures `validation` and `held_out` are to have where they can be made without end.
        window: Samples of a waveform.
        keep: Bytes of decoded pictures that may be kept in memory; more are decoded anew every time.
    """

    kind: str
    seed: int
    image_shape: tuple[int, int, int] | None = None
    classes: int = 1
    pictures: dict[str, int] = field(default_factory=lambda: {"validation": 128, "held_out": 256})
    window: int = 16384
    keep: int = 2**30


def open(text: str, kind: str, *, seed: int, **wanted) -> Source:
    """Open the data that `--data` names; everything about it is checked before the first step.

    Args:
        text: A folder, the name of an embedded set, `keras:NAME` or `tfds:NAME`.
        kind: A key of `KINDS`: what the recipe learns from.
        seed: Any integer from 0; decides which examples go where, if the data does not say.
        wanted: More attributes of `Wanted`.

    Returns:
        The source.

    Raises:
        ValueError: There is no such data, it does not give the kind, or it cannot be used; names all that is wrong.
    """
    takers = taking(text)
    able = [source for source in takers if kind in source.KINDS]
    if not able:
        what = f"{text} does not give {KINDS[kind]}" if takers else f"there is no folder {text}"
        raise ValueError(f"{what}. Accepted for --data: {'; '.join(accepted(kind))}.")
    return able[0].open(text, Wanted(kind, seed, **wanted))


def taking(text: str) -> list[ModuleType]:
    """Find the sources that a text may mean; a folder of a data set's name is written `./NAME`."""
    named = [source for source in every() if source.PATTERN and re.fullmatch(source.PATTERN, text)]
    folders = [source for source in every() if not source.PATTERN]
    return named or (folders if pathlib.Path(text).is_dir() else [])


def absolute(text: str) -> str:
    """Give a folder's absolute path, by which it is found from anywhere; the text of any other source as it is."""
    is_folder = pathlib.Path(text).is_dir() and not any(source.PATTERN for source in taking(text))
    return str(pathlib.Path(text).absolute()) if is_folder else text


def accepted(kind: str) -> list[str]:
    """List what `--data` takes for a kind, in words; folders come last."""
    able = [source for source in every() if kind in source.KINDS]
    return [source.KINDS[kind] for source in sorted(able, key=lambda source: source.PATTERN is None)]


def every() -> list[ModuleType]:
    """Import every source; none of them imports a framework."""
    files = sorted((pathlib.Path(__file__).parent / "sources").glob("[!_]*.py"))
    return [importlib.import_module(f"tfzoo.data.sources.{file.stem}") for file in files]
