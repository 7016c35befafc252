"""What `make` does with .venv, by a stand-in for Python that notes what it was asked for."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PYTHON = """#!/bin/sh
echo "$@" >> log
case "$*" in
*venv*) rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
*editable*) touch .venv/bin/tfzoo ;;
*requirements*) test ! -e no-network ;;
*pytest*) exit $(cat pytest-status) ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A checkout with a stand-in Python whose pytest passes."""
    for name in ("Makefile", "requirements.txt", "setup.cfg", "pyproject.toml", ".ci"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "pytest-status").write_text("0")
    return tmp_path


def make(clone, *arguments, python="./python"):
    """Run make in the clone; give its status, the installations it made, and what it said."""
    (clone / "log").write_text("")
    # A make that runs these tests hands its own settings down.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | {"PYTHON": python}
    result = subprocess.run(arguments, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    log = (clone / "log").read_text()
    steps = [step for step in ("venv", "install -r", "--editable", "pytest") if step in log]
    return result.returncode, steps, result.stdout + result.stderr


def test_the_environment_is_made_once(clone):
    assert make(clone, "make", "test")[:2] == (0, ["venv", "install -r", "--editable", "pytest"])
    assert make(clone, "make", "test")[:2] == (0, ["pytest"])


def test_a_checkout_that_changes_no_requirement_reuses_it(clone):
    make(clone, "make", "test")
    later = (clone / ".venv" / "bin" / "tfzoo").stat().st_mtime + 10
    os.utime(clone / "requirements.txt", (later, later))
    assert make(clone, "make", "test")[:2] == (0, ["pytest"])


def test_other_requirements_make_it_anew(clone):
    make(clone, "make", "test")
    with (clone / "requirements.txt").open("a") as requirements:
        requirements.write("another==1.0\n")
    assert make(clone, "make", "test")[:2] == (0, ["venv", "install -r", "--editable", "pytest"])


def test_a_half_finished_install_is_made_anew(clone):
    (clone / "no-network").touch()
    status, steps, _ = make(clone, "make", "test")
    assert status != 0 and steps == ["venv", "install -r"]
    (clone / "no-network").unlink()
    assert make(clone, "make", "test")[:2] == (0, ["venv", "install -r", "--editable", "pytest"])


def test_without_python_the_message_says_what_to_do(clone):
    status, steps, said = make(clone, "make", "demo", python="")
    assert status != 0 and not steps and not (clone / ".venv").exists()
    assert "error: Python 3.11 is needed" in said and "make PYTHON=/path/to/python3.11 demo" in said


@pytest.mark.parametrize("status", ["0", "1"])
def test_ci_ends_with_the_closing_line_and_the_status(status, clone):
    closing = "=================== 3 passed in 0.12s ==================="
    (clone / "python").write_text(PYTHON.replace("exit", f"echo '{closing}'; exit"))
    (clone / "pytest-status").write_text(status)
    code, _, said = make(clone, ".ci/run")
    assert (code == 0) == (status == "0")
    assert said.splitlines().count(closing) == 2


def test_every_benchmark_writes_its_own_dated_json(clone):
    (clone / "benchmarks").mkdir()
    for name in ("a.py", "b.py", "_common.py"):
        (clone / "benchmarks" / name).touch()
    make(clone, "make", "benchmarks")
    log = (clone / "log").read_text()
    assert [line.split("-benchmarks-")[1] for line in log.splitlines() if "--output" in line] == ["a.json", "b.json"]
