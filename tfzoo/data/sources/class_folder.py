"""Pictures in a folder for each class, as torchvision's `ImageFolder` and ImageNet have them.

Classes are numbered in the order of their folders' names. With `train/` above the classes, `val/` and `test/` may be
beside it.
"""

from pathlib import Path

import numpy as np

from tfzoo.data import Source, Wanted, files
from tfzoo.data.pictures import FORMATS, pixels, size

PATTERN = None
KINDS = {"classes": "a folder with a folder of pictures for each class, in train/ val/ test/ or not"}
RULE = f"it must hold one folder of pictures ({' '.join(FORMATS)}) for each of two or more classes"


def open(text: str, wanted: Wanted) -> Source:
    """Open the folder as a `Source` of pictures `(H, W, 3)` uint8 and class numbers int64."""
    folder = Path(text)
    there = files.parts(folder)
    names = tuple(path.name for path in files.visible(there["training"]) if path.is_dir())
    numbers = {name: np.int64(number) for number, name in enumerate(names)}

    def among(items):
        few = [] if len(names) > 1 else [f"{len(names)} folders of pictures; a class each is needed, 2 or more"]
        met = {(part, name) for part, some in items.items() for _, name in some if name not in numbers}
        return few + [
            f"{there[part] / name}: is a class that {there['training'].name}/ has not" for part, name in sorted(met)
        ]

    return files.source(
        folder,
        wanted,
        listing=listing,
        size=size_of,
        read=lambda item: (pixels(item[0]), numbers[item[1]]),
        rule=RULE,
        noun=f"pictures of {len(names)} classes",
        files=lambda item: item[:1],
        label=lambda item: item[1],
        among=among,
        classes=names,
    )


def size_of(item: tuple[Path, str]) -> int:
    """Decode a picture to see whether that can be done; gives its bytes."""
    return size(item[0])


def listing(folder: Path, problems: list[str]) -> list[tuple[Path, str]]:
    """Find the pictures below each class's folder, with the class's name."""
    found = []
    for path in files.visible(folder):
        if path.is_dir():
            pictures = list(files.walk(path, list(FORMATS), problems))
            found += [(picture, path.name) for picture in pictures]
            if not pictures:
                problems.append(f"{path}: holds no picture")
        elif path.suffix.lower() in FORMATS:
            problems.append(f"{path}: lies beside the classes' folders, not in one")
    return found
