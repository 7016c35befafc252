"""The `tfzoo` command; `python -m apps` is the same.

Every file beside this one is a command, found by its name: its docstring's first line is the command's help, and its
function `run` takes the options and gives the exit code. To print help, no framework is imported.
"""

import functools
import importlib
import logging
import os
import pathlib
import re
import signal
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

import typer

from apps import RunFailed, VerificationFailed, no_room

NOT_COMMANDS = {"run_folder", "run_page", "sheets", "values", "watching"}
# How the lines of a TensorFlow error begin that say where in the graph it came, not what it was.
WHERE = ("Graph execution error", "Detected at node", "<stack traces", " ", "\t")


def names() -> list[str]:
    """Give the names of the commands.

    Returns:
        The stems of the files of this folder that are commands, sorted.
    """
    files = pathlib.Path(__file__).parent.glob("[!_]*.py")
    return sorted({file.stem for file in files} - NOT_COMMANDS)


def guarded(run: Callable[..., int]) -> Callable[..., None]:
    """Make a command end as every command does: with an exit code, and for bad input with a message, not a traceback.

    Args:
        run: A command's function, from its options to its exit code.

    Returns:
        The same command for typer, with the same options.
    """

    @functools.wraps(run)
    def command(*args, **kwargs) -> None:
        try:
            code = run(*args, **kwargs)
        except (ValueError, OSError, RunFailed, VerificationFailed) as error:
            print(f"error: {error}", file=sys.stderr)
            code = RunFailed.exit_code if no_room(error) else getattr(error, "exit_code", 2)
        except tensorflow_errors() as error:
            print(f"error: TensorFlow could not go on: {sentence(error)}", file=sys.stderr)
            code = RunFailed.exit_code
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 128 + signal.SIGINT
        raise typer.Exit(code)

    return command


def tensorflow_errors() -> tuple[type[Exception], ...]:
    """Give the class of TensorFlow's own errors; none where TensorFlow is not imported and can have raised none."""
    tensorflow = sys.modules.get("tensorflow")
    return (tensorflow.errors.OpError,) if tensorflow else ()


def sentence(error: Exception) -> str:
    """Give the one line of a TensorFlow error that says what went wrong, such as a data set's own exception."""
    lines = (line for line in str(error).splitlines() if line and not line.startswith(WHERE))
    return re.sub(r"{{.*?}} | \[Op:.*", "", next(lines, type(error).__name__))


def application() -> typer.Typer:
    """Build the command line from the files of this folder.

    Returns:
        The typer application.
    """
    app = typer.Typer(
        help="Deep-learning models in Keras 3: train them, measure them, export them, carry them to PyTorch.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name in names():
        module = importlib.import_module(f"apps.{name}")
        app.command(name, help=module.__doc__)(guarded(module.run))
    return app


def main() -> None:
    """Run the command line."""
    # The models are TensorFlow's, whatever Keras is set to elsewhere.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job has it ignored
        signal.signal(signal.SIGINT, interrupt)
    try:
        application()(prog_name="tfzoo")
    except SystemExit as ended:
        leave(ended.code)
    except MemoryError:
        print("error: there is not enough memory. Try a smaller --batch-size.", file=sys.stderr)
        leave(RunFailed.exit_code)
    except Exception as error:  # Python's own exit code would be 1: verification failed
        traceback.print_exc()
        name = type(error).__name__
        print(f"error: a fault of tfzoo itself ({name}): please report it with the lines above", file=sys.stderr)
        leave(RunFailed.exit_code)


def interrupt(*_) -> NoReturn:
    """Handle the first Ctrl-C; the second ends the process at once, even if nobody takes its last words."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def leave(code: int) -> NoReturn:
    """End the process.

    Args:
        code: The exit code.
    """
    if "tensorflow" not in sys.modules:
        sys.exit(code)
    # An endless data set may have a thread inside tf.numpy_function. The interpreter's own end would take the GIL
    # from that thread for good and then wait for it, for ever.
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or RunFailed.exit_code
    os._exit(code)


if __name__ == "__main__":
    main()
