"""A map lies where its places are, and the picture beside it is the picture."""

import numpy as np
import pytest

from tfzoo.explanations.overlay import overlay


@pytest.mark.parametrize(("shape", "size"), [((8, 8, 1), (448, 224)), ((300, 200, 3), (400, 300))])
def test_the_map_is_over_the_picture(shape, size):
    picture = np.random.default_rng(0).random(shape) * 0.2
    heat = np.zeros((4, 4))
    heat[3, 0] = 7
    drawn = overlay(picture, heat)
    assert drawn.size == size and drawn.mode == "RGB"
    pixels = np.asarray(drawn, float).mean(-1)
    left, right = pixels[:, : size[0] // 2], pixels[:, size[0] // 2 :]
    row, column = np.unravel_index((right - left / 2).argmax(), right.shape)
    assert row > 0.7 * size[1] and column < 0.3 * size[0] / 2
    side = size[1] // shape[0]
    np.testing.assert_allclose(left[::side, ::side], np.floor(picture * 255).mean(-1), atol=1)


def test_a_map_of_nothing():
    drawn = np.asarray(overlay(np.full((4, 4, 3), 0.5), np.zeros((2, 2))), float)
    assert drawn[:, :224].min() == 127 and 50 < drawn[:, 224:].mean() < 70
