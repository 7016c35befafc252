"""What people run: every file here is a command of `tfzoo`, and `recipes/` says how each family is trained."""

import errno

# An OSError for one of these comes in the middle of a run and is no fault of what was asked for.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class VerificationFailed(RuntimeError):
    """What was made is not equal to what it was made from."""

    exit_code = 1


class RunFailed(RuntimeError):
    """A run that was rightly asked for did not come to its end."""

    exit_code = 3
