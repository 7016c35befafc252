"""The losses by hand."""

import numpy as np
import pytest

from tfzoo.variational.objective import Objective, risen

LIKELIHOOD = np.array([-3.0, -5.0], "float32")
DIVERGENCE = np.array([[0.5, 2.0], [0.1, 1.0]], "float32")


@pytest.mark.parametrize(
    "objective, step, wanted",
    [
        (Objective(), None, [5.5, 6.1]),
        (Objective(beta=4.0), None, [13.0, 9.4]),
        (Objective(beta=2.0, warm_up=10), 5, [5.5, 6.1]),
        (Objective(beta=2.0, warm_up=10), 0, [3.0, 5.0]),
        (Objective(beta=2.0, warm_up=10), None, [8.0, 7.2]),
        (Objective(beta=10.0, capacity=1.0), None, [3 + 8.0, 5 + 8.0]),  # the mean divergence is 1.8
        (Objective(beta=10.0, capacity=4.0, capacity_steps=8), 2, [3 + 8.0, 5 + 8.0]),
        (Objective(beta=10.0, capacity=4.0, capacity_steps=8), 8, [3 + 22.0, 5 + 22.0]),
        (Objective(free_bits=0.6), None, [3 + 2.1, 5 + 2.1]),  # the means .3 and 1.5
        (Objective(beta=2.0, free_bits=2.0), None, [3 + 8.0, 5 + 8.0]),
    ],
)
def test_by_hand(objective, step, wanted):
    np.testing.assert_allclose(objective.loss(LIKELIHOOD, DIVERGENCE, step), wanted, rtol=1e-6)


def test_what_rises_comes_to_its_end():
    assert [float(risen(step, 4)) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert risen(None, 4) == risen(0, 0) == 1
