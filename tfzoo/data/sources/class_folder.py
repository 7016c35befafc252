"""Pictures in a folder for each class, as torchvision's `ImageFolder` and ImageNet have them.

Classes are numbered in the order of their folders' names. With `train/` above the classes, `val/` and `test/` may be
beside it. Every part has pictures of every class: nothing could be said of one that is never judged.
"""

from collections import Counter
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
        among=lambda items: among(items, there, names),
        classes=names,
    )


def size_of(item: tuple[Path, str]) -> int:
    """Decode a picture to see whether that can be done; gives its bytes."""
    return size(item[0])


def listing(folder: Path, problems: list[str]) -> list[tuple[Path, str]]:
    """Find the pictures below each class's folder, with the class's name."""
    if {path.name for path in files.visible(folder) if path.is_dir()} == {"images", "masks"}:
        problems.append(f"{folder}: images/ and masks/ are pictures with masks, as `tfzoo train unet` takes them")
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


def among(items: dict[str, list], there: dict[str, Path], names: tuple[str, ...]) -> list[str]:
    """Say what is wrong with all pictures together: each part that is there, or is cut off, needs every class.

    Args:
        items: Those of each part, as `listing` gives them.
        there: The parts' folders.
        names: The classes: the folders to learn from.

    Returns:
        Sentences; what `listing` said of empty folders is not said again.
    """
    counts = {part: Counter(name for _, name in some) for part, some in items.items()}
    training, learned = there["training"], sorted(counts["training"])
    fewest = 1 + len(files.PARTS) - len(there)  # one to learn from, and one for each part that is cut off
    problems = []
    if len(names) < 2:
        problems.append(f"{len(names)} folder{'s' * (not names)} of pictures; a class each is needed, 2 or more")
    for name in learned:
        if (count := counts["training"][name]) < fewest:
            problems.append(
                f"{training / name}: holds {count} picture{'s' * (count > 1)}; {fewest} are needed, one for each part "
                "that is made of this folder"
            )
    for part, folder in there.items():
        problems += [
            f"{folder / name}: is a class that {training.name}/ has not" for name in sorted(counts[part].keys() - names)
        ]
        gone = [name for name in learned if not (folder / name).is_dir()]
        if gone and (counts[part] or len(gone) < len(learned)):
            problems.append(
                f"{folder}: has no picture of {', '.join(gone)}; every part needs all classes of {training.name}/. "
                f"Without {folder.name}/, one is cut off {training.name}/"
            )
    return problems
