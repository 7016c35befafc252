"""What the tests of rules share besides `check`."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def three_steps():
    """Let `bridge.verify` train for three steps: the second shows the momentum, and the other seven nothing of a rule.

    All ten are trained in the tests of `verify` itself.
    """
    from bridge import lockstep

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockstep, "STEPS", 3)
        yield
