"""Coordinate ascent: update one factor after the other until the ELBO rises no more (Bishop, 2006, section 10.1.1).

    ln q_j(z_j) = E_{i != j}[ln p(x, z)] + constant

Every update is the best one given the others, so the ELBO cannot decrease: where it does, the updates are wrong.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from tfzoo.layers import arguments

State = TypeVar("State")


def ascend(
    update: Callable[[State], tuple[State, float]], state: State, tolerance: float, iterations: int
) -> tuple[State, np.ndarray, bool]:
    """Update until the ELBO rises by no more than a share of itself.

    Args:
        update: From the factors to the next ones and their ELBO in nats.
        state: The factors to begin with.
        tolerance: The rise to stop at, relative to the ELBO where that is beyond 1 nat.
        iterations: The most updates.

    Returns:
        The last factors, the ELBO after every update `(T,)`, and whether the tolerance was reached.

    Raises:
        ValueError: tolerance or iterations cannot be, or an ELBO is not finite.
    """
    check(tolerance, iterations)
    elbo = []
    for _ in range(iterations):
        state, value = update(state)
        if not np.isfinite(value):
            raise ValueError(
                f"the ELBO must be finite. Received: {value} at update {len(elbo)}; the data's scale or the prior is "
                "too far from 1 for float64"
            )
        elbo.append(float(value))
        if len(elbo) > 1 and elbo[-1] - elbo[-2] <= tolerance * max(1.0, abs(elbo[-1])):
            return state, np.array(elbo), True
    return state, np.array(elbo), False


def check(tolerance: float, iterations: int) -> None:
    """Raise a ValueError for what `ascend` cannot stop by."""
    arguments.refuse(arguments.factors(tolerance=tolerance), arguments.positive(iterations=iterations))
