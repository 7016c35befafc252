"""Planar steps (Rezende & Mohamed, 2015, https://arxiv.org/abs/1505.05770, equations 10 to 12 and appendix A.1).

    y = x + u' tanh(w.x + b)           |det| = 1 + w.u' (1 - tanh^2(w.x + b))
    u' = u + (m(w.u) - w.u) w / |w|^2  m(a) = softplus(a) - 1 > -1

With u' in the place of u the step is invertible for any weights, as w.u' > -1. The inverse has no closed form. Along w
it is a question of one number a = w.x + b, which a + w.u' tanh(a) = w.y + b has a single answer to.
"""

from collections.abc import Callable

import tensorflow as tf
from keras import ops

from tfzoo.layers.weight import weight

SMALLEST = 1e-12  # of |w|^2, which is divided by
HALVINGS = 64  # of the interval that holds the answer: more than a float64 can tell apart


def parameters(x):
    """Make the weights u, w, and b, given for every example `(B, D)`, so that they have its axes."""
    size = x.shape[-1]
    none = ops.zeros_like(x)
    u, w = (none + weight(x, (size,), name, "glorot_uniform") for name in ("u", "w"))
    return [u, w, none + weight(x, (1,), "b")]


def invertible(u, w):
    """Give the u' of any u and w, each `(B, D)`: one with w.u' > -1."""
    along = ops.sum(u * w, -1, keepdims=True)
    square = ops.maximum(ops.sum(w * w, -1, keepdims=True), SMALLEST)
    return u + (ops.softplus(along) - 1 - along) * w / square


def forward(x, u, w, b):
    """Apply the step.

    Args:
        x: `(B, D)`.
        u: Any, `(B, D)`.
        w: The normal of the plane, `(B, D)`.
        b: `(B, D)`, of which all columns are the same.

    Returns:
        y `(B, D)`, and log |det dy/dx| `(B,)`.
    """
    u = invertible(u, w)
    bent = ops.tanh(ops.sum(w * x, -1, keepdims=True) + b[:, :1])
    slope = 1 - ops.square(bent)
    return x + u * bent, ops.log1p(ops.sum(w * u, -1) * slope[:, 0])


def inverse(y, given: Callable):
    """Give the x of y `(B, D)`, by bisection in float64."""
    u, w, b = (ops.cast(p, "float64") for p in given(y))
    u, precise = invertible(u, w), ops.cast(y, "float64")
    strength, wanted = ops.sum(w * u, -1, keepdims=True), ops.sum(w * precise, -1, keepdims=True) + b[:, :1]

    def halve(i, low, high):
        middle = (low + high) / 2
        above = middle + strength * ops.tanh(middle) > wanted
        return i + 1, ops.where(above, low, middle), ops.where(above, middle, high)

    ends = wanted - ops.abs(strength), wanted + ops.abs(strength)  # as |tanh| < 1
    _, low, high = tf.while_loop(lambda i, *ends: i < HALVINGS, halve, (0, *ends))
    return ops.cast(precise - u * ops.tanh((low + high) / 2), y.dtype)
