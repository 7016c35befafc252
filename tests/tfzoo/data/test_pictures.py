"""What is decoded, what is refused; tests/tfzoo/data/test_image_folder.py has formats, modes and orientation."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tfzoo.data import image_folder, pictures

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG's types of colour


def png(path, depth, colour, row, *chunks):
    """Two pixels side by side, as Pillow does not write them."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = (b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0))
    every = (header, *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in every))
    return path


def tiff(path, bits, samples):
    """Two pixels side by side, uncompressed: the tags are shorts, but for the depths if there are several."""
    depths, data = struct.pack(f"<{samples}H", *[bits] * samples), bytes(2 * samples * bits // 8)
    tags = {256: 2, 257: 1, 259: 1, 262: 2 if samples > 1 else 1, 277: samples, 278: 1, 279: len(data)}
    values = {tag: (1, value) for tag, value in tags.items()}
    end = 8 + 2 + 12 * (len(tags) + 2) + 4
    values[258] = (samples, bits if samples == 1 else end)
    values[273] = (1, end + len(depths))
    entries = b"".join(struct.pack("<HHII", tag, 3, *values[tag]) for tag in sorted(values))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + depths + data)
    return path


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


@pytest.mark.parametrize(
    ("colour", "channels"), [(GREY, 1), (GREY_ALPHA, 2), (RGB, 3), (RGB_ALPHA, 4)], ids=["L", "LA", "RGB", "RGBA"]
)
def test_16_bits_are_refused_in_every_colour(tmp_path, colour, channels):
    path = png(tmp_path / "a.png", 16, colour, b"\xff" * 4 * channels)
    with pytest.raises(ValueError, match=r"must have 8 bits per channel: save it with 8. Received: 16 bits"):
        pictures.pixels(path)
    with pytest.raises(ValueError, match="16 bits"):
        image_folder.read_mask(path, 1)
    assert pictures.pixels(png(path, 8, colour, b"\xff" * 2 * channels)).tolist() == [[[255] * 3] * 2]


@pytest.mark.parametrize("samples", [1, 3])
def test_16_bits_are_refused_in_tiff(tmp_path, samples):
    assert pictures.pixels(tiff(tmp_path / "a.tif", 8, samples)).tolist() == [[[0] * 3] * 2]
    with pytest.raises(ValueError, match="must have 8 bits per channel"):
        pictures.pixels(tiff(tmp_path / "b.tif", 16, samples))


def test_fewer_than_8_bits_are_accepted(tmp_path):
    for depth, row, values in ((1, b"\x40", [0, 255]), (2, b"\x60", [85, 170]), (4, b"\x1e", [17, 238])):
        assert pictures.pixels(png(tmp_path / "a.png", depth, GREY, row))[0, :, 0].tolist() == values
    Image.new("1", (2, 1), 1).save(tmp_path / "a.tif")
    assert pictures.pixels(tmp_path / "a.tif").tolist() == [[[255] * 3] * 2]


def palette(alpha):
    return (b"PLTE", bytes(range(9))), (b"tRNS", bytes(alpha))


TRANSPARENT = {  # what `png` takes, and the least alpha
    "RGBA": (8, RGB_ALPHA, bytes([9, 9, 9, 255, 9, 9, 9, 0]), 0),
    "RGBA, a little": (8, RGB_ALPHA, bytes([9, 9, 9, 255, 9, 9, 9, 254]), 254),
    "LA": (8, GREY_ALPHA, bytes([9, 255, 9, 7]), 7),
    "a palette": (8, PALETTE, bytes([0, 1]), *palette([255, 128]), 128),
    "one colour": (8, RGB, bytes([1, 2, 3, 4, 5, 6]), (b"tRNS", struct.pack(">3H", 4, 5, 6)), 0),
    "one grey": (8, GREY, bytes([1, 2]), (b"tRNS", b"\0\2"), 0),
    "one grey of 2 bits": (2, GREY, b"\x60", (b"tRNS", b"\0\2"), 0),
    "one grey of 4 bits": (4, GREY, b"\x1e", (b"tRNS", b"\0\x0e"), 0),
    "one of two": (1, GREY, b"\x40", (b"tRNS", b"\0\1"), 0),
}
OPAQUE = {
    "RGBA": (8, RGB_ALPHA, bytes([9, 9, 9, 255] * 2)),
    "LA": (8, GREY_ALPHA, bytes([9, 255] * 2)),
    "a palette that uses it not": (8, PALETTE, bytes([2, 1]), *palette([0])),
    "one colour that is not there": (8, RGB, bytes([1, 2, 3, 4, 5, 6]), (b"tRNS", struct.pack(">3H", 4, 5, 7))),
    "one grey that is not there": (4, GREY, b"\x1e", (b"tRNS", b"\0\2")),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
@pytest.mark.parametrize("enough", [None, (1, 1)])
def test_what_is_transparent_anywhere_is_refused(tmp_path, kind, enough):
    *made, least = TRANSPARENT[kind]
    with pytest.raises(
        ValueError, match=rf"must be opaque, .*: flatten it .*\. Received: alpha down to {least} of 255"
    ):
        pictures.read_image(png(tmp_path / "a.png", *made), enough)


@pytest.mark.parametrize("kind", OPAQUE)
def test_an_alpha_of_255_everywhere_is_accepted(tmp_path, kind):
    path = png(tmp_path / "a.png", *OPAQUE[kind])
    np.testing.assert_array_equal(pictures.pixels(path), Image.open(path).convert("RGB"))
    pictures.read_image(path, (1, 1))


def test_one_pixel_in_a_thousand_of_a_tiff_is_enough(tmp_path):
    picture = Image.new("RGBA", (40, 30), (10, 20, 30, 255))
    picture.save(tmp_path / "a.tif")
    assert pictures.pixels(tmp_path / "a.tif").tolist() == [[[10, 20, 30]] * 40] * 30
    picture.putpixel((39, 29), (10, 20, 30, 254))  # the mean of which is 255
    picture.save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="alpha down to 254 of 255"):
        pictures.read_image(tmp_path / "a.tif", (4, 3))


def test_a_mask_has_its_palettes_indices_whatever_their_alpha(tmp_path):
    path = png(tmp_path / "a.png", 8, PALETTE, bytes([0, 1]), *palette([0, 255]))
    assert np.asarray(image_folder.read_mask(path, 1)).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="a mask must have one channel. Received: a coloured or transparent picture"):
        image_folder.read_mask(png(path, 8, GREY_ALPHA, bytes([0, 255, 1, 0])), 1)


def test_reading_the_header_loses_no_pixels(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().count(b"IDAT") > 1
    np.testing.assert_array_equal(pictures.pixels(tmp_path / "a.png"), values)
