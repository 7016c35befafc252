"""Pictures anywhere below a folder, for models that learn from pictures alone; in `train/`, `val/`, `test/` or not."""

from pathlib import Path

from tfzoo.data import Source, Wanted, files
from tfzoo.data.pictures import FORMATS, pixels, size

PATTERN = None
KINDS = {"images": "a folder with pictures anywhere below it"}


def open(text: str, wanted: Wanted) -> Source:
    """Open the folder as a `Source` of pictures `(H, W, 3)` uint8."""
    return files.source(
        Path(text),
        wanted,
        listing=lambda folder, problems: files.walk(folder, list(FORMATS), problems),
        size=size,
        read=lambda path: (pixels(path),),
        rule=f"it must hold pictures ({' '.join(FORMATS)})",
        noun="pictures",
    )
