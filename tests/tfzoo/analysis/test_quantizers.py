"""LBG against Lloyd and Max's optimum for a normal distribution, and against what can be seen at once."""

import numpy as np
import pytest
from scipy import stats
from skimage import data

from tfzoo.analysis import quantizers

LLOYD_MAX = {2: 0.36338, 4: 0.11748, 8: 0.03455, 16: 0.00950}  # Max (1960), table I
NORMAL = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)[:, None]


@pytest.mark.parametrize("codes", LLOYD_MAX)
def test_lloyd_max(codes):
    book = quantizers.lbg(NORMAL, codes, rounds=400)
    assert quantizers.distortion(NORMAL, book) == pytest.approx(LLOYD_MAX[codes], rel=0.02)


def test_a_photograph():
    """The PSNR of 4x4 blocks of scikit-image's camera by some codes."""
    blocks = quantizers.blocks(data.camera() / 255, 4)
    for codes, decibels in {2: 18.41, 4: 23.18, 16: 25.70, 64: 27.84}.items():
        error = quantizers.distortion(blocks, quantizers.lbg(blocks, codes))
        assert -10 * np.log10(error) == pytest.approx(decibels, abs=0.06)


def test_blocks():
    picture = np.arange(7 * 9).reshape(7, 9)
    found = quantizers.blocks(picture, 2)
    assert found.shape == (3 * 4, 4)
    np.testing.assert_array_equal(found[5].reshape(2, 2), picture[2:4, 2:4])


def test_points_that_are_few_are_found():
    points = np.array([[0.0, 0], [1, 0.5], [10, 3], [11, 4]])
    book = quantizers.lbg(np.repeat(points, 7, 0), 4)
    assert quantizers.distortion(points, book) < 1e-20


def test_nearest_is_the_nearest():
    rng = np.random.default_rng(0)
    x, book = rng.normal(size=(57, 3)), rng.normal(size=(5, 3))
    apart = ((x[:, None] - book) ** 2).sum(-1)
    codes, errors = quantizers.nearest(x, book, chunk=10)
    np.testing.assert_array_equal(codes, apart.argmin(1))
    np.testing.assert_allclose(errors, apart.min(1))


def test_a_code_that_nothing_uses_begins_again():
    x = np.array([[0.0], [0.1], [5.0], [5.1]])
    book = quantizers.lloyd(x, np.array([[2.0], [100.0]]), 10, 0)
    np.testing.assert_allclose(np.sort(book[:, 0]), [0.05, 5.05])


@pytest.mark.parametrize("codes", [0, 3, 64])
def test_refusals(codes):
    with pytest.raises(ValueError, match=f"codes must be a power of 2, .* 50 vectors. Received: codes={codes}"):
        quantizers.lbg(np.zeros((50, 1)), codes)
