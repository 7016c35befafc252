"""What people run: every file here is a command of `tfzoo`, and `recipes/` says how each family is trained."""

import contextlib
import errno
import os
from collections.abc import Iterator

# An OSError for one of these comes in the middle of a run and is no fault of what was asked for.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class VerificationFailed(RuntimeError):
    """What was made is not equal to what it was made from."""

    exit_code = 1


class RunFailed(RuntimeError):
    """A run that was rightly asked for did not come to its end."""

    exit_code = 3


def no_room(error: BaseException) -> str | None:
    """Give the system's words of an error that came of a full disk or a limit, and None of any other error.

    TensorFlow passes on the system's words without its number.
    """
    for number in NO_ROOM:
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return os.strerror(number)
    return None


@contextlib.contextmanager
def refused(problems: list[str]) -> Iterator[None]:
    """Add what a block refuses to `problems`, so that `refuse` can say all of it at once."""
    try:
        yield
    except ValueError as error:
        problems.append(str(error))


def refuse(problems: list[str]) -> None:
    """Raise one ValueError for all problems, if there are any."""
    if problems:
        raise ValueError("\n".join(problems))
