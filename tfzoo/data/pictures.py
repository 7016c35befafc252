"""Decoding picture files that strangers may have made: some formats, a limit of pixels, upright, 8 bits, opaque."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"}
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag and its values that swap width and height
BITS_PER_SAMPLE = 258  # TIFF's tag
EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # Pillow's modes


def open_picture(path: Path, enough: tuple[int, int] | None = None, opaque: bool = True) -> Image.Image:
    """Decode a file as it is displayed.

    Raises on a broken file, and on one of more than Pillow's pixel limit, of more than 8 bits or of transparency.

    Args:
        path: The file.
        enough: Width and height. A picture that is larger in both is shrunk until one of them is met: a photograph is
            then decoded and kept in a fraction of the time and memory. None leaves it as it is.
        opaque: Refuses what is transparent anywhere, as nobody sees the colours beneath. False leaves alpha as it is.
    """
    with Image.open(path, formats=sorted(set(FORMATS.values()))) as opened:
        # Pillow warns from its limit on and raises from twice that; warnings cannot be made errors in several threads.
        count, limit = opened.width * opened.height, Image.MAX_IMAGE_PIXELS
        if limit and count > limit:
            raise ValueError(f"Image size ({count} pixels) exceeds limit of {limit} pixels")
        depth = bits(opened)
        if depth > 8 or opened.mode not in EIGHT_BIT:
            received = f"{depth} bits" if depth > 8 else f"Pillow's mode {opened.mode}"
            raise ValueError(f"must have 8 bits per channel: save it with 8. Received: {received}")
        if opaque and opened.has_transparency_data and (alpha := least_alpha(opened, depth)) < 255:
            raise ValueError(
                "must be opaque, as the colours that alpha hides would be used: flatten it onto a background. "
                f"Received: alpha down to {alpha} of 255"
            )
        picture, size = opened, shrunk(opened.size, enough[::-1] if enough and turned(opened) else enough)
        if size != opened.size:
            picture = opened.convert("RGB") if opened.mode in ("1", "P", "PA") else opened  # of which no mean is taken
            picture.thumbnail(size, Image.Resampling.BILINEAR, reducing_gap=2.0)  # JPEG is not even decoded as large
        return ImageOps.exif_transpose(picture)


def bits(opened: Image.Image) -> int:
    """Give the bits per channel that a PNG or TIFF has in its file: of 16-bit colours Pillow drops the lower 8."""
    if opened.format == "PNG":
        place = opened.fp.tell()
        opened.fp.seek(24)  # in the header chunk, with which every PNG begins, behind width and height
        depth = ord(opened.fp.read(1))
        opened.fp.seek(place)
        return depth
    return max(opened.tag_v2.get(BITS_PER_SAMPLE, (1,))) if opened.format == "TIFF" else 8


def least_alpha(opened: Image.Image, depth: int) -> int:
    """Give the least alpha of a picture's pixels, from 0 to 255; decodes it."""
    if opened.mode not in ("LA", "RGBA"):  # a palette's, or one colour that stands for transparency
        if opened.mode == "L" and depth < 8 and "transparency" in opened.info:
            opened.info["transparency"] *= 255 // (2**depth - 1)  # as Pillow does it to the pixels alone
        opened = opened.convert("RGBA")
    return opened.getchannel("A").getextrema()[0]


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
