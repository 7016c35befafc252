"""Pictures and masks, `FOLDER/images/*` and `FOLDER/masks/*`, in `train/`, `val/`, `test/` or not.

`tfzoo.data.image_folder` has how they are matched, checked and cut.
"""

from functools import partial
from pathlib import Path

from tfzoo.data import Source, Wanted, files, image_folder
from tfzoo.data.pictures import FORMATS

PATTERN = None
KINDS = {"masks": "a folder with images/ and masks/, in train/ val/ test/ or not"}
RULE = f"images/ and masks/ must hold one picture each of the same name and size ({' '.join(FORMATS)})"


def open(text: str, wanted: Wanted) -> Source:
    """Open the folder as a `Source` of pictures `(H, W, C)` float32 in [0, 1] and masks `(H, W, 1)` float32."""
    image_folder.check_shape(wanted.image_shape)
    folder, enough = Path(text), image_folder.enough(wanted.image_shape)
    pairs, size = files.found(
        folder,
        listing=partial(image_folder.listing, enough=enough),
        size=image_folder.Size(wanted.classes, enough),
        rule=RULE,
        noun="images with masks",
        files=lambda pair: (pair.image, pair.mask),
    )
    parts = files.complete(pairs, wanted.seed).values()
    return image_folder.windows(
        list(parts), wanted, files.description(folder, parts, "pictures"), keep=size <= wanted.keep
    )
