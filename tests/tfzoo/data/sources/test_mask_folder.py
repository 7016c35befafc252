"""The folder of images and masks as a source; tests/tfzoo/data/test_image_folder.py has what it does with them."""

import itertools

import numpy as np
import pytest
from PIL import Image

import tfzoo.data
from tfzoo.data import files


def write(folder, count=7, first=0):
    """Pictures of 30x20 pixels, each of its number alone."""
    rng = np.random.default_rng(0)
    for n in range(first, first + count):
        masks = rng.integers(0, 2, (20, 30), np.uint8)
        for name, values in (("images", np.full((20, 30, 3), n, np.uint8)), ("masks", masks)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / name / f"{n}.png")
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path)


def opened(folder, seed=0, **wanted):
    return tfzoo.data.open(str(folder), "masks", seed=seed, image_shape=(8, 8, 3), **wanted)


def numbers(part):
    return [round(float(image.max() * 255)) for image, _ in part]


def test_parts_that_the_folder_names(tmp_path):
    for name, count, first in (("train", 8, 0), ("valid", 2, 20), ("test", 3, 30)):
        write(tmp_path / name, count, first)
    source = opened(tmp_path)
    assert [numbers(part) for part in (source.training, source.validation, source.held_out)] == [
        list(range(8)),
        [20, 21],
        [30, 31, 32],
    ]
    assert source.description == f"{tmp_path}: 8 pictures to train on, 2 for validation, 3 held out"


def test_a_part_that_is_not_there_is_cut_off_the_training(tmp_path):
    write(tmp_path / "train", 10), write(tmp_path / "test", 3, 30)
    source = opened(tmp_path)
    assert sorted(itertools.chain(numbers(source.training), numbers(source.validation))) == list(range(10))
    assert len(source.validation) == 2 and numbers(source.held_out) == [30, 31, 32]
    assert len({tuple(numbers(opened(tmp_path, seed=seed).validation)) for seed in range(4)}) > 1


def test_what_is_wrong_is_named_with_its_part(tmp_path):
    write(tmp_path / "train", 4), write(tmp_path / "val", 2, 20)
    (tmp_path / "test" / "images").mkdir(parents=True)
    (tmp_path / "val" / "masks" / "20.png").unlink()
    (tmp_path / "train" / "images" / "1.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError) as error:
        opened(tmp_path)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == [
        "  val/images/20.png: there is no val/masks/20.*",
        "  test/images/: holds no picture",
        "  test/masks/: there is no such folder",
    ]
    assert lines[-1].startswith("  train/images/1.png: cannot identify image file")


def test_everything_is_read_once(folder, monkeypatch, capsys):
    monkeypatch.setattr(files, "MANY", 6)
    opened(folder)
    assert capsys.readouterr().err == "reading 7 files once, to see whether all are whole\n"


def test_what_is_kept_is_what_would_be_read(folder):
    kept, read = (opened(folder, keep=keep) for keep in (21_000, 20_999))
    assert kept.training.keep and not read.training.keep  # 7 pictures of 600 pixels, five bytes each
    for _ in range(2):
        for a, b in zip(kept.training.at(1, 2), read.training.at(1, 2), strict=True):
            np.testing.assert_array_equal(a, b)
    assert sum(len(pair.kept) for pair in kept.training.pairs) == 1
    assert not any(pair.kept for pair in read.training.pairs)
