"""Masked autoregressive steps (MAF: Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057, equations 4 to 6).

    y_i = (x_i - m_i) exp(-s_i)        m_i, s_i = network(x_1 ... x_(i-1))        log |det| = -sum s_i

One network gives all m and s at once, as its kernels are masked (MADE: Germain et al., 2015,
https://arxiv.org/abs/1502.03509): a unit of degree d is told of x_1 ... x_d alone. So the step is one parallel pass and
its inverse D of them: x_i needs all before it. `s` is bounded as in `tfzoo.flows.coupling`.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfzoo.flows.coupling import bounded
from tfzoo.layers.weight import weight


def degrees(size: int, units: int) -> np.ndarray:
    """Give the degrees of a hidden layer's units `(units,)`: 1 to D - 1 in turn; all 0, of nothing, where D is 1."""
    return np.arange(units) % (size - 1) + 1 if size > 1 else np.zeros(units, int)


def mask(before: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Give which units a unit is told of: those of degrees up to its own, `(before, behind)`."""
    return (before[:, None] <= behind).astype("float32")


def parameters(x, units: tuple[int, ...], activation: str, dropout: float, bound: float):
    """Make the network: from x `(B, D)` to m and s, each of x before its own; at first 0."""
    size = x.shape[-1]
    hidden, before = x, np.arange(1, size + 1)
    for i, width in enumerate(units):
        behind = degrees(size, width)
        hidden = masked(hidden, mask(before, behind), f"hidden{i}")
        hidden = layers.Activation(activation, name=f"activation{i}")(hidden)
        hidden = layers.Dropout(dropout, name=f"dropout{i}")(hidden) if dropout else hidden
        before = behind
    last = mask(before, np.arange(size))  # number i is told of degrees up to i - 1
    shift, log_scale = (masked(hidden, last, name, "zeros") for name in ("shift", "log_scale"))
    return [shift, bounded(log_scale, bound)]


def masked(x, kept: np.ndarray, name: str, initializer="glorot_uniform"):
    """Apply a dense layer with a masked kernel: `(B, N)` to `(B, M)`."""
    kernel = weight(x, kept.shape, f"{name}_kernel", initializer) * kept
    return ops.matmul(x, kernel) + weight(x, kept.shape[1:], f"{name}_bias")


def forward(x, shift, log_scale):
    """Apply the step.

    Args:
        x: `(B, D)`.
        shift: m, `(B, D)`.
        log_scale: s, `(B, D)`.

    Returns:
        y `(B, D)`, and log |det dy/dx| `(B,)`.
    """
    return (x - shift) * ops.exp(-log_scale), -ops.sum(log_scale, -1)


def inverse(y, given: Callable):
    """Give the x of y `(B, D)`, one number after the other."""
    size = y.shape[-1]

    def one_more(i, x):
        shift, log_scale = (ops.cast(p, y.dtype) for p in given(x))
        # only the next number: what the later ones would be is of no meaning yet, and may be very large
        return i + 1, ops.where(tf.range(size) == i, y * ops.exp(log_scale) + shift, x)

    return tf.while_loop(lambda i, x: i < size, one_more, (0, ops.zeros_like(y)))[1]
