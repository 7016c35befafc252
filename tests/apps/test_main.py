import errno
import importlib
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
import typer

from apps import RunFailed, VerificationFailed, __main__
from apps.__main__ import guarded, names

ROOT = pathlib.Path(__file__).parents[2]


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def test_commands_are_the_files():
    assert {"list", "train", "evaluate", "export", "demo"} <= set(names())
    assert "run_folder" not in names()


@pytest.mark.parametrize("name", names())
def test_help_of_every_command_begins_with_its_docstring(name, invoke):
    module = importlib.import_module(f"apps.{name}")
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert module.__doc__.splitlines()[0].split(":")[0] in " ".join(result.stdout.split())


def test_help_takes_half_a_second():
    code = (
        "import sys, time\nsys.argv = ['tfzoo', '--help']\nfrom apps.__main__ import main\n"
        "try: main()\nexcept SystemExit as ended: assert not ended.code\n"
        "print(time.process_time(), file=sys.stderr)"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr
    assert float(result.stderr) < 0.5  # of the processor, as other tests may run beside this one


def test_help_imports_no_framework():
    code = (
        "import runpy, sys\nsys.argv = ['tfzoo', '--help']\n"
        "try: runpy.run_module('apps', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "found = {'tensorflow', 'keras', 'torch', 'numpy', 'matplotlib'} & set(sys.modules)\nassert not found, found"
    )
    result = python("-c", code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("this"), 2),
        (FileNotFoundError(errno.ENOENT, "this"), 2),
        (OSError(errno.ENOSPC, "this"), 3),
        (RunFailed("this"), 3),
        (VerificationFailed("this"), 1),
    ],
)
def test_what_goes_wrong_ends_in_a_message_and_a_code(error, code, capsys):
    def run():
        raise error

    with pytest.raises(typer.Exit) as ended:
        guarded(run)()
    assert ended.value.exit_code == code
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and "this" in said.err and not said.out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ZeroDivisionError("this"), 3, "error: a fault of tfzoo itself (ZeroDivisionError): please report it"),
        (MemoryError(), 3, "error: there is not enough memory"),
        (SystemExit(130), 130, ""),
        (typer.Exit(1), 1, ""),
    ],
)
def test_no_fault_of_ours_reads_as_a_failed_verification(error, code, said, monkeypatch, capsys):
    def fails(name=None):
        raise error

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(__main__.importlib.import_module("apps.list"), "run", fails)
    monkeypatch.setattr(__main__, "leave", leave)  # it would end the tests
    monkeypatch.setattr(sys, "argv", ["tfzoo", "list"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert said in shown and ("Traceback" in shown) == isinstance(error, ZeroDivisionError)


def test_a_picture_that_is_lost_during_a_training_is_one_line(capsys):
    def lost(n):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "images/7.png")

    pictures = tf.data.Dataset.range(1).map(lambda n: tf.numpy_function(lost, [n], tf.float32))
    with pytest.raises(typer.Exit) as ended:
        guarded(lambda: next(iter(pictures)))()
    assert ended.value.exit_code == 3
    said = capsys.readouterr().err
    assert said.startswith("error: TensorFlow could not go on: ") and said.count("\n") == 1
    assert said.endswith("FileNotFoundError: [Errno 2] No such file or directory: 'images/7.png'\n")


WHERE = "Graph execution error:\n\nDetected at node Fill defined at (most recent call last):\n"


@pytest.mark.parametrize("trace", ["<stack traces unavailable>\n", '  File "x.py", line 1, in <module>\n\n'])
def test_an_error_of_a_graph_is_one_line(trace, capsys):
    def run():
        message = WHERE + trace + "OOM when allocating tensor\n\t [[{{node Fill}}]]\nHint: more"
        raise tf.errors.ResourceExhaustedError(None, None, message)

    with pytest.raises(typer.Exit) as ended:
        guarded(run)()
    assert ended.value.exit_code == 3
    assert capsys.readouterr().err == "error: TensorFlow could not go on: OOM when allocating tensor\n"


def test_a_refusal_as_the_shell_sees_it(tmp_path):
    result = python("-m", "apps", "train", "unet", "--size", "huge", "--output", str(tmp_path / "run"))
    assert result.returncode == 2
    assert "error: unet has no size 'huge'; its sizes are default, tiny" in result.stderr
    assert result.stderr.count("\n") == 1 and not result.stdout  # nothing of TensorFlow's
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["no-such-command"], ["train"], ["train", "unet", "--epochs", "0"]])
def test_wrong_usage_is_bad_input(arguments, invoke):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
