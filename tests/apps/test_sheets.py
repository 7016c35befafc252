"""Pictures side by side: every pixel is where it should be."""

import numpy as np
from PIL import Image

from apps import sheets


def test_tiles():
    pictures = np.random.default_rng(0).random((5, 40, 48, 3))
    pictures[0, 0, 0] = (2, -1, 0.5)
    drawn = np.asarray(sheets.tiles(pictures, 2))
    assert drawn.shape == (3 * 42 - 2, 2 * 50 - 2, 3)
    np.testing.assert_array_equal(drawn[0, 0], [255, 0, 128])
    np.testing.assert_array_equal(drawn[42:82, 50:98], np.round(255 * pictures[3]))
    assert (drawn[40:42] == 255).all() and (drawn[84:, 50:] == 255).all()


def test_small_ones_are_drawn_larger_and_grey_ones_in_grey():
    pictures = np.random.default_rng(0).random((4, 8, 8, 1))
    drawn = np.asarray(sheets.tiles(pictures))
    assert drawn.shape == (130, 130, 3)
    np.testing.assert_array_equal(drawn[66 + 8 : 66 + 16, :8], np.full((8, 8, 3), round(255 * pictures[2, 1, 0, 0])))


def inked(pixels, axis):
    """Which of the places that lie as far apart as pictures of a sheet have ink."""
    dark = (pixels < 128).any(-1).any(1 - axis)
    return [bool(dark[start : start + 66].any()) for start in range(0, len(dark), 66)]


def test_labels():
    """Each is beside the middle of its row or column, and the sheet itself is as it was."""
    sheet = sheets.tiles(np.random.default_rng(0).random((6, 8, 8, 1)), 3)
    drawn = sheets.labelled(sheet, ["z[0]", ""], ["", "", "-1"])
    left, top = drawn.width - sheet.width, sheets.LINE
    assert drawn.height == sheet.height + top
    pixels = np.asarray(drawn)
    np.testing.assert_array_equal(pixels[top:, left:], sheet)
    assert inked(pixels[top:, :left], 0) == [True, False] and inked(pixels[:top, left:], 1) == [False, False, True]
    rows = np.nonzero((pixels[top:, :left] < 128).any((1, 2)))[0]
    columns = np.nonzero((pixels[:top, left:] < 128).any((0, 2)))[0]
    np.testing.assert_allclose([rows.mean(), columns.mean()], [32, 2 * 66 + 32], atol=4)
    assert not np.array_equal(drawn, sheets.labelled(sheet, ["z[1]", ""], ["", "", "-1"]))
    assert (np.asarray(sheets.labelled(sheet, ["z[100]"], ["1"]))[top:, :left] < 128).any()  # not cut off
    assert sheets.labelled(sheet, ["z[100]"] * 2, ["1"] * 3).width > drawn.width


def test_labels_do_not_lie_on_one_another():
    """Of rows of 3 pixels and columns of 12 only some have theirs."""
    sheet = sheets.tiles(np.ones((40, 1, 10, 1)), 4)
    assert sheet.size == (4 * 62 - 2, 10 * 8 - 2)
    drawn = np.asarray(sheets.labelled(sheet, ["H"] * 10, ["HHHHHHHHHHH"] * 4))
    left = drawn.shape[1] - sheet.width
    ink = (drawn[sheets.LINE :, :left] < 128).any((1, 2))
    assert np.sum(np.diff(np.int8(ink)) == 1) + ink[0] == 5  # every second one
    ink = (drawn[: sheets.LINE, left:] < 128).any((0, 2))
    assert ink[:60].any() and ink[124:184].any() and not ink[74:110].any()


def test_beside():
    one, other = (Image.new("RGB", size, color) for size, color in (((4, 9), "red"), ((5, 6), "blue")))
    drawn = np.asarray(sheets.beside([one, other]))
    assert drawn.shape == (9, 9 + sheets.LINE, 3)
    np.testing.assert_array_equal(drawn[:, :4], one)
    np.testing.assert_array_equal(drawn[:6, -5:], other)
    assert (drawn[6:, -5:] == 255).all() and (drawn[:, 4:-5] == 255).all()


def test_animate_goes_there_and_back(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (0, 100, 200)]
    sheets.animate(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as opened:
        assert opened.n_frames == 4
        shades = [np.asarray((opened.seek(i), opened.convert("L"))[1])[0, 0] for i in range(4)]
    np.testing.assert_allclose(shades, [0, 100, 200, 100], atol=3)
