"""Folders: their parts, the files below them, the one reading of everything, and what is kept of it."""

import io
import itertools
import os

import numpy as np
import pytest
from PIL import Image

import tfzoo.data
from tfzoo.data import Wanted, files


def open_texts(folder, seed=0, **options):
    """Files of numbers, read as such."""
    asked = options.pop("asked", [])

    def size(path):
        asked.append(path.name)
        return 8 * len(path.read_text().split()) or int("nothing in it")

    return files.source(
        folder,
        Wanted("images", seed, **options),
        listing=lambda folder, problems: files.walk(folder, [".txt"], problems),
        size=size,
        read=lambda path: (np.array(path.read_text().split(), int),),
        rule="it must hold numbers",
        noun="texts",
    )


def write(folder, count=20):
    for n in range(count):
        path = folder / ("deep/er" if n % 2 else "flat") / f"{n:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{n} {n}")
    return folder


def numbers(part):
    return [int(part[i][0][0]) for i in range(len(part))]


def test_parts_are_cut_by_the_seed_where_the_folder_does_not_say(tmp_path):
    source = open_texts(write(tmp_path))
    parts = [numbers(part) for part in (source.training, source.validation, source.held_out)]
    assert [len(part) for part in parts] == [14, 3, 3] and sorted(itertools.chain(*parts)) == list(range(20))
    assert source.description == f"{tmp_path}: 14 texts to train on, 3 for validation, 3 held out"
    assert numbers(open_texts(tmp_path).held_out) == parts[2] != numbers(open_texts(tmp_path, seed=1).held_out)


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (("train", "val", "test"), [20, 4, 5]),
        (("training", "validation", "test"), [20, 4, 5]),
        (("train", "val"), [17, 4, 3]),
        (("train", "valid", "test"), [20, 4, 5]),
        (("train", "test"), [17, 3, 5]),
        (("train",), [14, 3, 3]),
    ],
)
def test_parts_that_the_folder_names(tmp_path, names, counts):
    for name in names:
        write(tmp_path / name, {"t": 20, "v": 4}[name[0]] if name != "test" else 5)
    source = open_texts(tmp_path)
    assert [len(part) for part in (source.training, source.validation, source.held_out)] == counts
    if "test" in names:
        assert numbers(source.held_out) == [1, 3, 0, 2, 4]  # deep/er/ comes before flat/


@pytest.mark.parametrize("empty", ["train", "valid", "test"])
def test_a_named_part_without_anything_in_it(tmp_path, empty):
    for name in ("train", "valid", "test"):
        write(tmp_path / name, 4 * (name != empty)).mkdir(exist_ok=True)
    (tmp_path / empty / "notes.md").write_text("not asked for")
    with pytest.raises(ValueError) as error:
        open_texts(tmp_path)
    assert str(error.value).splitlines()[1:] == [f"  {empty}: holds no texts; take it away, or put some into it"]


@pytest.mark.parametrize(("kind", "lies"), [("classes", ("ant", "bee")), ("pairs", ("A", "B")), ("images", ("a", "b"))])
@pytest.mark.parametrize("empty", ["val", "test"])
def test_a_named_part_without_pictures(tmp_path, kind, lies, empty):
    for part, side, n in itertools.product({"train", "val", "test"} - {empty}, lies, range(3)):
        (tmp_path / part / side).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / part / side / f"{n}.png")
    (tmp_path / empty).mkdir()
    with pytest.raises(ValueError) as error:
        tfzoo.data.open(str(tmp_path), kind, seed=0)
    lines = str(error.value).splitlines()
    assert lines[1].startswith(f"  {empty}: holds no p") and len(lines) == 2


