"""Sets of tensorflow_datasets, made here in a folder of their own: nothing is downloaded."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import tfzoo.data
from apps import evaluate, train
from tfzoo.data import pipeline
from tfzoo.data.sources import tfds_sets

downloader = pytest.importorskip("tensorflow_datasets.core.download.downloader")
tfds = pytest.importorskip("tensorflow_datasets")
COUNTS = {"train": 40, "test": 6}


def picture(n):
    return np.random.default_rng(n).integers(0, 255, (8 + n % 3, 7, 3), np.uint8)


def mask(n):
    return np.random.default_rng(100 + n).integers(1, 4, (8 + n % 3, 7, 1), np.uint8)


def make(folder, *arguments, **options):
    """Write a set with tfds' own builder."""
    builder_of(folder, *arguments, **options)().download_and_prepare()
    return folder


def builder_of(folder, file_format, name="small_shapes", counts=COUNTS, secret=(), **more):
    """Make a maker of builders; image n has label n % 3, and a mask of 1, 2 and 3 as the pets' are."""
    image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["ant", "bee", "cat"])
    masks = tfds.features.Image(shape=(None, None, 1))
    features = {"image": image, "label": label, "segmentation_mask": masks, **more}

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")
        pkg_dir_path = tfds.core.Path(folder)

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, count) for split, count in counts.items()}

        def _generate_examples(self, split, count):
            for n in range(count):
                n += 1000 * (split == "test")
                example = {"image": picture(n), "label": -1 if split in secret else n % 3, "segmentation_mask": mask(n)}
                yield n, example | {name: picture(n) for name in more}

    Builder.name = name
    return lambda: Builder(data_dir=folder, file_format=file_format)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    make(folder, "array_record")
    make(folder, "tfrecord", "old_shapes")
    make(folder, "array_record", "secret_shapes", secret=("test",))
    make(folder, "array_record", "two_pictures", {"train": 3}, other=tfds.features.Image(shape=(None, None, 3)))
    return folder


@pytest.fixture
def opened(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return lambda text, kind="classes", seed=0, **options: tfzoo.data.open(text, kind, seed=seed, **options)


def refusal(opened, *arguments, **options):
    with pytest.raises(ValueError) as error:
        opened(*arguments, **options)
    return str(error.value)


@pytest.mark.parametrize("keep", [2**30, 0])
@pytest.mark.parametrize("name", ["small_shapes", "old_shapes", "small_shapes:1.2.3"])
def test_every_example_is_there_whole_and_once(opened, name, keep):
    source = opened(f"tfds:{name}", keep=keep)
    assert source.training.keep == bool(keep)
    assert source.classes == ("ant", "bee", "cat")
    assert source.description == f"tfds:{name}: 36 examples to train on, 4 for validation, 6 held out"
    met = {}
    for image, label in itertools.chain(source.training, source.validation, source.held_out):
        met[image.tobytes()] = (image.shape, image.dtype, int(label))
    expected = {picture(n).tobytes(): ((8 + n % 3, 7, 3), np.uint8, n % 3) for n in [*range(40), *range(1000, 1006)]}
    assert met == expected
    held_out = {image.tobytes() for image, _ in source.held_out}
    assert held_out == {picture(n).tobytes() for n in range(1000, 1006)}


@pytest.mark.parametrize("name", ["small_shapes", "old_shapes"])
def test_any_step_can_be_entered(opened, name):
    def labels(start, steps):
        made = pipeline.training(opened(f"tfds:{name}", keep=0).training, batch_size=1, seed=1, start=start)
        return [(image.tobytes(), int(label[0])) for image, label in made.take(steps).as_numpy_iterator()]

    assert labels(50, 6) == labels(47, 9)[3:]


def test_validation_is_cut_by_the_seed(opened):
    first, again, other = (
        {image.tobytes() for (image,) in opened("tfds:small_shapes", "images", seed).validation} for seed in (0, 0, 1)
    )
    assert first == again != other


def test_secret_labels_are_not_judged_by(opened):
    source = opened("tfds:secret_shapes")
    assert [len(part) for part in (source.training, source.validation, source.held_out)] == [32, 4, 4]
    assert all(label >= 0 for _, label in source.held_out)
    images = [image.tobytes() for image, _ in itertools.chain(source.training, source.validation, source.held_out)]
    assert len(set(images)) == 40  # no example is in two parts


def test_labels_of_no_class_are_refused_at_once(folder, opened):
    make(folder, "array_record", "hidden_shapes", secret=("train",))
    assert "labels must be 0 to 2, the numbers of its 3 classes. Received: -1" in refusal(opened, "tfds:hidden_shapes")
    assert len(opened("tfds:hidden_shapes", "images").training) == 36


def test_masks_whose_values_are_said(opened):
    source = opened("tfds:small_shapes,foreground=1+3", "masks", image_shape=(8, 7, 3))
    of = {picture(n).tobytes(): n for n in range(1000, 1006)}
    for i in range(6):
        pair = source.held_out.pairs[i]
        n = of[pair.image.tobytes()]
        np.testing.assert_array_equal(pair.mask, mask(n)[..., 0] != 2)
        if n % 3 == 0:  # 8x7: as it is
            image, binary = source.held_out[i]
            np.testing.assert_allclose(image, picture(n) / 255, atol=1e-6)
            np.testing.assert_array_equal(binary, mask(n) != 2)
    source = opened("tfds:small_shapes,first=1", "masks", image_shape=(8, 7, 3), classes=3)
    assert set(np.unique(source.training[0][1])) == {0, 1, 2}
    made = next(iter(pipeline.training(source.training, batch_size=4, seed=0)))
    assert made[0].shape == (4, 8, 7, 3) and set(np.unique(made[1])) == {0, 1, 2}


def test_masks_whose_values_are_not_guessed(opened):
    wanted = {"image_shape": (8, 8, 3)}
    assert "mask values must be 0 and 1, or 0 and 255. Received: 1, 2, 3" in refusal(
        opened, "tfds:small_shapes", "masks", **wanted
    )
    assert "mask values must be 2 or more. Received: 1" in refusal(
        opened, "tfds:small_shapes,first=2", "masks", **wanted
    )


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("tfds:huggingface:mnist", "classes", "--data tfds:huggingface:mnist cannot be read. Accepted: tfds:NAME"),
        ("tfds:../../etc", "classes", "cannot be read"),
        ("tfds:small_shapes,foreground=1", "classes", "cannot be read"),
        ("tfds:small_shapes,foreground=1+", "masks", ",foreground=1 or ,foreground=1+3: the values"),
        ("tfds:mnits", "classes", "knows no mnits, and there is none in"),
        ("tfds:mnits", "classes", "Did you mean tfds:mnist?"),
        ("tfds:two_pictures", "classes", "must have one feature Image. Received: image, other, of image, label,"),
    ],
)
def test_refusals(opened, text, kind, message):
    assert message in refusal(opened, text, kind, image_shape=(8, 8, 3))


