"""Savitzky-Golay against its known coefficients, SciPy's edges and polynomials, which stay as they are."""

import numpy as np
import pytest
from scipy.signal import savgol_filter

from tfzoo.analysis.smoothing import smoothed


@pytest.mark.parametrize(
    "window, known", [(5, np.array([-3, 12, 17, 12, -3]) / 35), (7, np.array([-2, 3, 6, 7, 6, 3, -2]) / 21)]
)
@pytest.mark.parametrize("degree", [2, 3])
def test_coefficients(window, known, degree):
    impulse = np.zeros(31)
    impulse[15] = 1
    half = window // 2
    np.testing.assert_allclose(smoothed(impulse, window, degree)[15 - half : 16 + half], known, atol=1e-12)


def test_edges_are_the_polynomial_of_the_first_and_last_window():
    y = np.random.default_rng(0).normal(size=19)
    x = np.arange(7)
    wanted = np.polyval(np.polyfit(x, y[:7], 2), x[:3])
    np.testing.assert_allclose(smoothed(y)[:3], wanted)
    wanted = np.polyval(np.polyfit(x, y[-7:], 2), x[-3:])
    np.testing.assert_allclose(smoothed(y)[-3:], wanted)
    np.testing.assert_allclose(smoothed(y, 5, 3), savgol_filter(y, 5, 3))


def test_a_polynomial_stays():
    y = np.polyval([0.3, -1, 2], np.arange(12.0))
    np.testing.assert_allclose(smoothed(y), y)


@pytest.mark.parametrize(
    "values, options, text",
    [
        (range(5), {}, "values must be 7 or more in a row"),
        (range(9), {"window": 6}, "window must be an odd number"),
        (range(9), {"degree": 7}, "degree must be from 0 and below the window"),
    ],
)
def test_refusals(values, options, text):
    with pytest.raises(ValueError, match=text):
        smoothed(values, **options)
