"""The `bridge` command in the tests' own process, which has imported the frameworks already."""

import contextlib
from types import SimpleNamespace

from typer.testing import CliRunner

from bridge import BridgeError, __main__


def bridge(*arguments):
    """Run the command in this process; give its exit code and what it printed."""
    result = CliRunner().invoke(__main__.app, list(map(str, arguments)))
    if isinstance(result.exception, (BridgeError, OSError)):
        return getattr(result.exception, "exit_code", 2), str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def run(folder, *arguments):
    """Run it in a folder; give the exit code, and what it printed as both of the streams."""
    with contextlib.chdir(folder):
        code, text = bridge(*arguments)
    return SimpleNamespace(returncode=code, stdout=text, stderr=text)
