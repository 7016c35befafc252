"""What is written to the side is whole, or not there at all."""

import errno

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


def test_what_a_killed_process_left_is_cleared(tmp_path):
    with aside(tmp_path / "a") as side:
        side.mkdir()
        (side / "x").write_text("")
    (tmp_path / ".partial-b").mkdir()
    (tmp_path / ".partial-b" / "old").write_text("")
    with aside(tmp_path / "b") as side:
        assert not side.exists()
        side.write_text("")
    remove(tmp_path / "nothing")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


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
