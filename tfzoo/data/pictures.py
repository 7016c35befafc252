"""Decoding picture files that strangers may have made: a list of formats, a limit of pixels, upright, 8 bits."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's modes


def open_picture(path: Path) -> Image.Image:
    """Decode a file as it is displayed; raises on a broken file and on one of more than Pillow's pixel limit."""
    with Image.open(path, formats=sorted(set(FORMATS.values()))) as opened:
        # Pillow warns from its limit on and raises from twice that; warnings cannot be made errors in several threads.
        count, limit = opened.width * opened.height, Image.MAX_IMAGE_PIXELS
        if limit and count > limit:
            raise ValueError(f"Image size ({count} pixels) exceeds limit of {limit} pixels")
        picture = ImageOps.exif_transpose(opened)
    if picture.mode not in EIGHT_BIT:
        raise ValueError(f"must have 8 bits per channel. Received: Pillow's mode {picture.mode}")
    return picture


def read_image(path: Path) -> Image.Image:
    """Decode an image to RGB."""
    return open_picture(path).convert("RGB")


def pixels(path: Path) -> np.ndarray:
    """Decode an image to `(H, W, 3)` uint8."""
    return np.asarray(read_image(path))


def size(path: Path) -> int:
    """Decode an image to see whether that can be done; gives the bytes of `pixels`."""
    return pixels(path).nbytes
