"""Pictures side by side, as the commands that show what a model makes draw them."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SMALL, GAP = 64, 2  # pixels: pictures below are drawn larger, in whole multiples; between pictures
LETTER, LINE = 11, 14  # pixels: of labels


def tiles(pictures: np.ndarray, columns: int | None = None) -> Image.Image:
    """Draw pictures side by side.

    Args:
        pictures: `(N, H, W, 1 or 3)` in [0, 1]; what is beyond is cut off.
        columns: In a row; None for about as many as there are rows.
    """
    count, height, width, channels = pictures.shape
    columns = columns or math.ceil(count**0.5)
    times = max(1, SMALL // max(height, width))
    rows = -(-count // columns)
    pixels = np.uint8(np.round(255 * np.clip(pictures, 0, 1)))
    pixels = np.repeat(pixels, 3, -1) if channels == 1 else pixels
    pixels = pixels.repeat(times, 1).repeat(times, 2)
    cell = np.full((rows * columns, height * times + GAP, width * times + GAP, 3), 255, np.uint8)
    cell[:count, :-GAP, :-GAP] = pixels
    cell = cell.reshape(rows, columns, *cell.shape[1:]).swapaxes(1, 2)
    return Image.fromarray(cell.reshape(rows * cell.shape[1], -1, 3)[:-GAP, :-GAP])


def labelled(sheet: Image.Image, rows: Sequence[str], columns: Sequence[str]) -> Image.Image:
    """Write before each row of a sheet what it is, and above each column, but none where it would lie on another.

    Args:
        sheet: As `tiles` draws it.
        rows: A text for each of its rows.
        columns: A text for each of its columns.
    """
    font = ImageFont.load_default(LETTER)
    across, height = (sheet.width + GAP) / len(columns), (sheet.height + GAP) / len(rows)
    left = 2 * GAP + math.ceil(max(font.getlength(text) for text in rows))
    drawn = Image.new("RGB", (left + sheet.width, LINE + sheet.height), "white")
    drawn.paste(sheet, (left, LINE))
    pen = ImageDraw.Draw(drawn)
    for i in range(0, len(rows), math.ceil(LINE / height)):
        pen.text((left - GAP, LINE + (i + 0.5) * height - GAP / 2), rows[i], "black", font, "rm")
    wide = GAP + max(font.getlength(text) for text in columns)
    for i in range(0, len(columns), math.ceil(wide / across)):
        pen.text((left + (i + 0.5) * across - GAP / 2, LINE / 2), columns[i], "black", font, "mm")
    return drawn


def beside(sheets: Sequence[Image.Image]) -> Image.Image:
    """Put sheets side by side, the tops in one line."""
    width = sum(sheet.width for sheet in sheets) + LINE * (len(sheets) - 1)
    drawn, left = Image.new("RGB", (width, max(sheet.height for sheet in sheets)), "white"), 0
    for sheet in sheets:
        drawn.paste(sheet, (left, 0))
        left += sheet.width + LINE
    return drawn


def animate(frames: Sequence[Image.Image], path: pathlib.Path, milliseconds: int = 120) -> None:
    """Write pictures of one size as a GIF that goes there and back without end."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    first, *others = [frame.quantize(64) for frame in there_and_back]
    first.save(path, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
