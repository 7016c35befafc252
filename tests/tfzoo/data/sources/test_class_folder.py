"""Classes in subfolders: numbers by name, parts with every class, and everything that is wrong."""

import numpy as np
import pytest
from PIL import Image

import tfzoo.data
from tfzoo.data import augmentation, pipeline


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
    write(tmp_path / "val", {"a": 2, "b": 1, "c": 1})
    source = tfzoo.data.open(str(tmp_path), "classes", seed=0)
    assert source.classes == ("a", "b", "c")
    assert [len(source.training), len(source.validation), len(source.held_out)] == [15, 4, 3]
    assert [int(label) for _, label in source.validation] == [0, 0, 1, 2]


def test_everything_wrong_is_named_at_once(tmp_path):
    write(tmp_path / "train", {"a": 4, "b": 4})
    write(tmp_path / "val", {"a": 1, "new": 2})
    (tmp_path / "train" / "empty").mkdir()
    (tmp_path / "train" / "a" / "01.png").write_bytes(b"not a picture")
    (tmp_path / "train" / "b" / "gone.png").symlink_to("nowhere")
    Image.new("RGB", (2, 2)).save(tmp_path / "train" / "beside.png")
    (tmp_path / "train" / "a" / "notes.txt").write_text("mine")
    (tmp_path / "train" / "a" / "x.webp").write_bytes(b"")
    Image.new("RGBA", (2, 2)).save(tmp_path / "train" / "a" / "hidden.png")
    write(tmp_path / "train", {"single": 1})
    message = refusal(tmp_path)
    for problem in (
        "train/a/01.png: cannot identify image file",
        "train/b/gone.png: is a link to a file that is not there",
        "train/a/x.webp: must be one of .png .jpg .jpeg .tif .tiff .bmp: convert it, or take it away",
        "train/empty: holds no picture",
        "train/beside.png: lies beside the classes' folders, not in one",
        "train/a/hidden.png: must be opaque, as the colours that alpha hides would be used: flatten it onto",
        "train/single: holds 1 picture; 2 are needed, one for each part that is made of this folder",
        "val/new: is a class that train/ has not",
        "val: has no picture of b, single; every part needs all classes of train/. Without val/, one is cut off train/",
    ):
        assert f"\n  {problem}" in message
    assert len(message.splitlines()) == 10


def lines(folder):
    return [line.strip() for line in refusal(folder).splitlines()[1:]]


def test_parts_in_capitals_are_no_classes(tmp_path):
    for part in ("Train", "Test"):
        write(tmp_path / part, {"a": 4, "b": 4})
    assert [line[: line.index("/,") + 1] for line in lines(tmp_path)] == [
        f"{name}: is no part, as it is spelt: rename it {name.lower()}/" for name in ("Test", "Train")
    ]
    for part in ("Train", "Test"):
        (tmp_path / part).rename(tmp_path / part.lower())
    assert tfzoo.data.open(str(tmp_path), "classes", seed=0).classes == ("a", "b")
    write(tmp_path / "train", {"Test": 4})  # a class may be called so
    write(tmp_path / "test", {"Test": 4})
    assert tfzoo.data.open(str(tmp_path), "classes", seed=0).classes == ("Test", "a", "b")


def test_pictures_with_masks_are_no_classes(tmp_path):
    said = refusal(write(tmp_path, {"images": 9, "masks": 9}))
    assert "images/ and masks/ are pictures with masks, as `tfzoo train unet` takes them" in said


def test_one_class_is_none(tmp_path):
    (tmp_path / "none").mkdir()
    assert lines(write(tmp_path / "one", {"a": 4})) == ["1 folder of pictures; a class each is needed, 2 or more"]
    assert lines(tmp_path / "none") == ["0 folders of pictures; a class each is needed, 2 or more"]


def test_classes_without_a_picture(tmp_path):
    write(tmp_path, {"a": 4, "b": 4})
    for name in ("empty", "texts"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("mine")
    assert lines(tmp_path) == ["empty: holds no picture", "texts: holds no picture"]


def test_a_class_has_a_picture_for_every_part_that_is_cut(tmp_path):
    write(tmp_path / "whole", {"a": 1, "b": 9, "c": 2, "d": 3})
    rest = "3 are needed, one for each part that is made of this folder"
    assert lines(tmp_path / "whole") == [f"a: holds 1 picture; {rest}", f"c: holds 2 pictures; {rest}"]
    write(tmp_path / "two" / "train", {"a": 1, "b": 9, "c": 2})
    write(tmp_path / "two" / "test", {"a": 1, "b": 1, "c": 1})
    assert lines(tmp_path / "two") == [f"train/a: holds 1 picture; {rest.replace('3', '2')}"]
    for part in ("train", "val", "test"):
        write(tmp_path / "three" / part, {"a": 1, "b": 1})
    assert len(tfzoo.data.open(str(tmp_path / "three"), "classes", seed=0).training) == 2


def test_a_part_that_lacks_classes(tmp_path):
    write(tmp_path / "training", {"a": 4, "b": 4, "c": 4})
    write(tmp_path / "valid", {"a": 2})
    write(tmp_path / "test", {"c": 2})
    (tmp_path / "test" / "b").mkdir()
    needs = "every part needs all classes of training/. Without"
    assert lines(tmp_path) == [
        "test/b: holds no picture",
        f"valid: has no picture of b, c; {needs} valid/, one is cut off training/",
        f"test: has no picture of a; {needs} test/, one is cut off training/",
    ]


@pytest.mark.parametrize("counts", [(3, 3), (4, 4), (3, 3, 5), (3, 100), (4, 3, 60, 3)], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_every_part_that_is_cut_has_every_class(tmp_path, counts, seed):
    write(tmp_path, {f"{number}": count for number, count in enumerate(counts)})
    source = tfzoo.data.open(str(tmp_path), "classes", seed=seed)
    for part in (source.training, source.validation, source.held_out):
        assert {int(label) for _, label in part} == set(range(len(counts)))
    assert len(source.training) + len(source.validation) + len(source.held_out) == sum(counts)


def test_pictures_of_any_size_become_batches(tmp_path):
    for width in (20, 31, 44):
        write(tmp_path, {f"{width}": 10, "other": 3}, (width, 25))
    source = tfzoo.data.open(str(tmp_path), "classes", seed=0)
    made = pipeline.datasets(
        source,
        batch_size=5,
        seed=0,
        augment=lambda key, image, label: (augmentation.random_resized_crop(key, image, (16, 24)), label),
        prepare=lambda image, label: (augmentation.centre_crop(image, (16, 24)), label),
    )
    for images, labels in (*made.training.take(3), *made.validation, *made.held_out):
        assert images.shape[1:] == (16, 24, 3) and images.dtype == np.float32
        for image, label in zip(images.numpy(), labels.numpy(), strict=True):
            np.testing.assert_allclose(image, np.broadcast_to(image[0, 0], image.shape), atol=1e-6)  # of one colour
            assert round(255 * float(image[0, 0, 0])) == (source.classes[label] == "other")
