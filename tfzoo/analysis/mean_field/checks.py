"""What data must be; each function gives the sentences about what is wrong, as those of `tfzoo.layers.arguments` do."""

import numpy as np

SHAPES = {1: "(N,)", 2: "(N, D)"}


def finite(rank: int, **named) -> list[str]:
    """Arrays of finite numbers with at least one value.

    Args:
        rank: How many axes; 1 for `(N,)`, 2 for `(N, D)`.
        **named: The arrays.
    """
    problems = []
    for name, value in named.items():
        wanted = f"{name} must be finite numbers {SHAPES[rank]}, at least one."
        try:
            array = np.asarray(value, "float64")
        except (TypeError, ValueError):
            problems.append(f"{wanted} Received: {type(value).__name__} that is no array of numbers")
            continue
        if array.ndim != rank or not array.size:
            problems.append(f"{wanted} Received: the shape {array.shape}")
        elif bad := int((~np.isfinite(array)).sum()):
            problems.append(f"{wanted} Received: {bad} of {array.size} are not")
    return problems


def labels(y) -> list[str]:
    """Zeros and ones `(N,)`."""
    if problems := finite(1, y=y):
        return problems
    others = sorted(set(np.asarray(y, "float64").tolist()) - {0.0, 1.0})
    return [f"y must be 0 or 1. Received: {', '.join(map(str, others[:5]))}"] if others else []


def as_many(x, y) -> list[str]:
    """As many rows as labels or targets; said of arrays that are right alone."""
    return [] if len(x) == len(y) else [f"x and y must be as many. Received: {len(x)} rows of x, {len(y)} of y"]
