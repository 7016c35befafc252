"""Decoding picture files that strangers may have made: a list of formats, a limit of pixels, upright, 8 bits."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag and its values that swap width and height
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's modes


def open_picture(path: Path, enough: tuple[int, int] | None = None) -> Image.Image:
    """Decode a file as it is displayed; raises on a broken file and on one of more than Pillow's pixel limit.

    Args:
        path: The file.
        enough: Width and height. A picture that is larger in both is shrunk until one of them is met: a photograph is
            then decoded and kept in a fraction of the time and memory. None leaves it as it is.
    """
    with Image.open(path, formats=sorted(set(FORMATS.values()))) as opened:
        # Pillow warns from its limit on and raises from twice that; warnings cannot be made errors in several threads.
        count, limit = opened.width * opened.height, Image.MAX_IMAGE_PIXELS
        if limit and count > limit:
            raise ValueError(f"Image size ({count} pixels) exceeds limit of {limit} pixels")
        if opened.mode not in EIGHT_BIT:
            raise ValueError(f"must have 8 bits per channel. Received: Pillow's mode {opened.mode}")
        picture, size = opened, shrunk(opened.size, enough[::-1] if enough and turned(opened) else enough)
        if size != opened.size:
            picture = opened.convert("RGB") if opened.mode in ("1", "P", "PA") else opened  # of which no mean is taken
            picture.thumbnail(size, Image.Resampling.BILINEAR, reducing_gap=2.0)  # JPEG is not even decoded as large
        return ImageOps.exif_transpose(picture)


def shrunk(size: tuple[int, int], enough: tuple[int, int] | None) -> tuple[int, int]:
    """Give the size that `open_picture` shrinks one to."""
    scale = max(e / n for e, n in zip(enough, size, strict=True)) if enough else 1
    return tuple(max(round(scale * n), 1) for n in size) if scale < 1 else size


def turned(picture: Image.Image) -> bool:
    """Say whether a picture's EXIF tag swaps its width and height."""
    return picture.getexif().get(ORIENTATION) in TURNED


def displayed(path: Path) -> tuple[tuple[int, int], bool]:
    """Give the size that a file's picture is displayed at, and whether it is turned for that; nothing is decoded."""
    with Image.open(path, formats=sorted(set(FORMATS.values()))) as opened:
        return (opened.size[::-1], True) if turned(opened) else (opened.size, False)


def read_image(path: Path, enough: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image to RGB; `enough` as in `open_picture`."""
    return open_picture(path, enough).convert("RGB")


def pixels(path: Path) -> np.ndarray:
    """Decode an image to `(H, W, 3)` uint8."""
    return np.asarray(read_image(path))


def size(path: Path) -> int:
    """Decode an image to see whether that can be done; gives the bytes of `pixels`."""
    return pixels(path).nbytes
