"""When the ascent stops, and what it says."""

import numpy as np
import pytest

from tfzoo.analysis.mean_field.ascent import ascend


def halving(state):
    """Go half of the way to an ELBO of -100."""
    return state / 2, -100 - state / 2


def test_it_stops_where_the_rise_is_the_tolerance_of_the_elbo():
    state, elbo, converged = ascend(halving, 64.0, 0.0101, 50)
    # rises of 16, 8, 4, 2 and 1 nats; the last is within 1.01 % of 101 nats
    np.testing.assert_allclose(elbo, [-132, -116, -108, -104, -102, -101])
    assert converged and state == 1


def test_it_says_that_it_did_not_converge():
    _, elbo, converged = ascend(halving, 64.0, 1e-12, 3)
    assert len(elbo) == 3 and not converged


def test_an_elbo_that_is_not_finite():
    with pytest.raises(ValueError, match="the ELBO must be finite. Received: nan at update 0"):
        ascend(lambda state: (state, float("nan")), 0.0, 1e-6, 3)


def test_what_cannot_be_is_said_at_once():
    with pytest.raises(ValueError, match="tolerance must be.*=-1(.|\n)*iterations must be.*=0"):
        ascend(halving, 1.0, -1, 0)
