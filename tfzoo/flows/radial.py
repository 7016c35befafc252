"""Radial steps (Rezende & Mohamed, 2015, https://arxiv.org/abs/1505.05770, equations 13 and 14 and appendix A.2).

    y = x + s (x - c) / (a + r)    r = |x - c|, a = softplus(.) > 0, s = softplus(.) - a > -a
    |det| = (1 + s / (a + r))^(D - 1) (1 + s a / (a + r)^2)

A step pulls towards its center or pushes away from it. As s > -a it is invertible for any weights, and its inverse has
a closed form: the distance r is the positive root of r^2 + (a + s - R) r - a R = 0, of R = |y - c|.
"""

from collections.abc import Callable

from keras import ops

from tfzoo.layers.weight import weight

SMALLEST = 1e-24  # of r^2, whose root has no slope at 0


def parameters(x):
    """Make the weights: the center c, and what a and s are made of, given for every example `(B, D)`."""
    none = ops.zeros_like(x)
    center = none + weight(x, (x.shape[-1],), "center", "random_normal")
    return [center, none + weight(x, (1,), "width"), none + weight(x, (1,), "strength", "random_normal")]


def positive(width, strength):
    """Give the a > 0 and s > -a of any two numbers `(B, 1)`."""
    a = ops.softplus(width)
    return a, ops.softplus(strength) - a


def forward(x, center, width, strength):
    """Apply the step.

    Args:
        x: `(B, D)`.
        center: `(B, D)`.
        width: Any, `(B, D)`, of which all columns are the same.
        strength: The same.

    Returns:
        y `(B, D)`, and log |det dy/dx| `(B,)`.
    """
    a, s = positive(width[:, :1], strength[:, :1])
    away = x - center
    r = ops.sqrt(ops.maximum(ops.sum(ops.square(away), -1, keepdims=True), SMALLEST))
    pull = s / (a + r)
    across, along = ops.log1p(pull), ops.log1p(pull * a / (a + r))
    return x + pull * away, ((x.shape[-1] - 1) * across + along)[:, 0]


def inverse(y, given: Callable):
    """Give the x of y `(B, D)`, in closed form and float64."""
    center, width, strength = (ops.cast(p, "float64") for p in given(y))
    a, s = positive(width[:, :1], strength[:, :1])
    away = ops.cast(y, "float64") - center
    distance = ops.sqrt(ops.sum(ops.square(away), -1, keepdims=True))
    half = (a + s - distance) / 2
    root = ops.sqrt(ops.square(half) + a * distance)
    # of the two ways to write the root the one that does not take the difference of two large numbers
    r = ops.where(half > 0, a * distance / ops.maximum(root + half, SMALLEST), root - half)
    return ops.cast(center + away / (1 + s / (a + r)), y.dtype)
