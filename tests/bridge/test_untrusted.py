"""A file is looked at as a whole before anything reads it."""

import zipfile

import pytest

from bridge import BridgeError, untrusted


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("x", bytes(range(256)) * 8)
    return path


def test_a_file_that_is_there(archive):
    assert untrusted.check_file(str(archive), "") == archive.stat().st_size
    with pytest.raises(BridgeError, match="none: no such file. Accepted: what there is"):
        untrusted.check_file("none", "Accepted: what there is")


def test_an_archive_must_be_whole(archive):
    untrusted.check_archive(str(archive))
    data = bytearray(archive.read_bytes())
    data[100] ^= 1  # of what is stored in it
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="the checksum of 'x' in it is wrong"):
        untrusted.check_archive(str(archive))


@pytest.mark.parametrize(("free", "growth", "fits"), [(2048, 0, True), (2047, 0, False), (0, 1, True)])
def test_an_archive_may_not_unpack_to_more_than_its_room(archive, monkeypatch, free, growth, fits):
    monkeypatch.setattr(untrusted, "FREE", free)
    monkeypatch.setattr(untrusted, "GROWTH", growth)  # the archive is a little larger than what is stored in it
    if fits:
        untrusted.check_archive(str(archive))
        return
    with pytest.raises(ValueError, match="its archive unpacks to 2,048 bytes"):
        untrusted.check_archive(str(archive))


def test_an_error_is_said_in_a_line():
    assert untrusted.why(KeyError("a\n  b")) == r"KeyError: 'a\n b'"
    assert untrusted.why(ValueError("a\n  b" + 999 * "c")) == "ValueError: a b" + 497 * "c"
