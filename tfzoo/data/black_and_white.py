"""What black and white become in the numbers that a model is shown: one each, or one for each channel.

What torchvision calls a mean and a standard deviation makes -mean / std of black and (1 - mean) / std of white.
"""

import contextlib
from collections.abc import Sequence

import numpy as np

Value = float | Sequence[float]
Values = tuple[Value, Value]


def scaled(image, values: Values, most: float = 1.0):
    """Give pixels `(..., C)` from 0 to `most` other values, of NumPy or TensorFlow."""
    black, white = arrays(values)
    return black + (white - black) / np.float32(most) * image


def shown(image: np.ndarray, values: Values) -> np.ndarray:
    """Give pixels `(..., C)` in [0, 1] back, as they are drawn."""
    black, white = arrays(values)
    return np.clip((image - black) / (white - black), 0, 1)


def arrays(values: Values) -> list[np.ndarray]:
    """Give both as float32, `()` or `(C,)`."""
    return [np.asarray(value, "float32") for value in values]


def wrong(values: Values, channels: int) -> str | None:
    """Say what is wrong with values for pictures of so many channels, if anything is."""
    with contextlib.suppress(TypeError, ValueError), np.errstate(over="ignore"):
        both = arrays(values)
        one_or_each = len(both) == 2 and all(value.shape in ((), (1,), (channels,)) for value in both)
        if one_or_each and all(np.isfinite(value).all() for value in both) and np.all(np.not_equal(*both)):
            return None
    return (
        "black and white are two different finite numbers, or two rows of them, one for each channel "
        f"({channels} here). Received: {values}"
    )


def text(values: Values) -> str:
    """Write both for people."""
    return " and ".join(",".join(f"{number:g}" for number in np.ravel(value)) for value in values)
