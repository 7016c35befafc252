"""Affine couplings (RealNVP: Dinh et al., 2017, https://arxiv.org/abs/1605.08803, equations 7 to 9).

    y = m x + (1 - m) (x exp(s) + t)      s, t = network(m x)      log |det| = sum (1 - m) s
    x = m y + (1 - m) (y - t) exp(-s)     of the same s and t, as m y = m x

The mask m leaves one half of the numbers as they are, and the network is told of these alone. The inverse is one pass,
as parallel as the step. `s` is kept below a bound, `bound * tanh(. / bound)`, so that no step can run away.
"""

import numpy as np
from keras import layers, ops


def mask(shape: tuple[int, ...], index: int) -> np.ndarray:
    """Give the numbers that step `index` leaves as they are, a checkerboard `(D,)`: the others in the next step."""
    places = np.indices(shape)
    pixels = (places[:-1] if len(shape) == 3 else places).sum(0)  # all channels of a pixel alike
    chosen = pixels if np.ptp(pixels % 2) else places.sum(0)  # but of a lone one
    return ((chosen + index) % 2).reshape(-1).astype("float32")


def parameters(x, kept: np.ndarray, units: tuple[int, ...], activation: str, dropout: float, bound: float):
    """Make the network: from x `(B, D)` to t and s, 0 where a number is kept; at first everywhere."""
    size = x.shape[-1]
    hidden = x * kept
    for i, width in enumerate(units):
        hidden = layers.Dense(width, activation, name=f"hidden{i}")(hidden)
        hidden = layers.Dropout(dropout, name=f"dropout{i}")(hidden) if dropout else hidden
    shift = layers.Dense(size, kernel_initializer="zeros", name="shift")(hidden)
    log_scale = layers.Dense(size, kernel_initializer="zeros", name="log_scale")(hidden)
    return [shift * (1 - kept), bounded(log_scale, bound) * (1 - kept)]


def bounded(x, bound: float):
    """Keep numbers between -bound and bound, without a change of those that are small."""
    return bound * ops.tanh(x / bound)


def forward(x, shift, log_scale):
    """Apply the step.

    Args:
        x: `(B, D)`.
        shift: t, `(B, D)`.
        log_scale: s, `(B, D)`.

    Returns:
        y `(B, D)`, and log |det dy/dx| `(B,)`.
    """
    return x * ops.exp(log_scale) + shift, ops.sum(log_scale, -1)


def inverse(y, given):
    """Give the x of y `(B, D)`, tensors or arrays: it is a part of a functional model, too."""
    shift, log_scale = given(y)
    return (y - shift) * ops.exp(-log_scale)
