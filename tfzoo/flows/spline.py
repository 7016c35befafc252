"""Rational-quadratic spline couplings (Durkan et al., 2019, https://arxiv.org/abs/1906.04032, equations 4 to 8).

    y = spline(x) between its first knot and its last, y = x outside       log |det| = sum log spline'(x)

A spline goes through K + 1 knots (u_k, v_k) that rise in both, with a slope d_k > 0 at each and 1 at both ends. In bin
k, of the width w, the height h and the mean slope s = h / w, with t = (x - u_k) / w,

    y = v_k + h (s t^2 + d_k t (1 - t)) / (s + (d_k + d_(k+1) - 2 s) t (1 - t))

rises, too, and its inverse is the root of a quadratic equation, in closed form. As in `tfzoo.flows.coupling` half of
the numbers are left as they are, and the network that gives the knots of the others is told of these alone. The inverse
is one pass.

A slope may be far from 1, and then the inverse makes much of what was rounded. So knots and splines are computed in
float64, whatever the networks are: float32 there would come back three times as wrong.
"""

import math

import numpy as np
from keras import layers, ops

SMALLEST = 1e-3  # share of the interval that a bin has at least, and slope at a knot
MOST = 500  # bins, so that there is as much left to share out


def parameters(x, kept: np.ndarray, units: tuple[int, ...], activation: str, dropout: float, bound: float, bins: int):
    """Make the network: from x `(B, D)` to the knots' u and v and their slopes, float64 `(B, D, K + 1)`.

    At first, and where a number is kept, y is x; where it is kept, because all knots are at 0, so that none is between.
    """
    size = x.shape[-1]
    hidden = x * kept
    for i, width in enumerate(units):
        hidden = layers.Dense(width, activation, name=f"hidden{i}")(hidden)
        hidden = layers.Dropout(dropout, name=f"dropout{i}")(hidden) if dropout else hidden

    def given(count, name):
        found = layers.Dense(size * count, kernel_initializer="zeros", name=name)(hidden)
        return ops.cast(layers.Reshape((size, count), name=f"{name}_of_each")(found), "float64")  # (B, D, count)

    changed = np.repeat(1 - kept[:, None].astype("float64"), bins + 1, -1)
    across, up = (knots(given(bins, name), bound) * changed for name in ("widths", "heights"))
    return [across, up, slopes(given(bins - 1, "slopes"))]


def knots(x, bound: float):
    """Make K + 1 knots that rise from -bound to bound of any K numbers `(B, D, K)`."""
    bins = x.shape[-1]
    shares = SMALLEST + (1 - SMALLEST * bins) * ops.softmax(x, -1)
    inner = bound * (2 * ops.cumsum(shares[..., :-1], -1) - 1)
    end = bound * ops.ones_like(x[..., :1])
    return ops.concatenate([-end, inner, end], -1)


def slopes(x):
    """Make K + 1 slopes of any K - 1 numbers `(B, D, K - 1)`: 1 at both ends, and of 0."""
    inner = SMALLEST + ops.softplus(x + math.log(math.expm1(1 - SMALLEST)))
    end = ops.ones_like(x[..., :1])
    return ops.concatenate([end, inner, end], -1)


def bins(x, of, across, up, slope):
    """Look up the bin that each number is in.

    Args:
        x: `(B, D)`.
        of: The knots that it is looked up in, `(B, D, K + 1)`: `across` or `up`.
        across: u.
        up: v.
        slope: d.

    Returns:
        Whether x is between the knots at all; and of its bin u, v, the width, the height and both slopes, each
        `(B, D)`; of one that is in none those of a bin on which y is x.
    """
    x = ops.cast(x, of.dtype)[..., None]
    is_in = ops.cast(x >= of[..., :-1], of.dtype) * ops.cast(x < of[..., 1:], of.dtype)  # (B, D, K)
    inside = ops.sum(is_in, -1)

    def chosen(values, otherwise):
        return ops.sum(is_in * values, -1) + otherwise * (1 - inside)

    left, low = chosen(across[..., :-1], 0.0), chosen(up[..., :-1], 0.0)
    width, height = (chosen(k[..., 1:] - k[..., :-1], 1.0) for k in (across, up))
    return inside > 0, left, low, width, height, chosen(slope[..., :-1], 1.0), chosen(slope[..., 1:], 1.0)


def forward(x, across, up, slope):
    """Apply the step.

    Args:
        x: `(B, D)`.
        across: u, `(B, D, K + 1)`.
        up: v, the same.
        slope: d, the same.

    Returns:
        y `(B, D)`, and log |det dy/dx| `(B,)`.
    """
    inside, left, low, width, height, first, last = bins(x, across, across, up, slope)
    t = ops.where(inside, (ops.cast(x, left.dtype) - left) / width, 0.0)
    mean, between = height / width, t * (1 - t)
    below = mean + (first + last - 2 * mean) * between
    y = low + height * (mean * t * t + first * between) / below
    rise = last * t * t + 2 * mean * between + first * ops.square(1 - t)
    logarithm = 2 * ops.log(mean / below) + ops.log(rise)
    total = ops.sum(ops.where(inside, logarithm, 0.0), -1)
    return ops.where(inside, ops.cast(y, x.dtype), x), ops.cast(total, x.dtype)


def inverse(y, given):
    """Give the x of y `(B, D)`, tensors or arrays: it is a part of a functional model, too."""
    across, up, slope = given(y)
    inside, left, low, width, height, first, last = bins(y, up, across, up, slope)
    y = ops.convert_to_tensor(y)
    share = ops.where(inside, (ops.cast(y, low.dtype) - low) / height, 0.0)
    mean = height / width
    # a t^2 + b t = c
    bend = share * (first + last - 2 * mean)
    a, b, c = mean - first + bend, first - bend, mean * share
    root = ops.sqrt(ops.maximum(ops.square(b) + 4 * a * c, 0.0))
    # of the two ways to write the root the one that does not take the difference of two large numbers
    t = ops.where(b < 0, (root - b) / ops.where(b < 0, 2 * a, 1.0), 2 * c / (ops.maximum(b, 0.0) + root))
    return ops.where(inside, ops.cast(left + width * t, y.dtype), y)