def test_folders_beside_the_parts(tmp_path):
    for name in ("train", "val", "validation", "test", "bus", "extra", ".cache"):
        write(tmp_path / name, 4)
    with pytest.raises(ValueError) as error:
        open_texts(tmp_path)
    lines = str(error.value).splitlines()[1:]
    accepted = "(train/ training/ val/ valid/ validation/ test/): take it away, or rename"
    assert lines[0] == "  val/ and validation/: are the same part; put them together"
    assert [line.partition(":")[0] for line in lines[1:]] == [
        f"  {name}: lies beside the parts and is none {accepted}".partition(":")[0] for name in ("bus", "extra")
    ]
    assert all(accepted in line for line in lines[1:])


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (("Train", "Test"), ("Test", "Train")),
        (("TRAINING", "Valid", "bus"), ("TRAINING", "Valid")),
        (("Train", "test"), ("Train",)),
        (("train", "val", "Test"), ("Test",)),
    ],
)
def test_parts_are_not_spelt_with_capitals(tmp_path, names, wrong):
    for name in names:
        write(tmp_path / name, 6)
    with pytest.raises(ValueError) as error:
        open_texts(tmp_path)
    rest = "or, if it is not meant as one, to anything else"
    assert str(error.value).splitlines()[1:] == [
        f"  {name}: is no part, as it is spelt: rename it {name.lower()}/, {rest}" for name in wrong
    ]


def test_without_training_folders_no_other_is_a_part(tmp_path):
    write(tmp_path / "val", 6), write(tmp_path / "bus", 4)
    assert sum(len(part) for part in (lambda s: (s.training, s.validation, s.held_out))(open_texts(tmp_path))) == 10


def test_everything_wrong_is_named_at_once_and_nothing_else(tmp_path):
    write(tmp_path)
    (tmp_path / "flat" / "00.txt").write_text("")
    (tmp_path / "flat" / "02.txt").write_bytes(b"\xff")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "notes.md").write_text("not asked for")
    (tmp_path / ".hidden.txt").write_text("")
    (tmp_path / "flat" / "nasty\x1b[2J\n.txt").write_text("")
    with pytest.raises(ValueError) as error:
        open_texts(tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{tmp_path} cannot be used: it must hold numbers. Found:"
    assert {line.strip().partition(":")[0] for line in lines[1:]} >= {"flat/00.txt", "flat/02.txt", "gone.txt"}
    assert "\x1b" not in str(error.value) and "\\x1b[2J" in str(error.value)
    assert len(lines) == 6  # a file's name may end a line


def test_too_few(tmp_path):
    with pytest.raises(ValueError, match="2 texts; 3 are needed"):
        open_texts(write(tmp_path, 2))
    assert len(open_texts(write(tmp_path, 3)).training) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere", 6)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "elsewhere")
    assert len(list(files.walk(tmp_path / "mine", [".txt"], []))) == 6


@pytest.mark.parametrize(("keep", "kept"), [(320, True), (319, False)])  # 20 files of two numbers
def test_what_fits_is_kept(tmp_path, keep, kept):
    source = open_texts(write(tmp_path), keep=keep)
    assert source.training.keep is source.held_out.keep is kept


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path):
    write(tmp_path, 4)
    asked = []

    def size(path):
        asked.append(path.name)
        return 1

    paths = sorted(tmp_path.rglob("*.txt"))
    assert files.check(paths, size, lambda path: [path]) == (4, [])
    paths[1].write_text("something longer")
    os.utime(paths[2], (0, 0))
    assert files.check(paths, size, lambda path: [path]) == (4, [])
    assert sorted(asked[4:]) == sorted(path.name for path in paths[1:3])


@pytest.mark.parametrize(
    ("count", "terminal", "shown"), [(300, True, ""), (301, True, "of 301"), (301, False, "301 f")]
)
def test_a_line_says_how_far_it_has_come(count, terminal, shown, monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(files.sys, "stderr", stream)
    monkeypatch.setattr(files.time, "monotonic", iter(range(10_000)).__next__)
    progress = files.Progress(count)
    for _ in range(count):
        progress.step()
    progress.end()
    assert shown in stream.getvalue() and bool(stream.getvalue()) == bool(shown)
    assert stream.getvalue().count("\n") == (not terminal)
