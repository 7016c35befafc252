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


def test_animate_goes_there_and_back(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (0, 100, 200)]
    sheets.animate(frames, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as opened:
        assert opened.n_frames == 4
        shades = [np.asarray((opened.seek(i), opened.convert("L"))[1])[0, 0] for i in range(4)]
    np.testing.assert_allclose(shades, [0, 100, 200, 100], atol=3)
