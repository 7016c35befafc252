"""The stages that the commands show."""

import logging

import keras
import pytest

import bridge
from bridge import progress


@pytest.fixture
def terminal(monkeypatch):
    """Takes what errors are written to for a terminal; the level of the log is put back."""
    level = progress.log.level
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    yield
    progress.hide()
    progress.log.setLevel(level)


def stages(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "bridge"]


def test_every_stage_is_logged(caplog):
    caplog.set_level(logging.INFO, "bridge")
    model = keras.Sequential([keras.Input((5, 5, 3)), keras.layers.Conv2D(2, 3, name="c")], name="small")
    assert bridge.verify(model, bridge.to_torch(model)).passed
    found = stages(caplog)
    assert found[0] == "small: converting it to torch" and "small: every tensor of a forward pass in float32" in found
    assert [s for s in found if "step" in s][-1] == "Small: step 10 of 10 in torch"


def test_a_terminal_shows_the_last_one(terminal, capsys):
    progress.show()
    progress.log.info("reading %s", "[bold]a[/bold]")
    progress.hide()
    progress.log.info("nobody looks any more")
    shown = capsys.readouterr().err
    assert "reading [bold]a[/bold]" in shown and "nobody" not in shown
    assert shown.rstrip().endswith("\x1b[2K")  # the line is cleared


def test_a_file_does_not(terminal, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR")
    progress.show()
    progress.log.info("reading")
    progress.hide()
    assert capsys.readouterr().err == ""


def test_a_name_does_not_move_the_cursor(terminal, capsys):
    progress.show()
    progress.log.info("reading %s", "a\x1b[31mred")
    progress.hide()
    shown = capsys.readouterr().err
    assert "31mred" in shown and "\x1b[31mred" not in shown


def test_a_name_that_is_no_text(caplog):
    """No file and no other process could take it."""
    caplog.set_level(logging.INFO, "bridge")
    progress.log.info("reading %s", "a\ud800b")
    assert stages(caplog) == ["reading a\\ud800b"]
