"""Pairs of pictures, such as a drawing and a photograph: `A/*` and `B/*` by the same names, or two in one file.

The data sets of pix2pix (Isola et al., 2017, https://arxiv.org/abs/1611.07004) are of the second kind, side by side.
With `train/` above either, `val/` and `test/` may be beside it.
"""

from pathlib import Path

from tfzoo.data import Source, Wanted, files
from tfzoo.data.pictures import FORMATS, pixels

PATTERN = None
KINDS = {"pairs": "a folder with A/ and B/, or with pictures that are two side by side; in train/ val/ test/ or not"}
RULE = (
    f"it must hold A/ and B/ with one picture ({' '.join(FORMATS)}) each of the same name and size, or pictures that "
    "are two of the same size side by side"
)


def open(text: str, wanted: Wanted) -> Source:
    """Open the folder as a `Source` of two pictures `(H, W, 3)` uint8: A or left, B or right."""
    return files.source(
        Path(text), wanted, listing=listing, size=size, read=read, rule=RULE, noun="pairs", files=lambda item: item
    )


def listing(folder: Path, problems: list[str]) -> list[tuple[Path, ...]]:
    """Find the pairs of a folder: of two files each, or of one."""
    if not ((folder / "A").is_dir() or (folder / "B").is_dir()):
        return [(path,) for path in files.walk(folder, list(FORMATS), problems)]
    sides = []
    for side in (folder / "A", folder / "B"):
        sides.append({})
        if not side.is_dir():
            problems.append(f"{side}: there is no such folder")
            continue
        for path in files.walk(side, list(FORMATS), problems):
            name = path.relative_to(side).with_suffix("")
            if name in sides[-1]:
                problems.append(f"{path}: has the same name as {sides[-1][name].name}")
            sides[-1][name] = path
    a, b = sides
    for name in sorted(a.keys() ^ b.keys()):
        problems.append(f"{a.get(name) or b[name]}: there is none of its name in {'B' if name in a else 'A'}/")
    return [(a[name], b[name]) for name in sorted(a.keys() & b.keys())]


def read(item: tuple[Path, ...]):
    """Read both pictures; raises a ValueError where they do not fit together."""
    if len(item) == 1:
        both = pixels(item[0])
        height, width, _ = both.shape
        if width % 2:
            raise ValueError(
                f"two pictures side by side must be an even number of pixels wide. Received: {width}x{height}"
            )
        return both[:, : width // 2], both[:, width // 2 :]
    a, b = (pixels(path) for path in item)
    if a.shape != b.shape:
        sizes = " and ".join(f"{w}x{h}" for h, w, _ in (a.shape, b.shape))
        raise ValueError(f"differs in size from {item[1].parent.name}/{item[1].name}: {sizes}")
    return a, b


def size(item: tuple[Path, ...]) -> int:
    """Read both pictures to see whether that can be done; gives their bytes."""
    return sum(picture.nbytes for picture in read(item))
