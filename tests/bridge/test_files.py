"""What is written to the side is whole, or not there at all."""

import errno
import os

import pytest

from bridge import BridgeError
from bridge.files import aside, remove, writing


def test_a_file_is_replaced_when_all_went_well(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with aside(path) as side:
        side.write_text("new")
        assert path.read_text() == "old" and side.suffix == ".txt" and side.name.startswith(".")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("folder", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, folder):
    path = tmp_path / "a"
    if not folder:
        path.write_text("old")
    with pytest.raises(KeyboardInterrupt), aside(path) as side:
        if folder:
            side.mkdir()
            (side / "half").write_text("x")
        else:
            side.write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ([] if folder else ["a"])
    assert folder or path.read_text() == "old"


def test_what_a_process_of_this_number_left_is_cleared(tmp_path):
    with aside(tmp_path / "b") as side:
        side.write_text("")
    side.mkdir()
    (side / "old").write_text("")
    with aside(tmp_path / "b") as again:
        assert again == side and not side.exists()
        side.write_text("")
    remove(tmp_path / "nothing")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_two_processes_may_write_the_same_path(tmp_path, monkeypatch):
    with aside(tmp_path / "a.txt") as first:
        first.write_text("first")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "getpid", lambda: 0)
            with aside(tmp_path / "a.txt") as second:
                assert second.suffix == ".txt" and second.name.startswith(".")
                second.write_text("second")
                raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_where_a_folder_is_needed_is_said_to_be_one(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="Not a directory: .*file"), aside(tmp_path / "file" / "a"):
        pass
    with pytest.raises(BridgeError, match="a cannot be written: Not a directory"), writing(tmp_path / "file" / "a"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_folders_above_are_made_and_go_with_a_failure(tmp_path):
    (tmp_path / "there").mkdir()
    for path in (tmp_path / "deep" / "er" / "a", tmp_path / "there" / "a"):
        with pytest.raises(KeyboardInterrupt), aside(path) as side:
            side.mkdir()
            raise KeyboardInterrupt
    assert [p.name for p in tmp_path.rglob("*")] == ["there"]
    with aside(tmp_path / "deep" / "er" / "a") as side:
        side.write_text("x")
    assert (tmp_path / "deep" / "er" / "a").read_text() == "x"


@pytest.mark.parametrize("number, code", [(errno.ENOSPC, 3), (errno.EFBIG, 3), (errno.EDQUOT, 3), (errno.EACCES, 2)])
def test_no_room_is_a_failed_run(tmp_path, number, code):
    with pytest.raises(BridgeError, match="a cannot be written") as caught, writing(tmp_path / "a"):
        raise OSError(number, "the reason")
    assert "the reason" in str(caught.value) and getattr(caught.value, "exit_code", 2) == code
