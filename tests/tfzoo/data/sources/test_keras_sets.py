"""The sets of `keras.datasets`, with files of their formats written here: nothing is downloaded."""

import gzip
import struct
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras.src.backend import config
from keras.src.utils import file_utils

import tfzoo.data
from apps import evaluate, train
from tfzoo.data.sources import keras_sets


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Keras' folder, empty, on a machine without a network."""

    def no_network(*_):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(config, "_KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", no_network)
    return tmp_path


def test_fashion_mnist_as_it_is_published(home):
    """IDX: a head of 16 bytes for pictures and 8 for labels, then the values (http://yann.lecun.com/exdb/mnist)."""
    rng = np.random.default_rng(0)
    pictures, labels = {}, {}
    folder = home / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    for part, count in (("train", 200), ("t10k", 30)):
        pictures[part], labels[part] = rng.integers(0, 255, (count, 28, 28), np.uint8), np.arange(count) % 10
        head = struct.pack(">4i", 2051, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pictures[part].tobytes()))
        head = struct.pack(">2i", 2049, count)
        content = labels[part].astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(head + content))
    source = tfzoo.data.open("keras:fashion_mnist", "classes", seed=0)
    np.testing.assert_array_equal(source.held_out.arrays[0][..., 0], pictures["t10k"])
    np.testing.assert_array_equal(source.held_out.arrays[1], labels["t10k"])
    assert source.held_out.arrays[1].dtype == np.int64
    assert source.classes[9] == "ankle_boot" and len(source.classes) == 10
    assert source.description == "keras:fashion_mnist: 180 pictures to train on, 20 for validation, 30 held out"
    both = [source.training, source.validation]
    assert {part[i][0].tobytes() for part in both for i in range(len(part))} == {p.tobytes() for p in pictures["train"]}
    np.testing.assert_array_equal(np.bincount(source.validation.arrays[1]), np.full(10, 2))
    other = tfzoo.data.open("keras:fashion_mnist", "images", seed=1)
    assert len(other.training[0]) == 1 and other.classes is None
    assert not np.array_equal(other.validation.arrays[0], source.validation.arrays[0])


@pytest.mark.parametrize(("name", "count"), [("mnist", 10), ("fashion_mnist", 10), ("cifar10", 10), ("cifar100", 100)])
def test_every_class_has_a_name(name, count, monkeypatch):
    shape = (28, 28) if "mnist" in name else (32, 32, 3)
    labels = np.arange(3 * count).reshape(-1, 1)[:, : 1 if "cifar" in name else None] % count
    part = np.zeros((3 * count, *shape), np.uint8), labels if "cifar" in name else labels[:, 0]
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda: (part, part))
    source = tfzoo.data.open(f"keras:{name}", "classes", seed=0)
    assert len(source.classes) == len(set(source.classes)) == count
    assert source.training[0][0].shape == (*shape[:2], shape[2] if len(shape) == 3 else 1)
    assert source.training[0][1].shape == ()
    if name == "cifar100":
        assert list(source.classes) == sorted(source.classes)  # as they are numbered


def test_a_classifier_is_trained_and_judged(monkeypatch, tmp_path):
    pictures, labels = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8), np.arange(40)[:, None] % 10
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: ((pictures, labels), (pictures, labels)))
    few = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4}
    train.train("resnet", tmp_path / "run", data="keras:cifar10", **few)
    assert keras.models.load_model(tmp_path / "run" / "model.keras").input_shape == (None, 32, 32, 3)
    figures = evaluate.evaluate(tmp_path / "run", tmp_path / "run")
    assert 0 <= figures["top1"] <= 1 and (tmp_path / "run" / "samples" / "evaluate.png").exists()


@pytest.mark.parametrize("name", keras_sets.FILES)
def test_without_a_network_it_says_what_to_do(home, name):
    with pytest.raises(ValueError) as error:
        tfzoo.data.open(f"keras:{name}", "classes", seed=0)
    message = str(error.value)
    assert message.startswith(f"keras:{name} is not on this machine, or not whole, and cannot be downloaded: ")
    assert "no network" in message and message.endswith("or give another --data.")
    for url, path in keras_sets.FILES[name].items():
        assert f"  {url}\n    as {home / 'datasets' / path}\n" in message


def test_the_files_are_those_that_keras_asks_for(home, monkeypatch):
    """What the message says, against what Keras opens and fetches."""
    asked = {}

    def fetch(url, path, _):
        asked[url] = path
        open(path, "wb").close()

    monkeypatch.setattr(file_utils, "urlretrieve", fetch)
    monkeypatch.setattr(file_utils, "validate_file", lambda *_, **__: True)
    for name, files in keras_sets.FILES.items():
        asked.clear()
        with pytest.raises(ValueError):
            tfzoo.data.open(f"keras:{name}", "classes", seed=0)
        assert asked.items() <= {url: str(home / "datasets" / path) for url, path in files.items()}.items()
        assert asked


def test_several_workers_download_once(home, monkeypatch):
    """Each by itself would write into the file that another one is reading."""
    pictures, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10
    fetched, at_once = [], threading.Semaphore(1)

    def fetch(url, path, _):
        assert at_once.acquire(blocking=False)
        fetched.append(path)
        time.sleep(0.2)
        np.savez(path, x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
        at_once.release()

    monkeypatch.setattr(file_utils, "urlretrieve", fetch)
    monkeypatch.setattr(file_utils, "validate_file", lambda *_, **__: True)
    with ThreadPoolExecutor(3) as pool:
        sources = list(pool.map(lambda _: tfzoo.data.open("keras:mnist", "classes", seed=0), range(3)))
    assert [len(source.held_out) for source in sources] == [20] * 3
    assert fetched == [str(home / "datasets" / "mnist.npz")]


def test_the_folder_is_named_that_keras_falls_back_to(home, monkeypatch):
    asked = []

    def no_network(url, path, _):
        asked.append(path)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(config, "_KERAS_DIR", str(home / "not there"))
    monkeypatch.setattr(file_utils, "urlretrieve", no_network)
    with pytest.raises(ValueError) as error:
        tfzoo.data.open("keras:mnist", "classes", seed=0)
    assert f"    as {asked[0]}\n" in str(error.value) and str(home) not in str(error.value)


def test_a_file_that_is_not_what_it_should_be(home):
    (home / "datasets").mkdir()
    (home / "datasets" / "mnist.npz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="keras:mnist is not on this machine, or not whole"):
        tfzoo.data.open("keras:mnist", "classes", seed=0)
