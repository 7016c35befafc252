"""Maps drawn over their pictures."""

import numpy as np
from PIL import Image

SIDE = 224  # pixels of a drawn picture's longer side, where it has fewer: small ones could not be seen


def overlay(picture: np.ndarray, heat: np.ndarray, opacity: float = 0.5) -> Image.Image:
    """Draw a picture, and beside it the same with a map over it.

    Args:
        picture: `(H, W, 1 or 3)` in [0, 1].
        heat: `(h, w)` from 0 on, of any scale; smoothed to the picture's size.
        opacity: Of the map.

    Returns:
        A picture in RGB, as wide as two: dark for nothing, bright yellow for the map's largest value.
    """
    from matplotlib import colormaps

    height, width = picture.shape[:2]
    scale = max(SIDE // max(height, width), 1)
    size = (scale * width, scale * height)
    pixels = np.uint8(np.clip(picture, 0, 1) * 255)
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).convert("RGB")
    shown = shown.resize(size, Image.Resampling.NEAREST)
    share = np.asarray(heat, np.float32) / (np.max(heat) or 1)
    spread = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))
    coloured = Image.fromarray(np.uint8(colormaps["inferno"](np.clip(spread, 0, 1))[..., :3] * 255))
    both = Image.new("RGB", (2 * size[0], size[1]))
    both.paste(shown, (0, 0))
    both.paste(Image.blend(shown, coloured, opacity), (size[0], 0))
    return both