def test_several_workers_download_once(tmp_path, monkeypatch):
    new = builder_of(tmp_path, "array_record")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: new())
    prepared = []
    real = tfds.core.DatasetBuilder.download_and_prepare

    def slow(self, **options):
        prepared.append(options)
        time.sleep(0.3)
        real(self, **options)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", slow)
    with ThreadPoolExecutor(3) as pool:
        sources = list(pool.map(lambda _: tfzoo.data.open("tfds:small_shapes", "images", seed=0), range(3)))
    assert [len(source.training) for source in sources] == [36] * 3
    assert prepared == [{"file_format": "array_record"}]


def test_without_a_network_it_says_what_to_do(opened, folder, monkeypatch):
    tries = []

    def no_network(*_, **__):
        tries.append(downloader.MAX_RETRIES)
        raise ConnectionError("no network")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    message = refusal(opened, "tfds:mnist")
    assert f"tfds:mnist is not in {folder} and cannot be downloaded: no network" in message
    assert "tfds build mnist --file_format=array_record --data_dir=FOLDER" in message
    assert tries == [4] and downloader.MAX_RETRIES == 10
    assert f"copy FOLDER/mnist to {folder}/mnist, or give another --data" in message


def test_without_the_extra(monkeypatch):
    import builtins

    real = builtins.__import__

    def fails(name, *rest):
        if name == "tensorflow_datasets":
            raise ImportError("No module named 'tensorflow_datasets'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(ValueError, match=r"needs the extra tfds: pip install 'tfzoo\[tfds\]'"):
        tfds_sets.prepared("mnist")


def test_a_classifier_is_trained_and_judged(opened, tmp_path):
    few = {
        "epochs": 1,
        "steps_per_epoch": 2,
        "batch_size": 4,
        "settings": {"image_shape": (16, 16, 3)},
    }
    train.train("vit", tmp_path / "run", size="tiny", data="tfds:small_shapes", **few)
    assert json.loads((tmp_path / "run" / "options.json").read_text())["classes"] == ["ant", "bee", "cat"]
    assert 0 <= evaluate.evaluate(tmp_path / "run", tmp_path / "run")["top1"] <= 1
