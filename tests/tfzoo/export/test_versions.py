import pytest

from tfzoo.export import versions


def version(path):
    path.mkdir(parents=True)
    (path / versions.SAVED_MODEL).touch()


def test_the_first_and_the_next(tmp_path):
    assert versions.choose(tmp_path / "none", None) == 1 and versions.choose(tmp_path, 5) == 5
    for n in (2, 10):
        version(tmp_path / str(n))
    (tmp_path / "models.config").touch()
    assert versions.choose(tmp_path, None) == 11 and versions.highest(tmp_path) == tmp_path / "10"
    assert versions.highest(tmp_path / "2") == tmp_path / "2"


@pytest.mark.parametrize("wanted", [1, 3, 10])
def test_a_higher_version_is_there(tmp_path, wanted):
    version(tmp_path / "10")
    with pytest.raises(ValueError, match=f"Received: version {wanted} in .*version 10. Accepted: --version 11 or more"):
        versions.choose(tmp_path, wanted)


def test_a_foreign_file(tmp_path):
    version(tmp_path / "1")
    (tmp_path / "2").mkdir()  # no model in it: a server would try it again and again
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"which also has 2, notes.txt. Name another folder with --output"):
        versions.choose(tmp_path, None)


def test_no_version(tmp_path):
    (tmp_path / "1").mkdir()
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"no exported model: .*Accepted: a version such as models/unet/1"):
            versions.highest(path)
