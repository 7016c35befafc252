"""Classes in subfolders: numbers by name, parts with every class, and everything that is wrong."""

import numpy as np
import pytest
from PIL import Image

import tfzoo.data


def write(folder, counts, size=(6, 4)):
    for number, (name, count) in enumerate(counts.items()):
        for n in range(count):
            path = folder / name / ("more" if n % 3 == 0 else "") / f"{n:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (number, n, 0)).save(path)
    return folder


def refusal(folder):
    with pytest.raises(ValueError) as error:
        tfzoo.data.open(str(folder), "classes", seed=0)
    return str(error.value)


def test_classes_are_numbered_by_name(tmp_path):
    write(tmp_path, {"wolf": 20, "ant": 40})
    source = tfzoo.data.open(str(tmp_path), "classes", seed=0)
    assert source.classes == ("ant", "wolf")
    assert source.description == f"{tmp_path}: 42 pictures of 2 classes to train on, 9 for validation, 9 held out"
    met = set()
    for part in (source.training, source.validation, source.held_out):
        labels = []
        for image, label in part:
            assert image.shape == (4, 6, 3) and image.dtype == np.uint8 and label.dtype == np.int64
            assert image[0, 0, 0] == 1 - label  # "wolf" was written first
            met.add((int(label), int(image[0, 0, 1])))
            labels.append(int(label))
        assert abs(sum(labels) - len(labels) / 3) <= 1  # a third of each part are wolves
    assert len(met) == 60


def test_the_layout_of_imagenet(tmp_path):
    write(tmp_path / "train", {"a": 6, "b": 6, "c": 6})
    write(tmp_path / "val", {"a": 2, "c": 1})
    source = tfzoo.data.open(str(tmp_path), "classes", seed=0)
    assert source.classes == ("a", "b", "c")
    assert [len(source.training), len(source.validation), len(source.held_out)] == [15, 3, 3]
    assert [int(label) for _, label in source.validation] == [0, 0, 2]


def test_everything_wrong_is_named_at_once(tmp_path):
    write(tmp_path / "train", {"a": 4, "b": 4})
    write(tmp_path / "val", {"a": 1, "new": 2})
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "train" / "a" / "01.png").write_bytes(b"not a picture")
    (tmp_path / "train" / "b" / "gone.png").symlink_to("nowhere")
    Image.new("RGB", (2, 2)).save(tmp_path / "train" / "beside.png")
    (tmp_path / "train" / "a" / "notes.txt").write_text("mine")
    (tmp_path / "train" / "a" / "x.webp").write_bytes(b"")
    message = refusal(tmp_path)
    for problem in (
        "train/a/01.png: cannot identify image file",
        "train/b/gone.png: is a link to a file that is not there",
        "train/a/x.webp: must be one of .png .jpg .jpeg .tif .tiff .bmp: convert it, or take it away",
        "train/empty: holds no picture",
        "train/beside.png: lies beside the classes' folders, not in one",
        "val/new: is a class that train/ has not",
    ):
        assert f"\n  {problem}" in message
    assert len(message.splitlines()) == 7


def test_one_class_is_none(tmp_path):
    assert "1 folders of pictures; a class each is needed, 2 or more" in refusal(write(tmp_path, {"a": 4}))
