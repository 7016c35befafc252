"""Pictures and masks, `FOLDER/images/*` and `FOLDER/masks/*`: `tfzoo.data.image_folder`."""

from tfzoo.data import Source, Wanted, image_folder

PATTERN = None
KINDS = {"masks": "a folder with images/ and masks/"}


def open(text: str, wanted: Wanted) -> Source:
    """Open the folder as a `Source` of pictures `(H, W, C)` float32 in [0, 1] and masks `(H, W, 1)` float32."""
    return image_folder.open_folder(text, wanted)
