"""What is decoded, what is refused; tests/tfzoo/data/test_image_folder.py has formats, modes and orientation."""

import numpy as np
import pytest
from PIL import Image

from tfzoo.data import pictures


def test_pixels_are_upright_and_rgb(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (5, 7), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 3  # displayed turned by 180 degrees
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(pictures.pixels(tmp_path / "a.png"), np.repeat(values[::-1, ::-1, None], 3, -1))
    assert pictures.size(tmp_path / "a.png") == 5 * 7 * 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_large_pictures_are_shrunk_to_what_is_enough(tmp_path, mode, orientation):
    y, x = np.mgrid[0:90, 0:240]
    ending = "jpg" if mode in ("L", "RGB", "CMYK") else "png"
    exif = Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    picture = Image.fromarray((255 * ((x // 40 + y // 30) % 2)).astype(np.uint8)).convert(mode)
    picture.save(tmp_path / f"a.{ending}", exif=exif)
    whole = pictures.read_image(tmp_path / f"a.{ending}")
    size = (59, 22) if orientation == 1 else (22, 59)
    found = pictures.read_image(tmp_path / f"a.{ending}", (25, 22) if orientation == 1 else (22, 25))
    assert found.size == size
    np.testing.assert_allclose(found, whole.resize(found.size, Image.Resampling.BILINEAR), atol=40)
    assert abs(np.float32(found) - whole.resize(found.size, Image.Resampling.BILINEAR)).mean() < 4
    assert pictures.read_image(tmp_path / f"a.{ending}", (500, 91)).size == whole.size


def test_a_format_that_is_not_accepted_hides_behind_no_name(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(OSError, match="cannot identify image file"):
        pictures.open_picture(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [20, 40])  # Pillow warns up to twice its limit, and raises above
def test_a_picture_of_too_many_pixels_is_not_decoded(tmp_path, monkeypatch, limit):
    Image.new("RGB", (10, 5)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises((ValueError, Image.DecompressionBombError), match=r"\(50 pixels\) exceeds limit of 40"):
        pictures.open_picture(tmp_path / "a.png")
