"""Smoothing by local polynomials (Savitzky & Golay, 1964): each value becomes that of a polynomial fitted around it.

Away from the ends this is one weighted mean: for windows of 5 and degree 2, (-3, 12, 17, 12, -3) / 35. At the ends the
polynomial of the first and of the last whole window goes on. Peaks and slopes stay where a running mean would flatten
them.
"""

import numpy as np
from scipy import signal


def smoothed(values, window: int = 7, degree: int = 2) -> np.ndarray:
    """Smooth equally spaced values.

    Args:
        values: Numbers `(N,)`, N from `window` on.
        window: Values that a polynomial is fitted to, an odd number.
        degree: Of the polynomial, below `window`.

    Returns:
        As many numbers `(N,)`.

    Raises:
        ValueError: Says which of these does not hold.
    """
    values = np.asarray(values, "float64")
    problems = []
    if values.ndim != 1 or len(values) < window:
        problems.append(f"values must be {window} or more in a row, the window. Received: shape {values.shape}")
    if window % 2 == 0 or window < 1:
        problems.append(f"window must be an odd number from 1. Received: window={window}")
    if not 0 <= degree < window:
        problems.append(f"degree must be from 0 and below the window. Received: degree={degree}, window={window}")
    if problems:
        raise ValueError("\n".join(problems))
    return signal.savgol_filter(values, window, degree)
