"""The folder of images and masks as a source; tests/tfzoo/data/test_image_folder.py has what it does with them."""

import numpy as np
import pytest
from PIL import Image

import tfzoo.data
from tfzoo.data import image_folder, pipeline


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(7):
        for name, shape, high in (("images", (20, 30, 3), 255), ("masks", (20, 30), 2)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, high, shape, np.uint8)).save(tmp_path / name / f"{n}.png")
    return str(tmp_path)


def test_it_is_the_image_folder(folder):
    source = tfzoo.data.open(folder, "masks", seed=3, image_shape=(8, 8, 3))
    made = pipeline.datasets(source, batch_size=4, seed=3, start=2)
    expected = image_folder.datasets(folder, (8, 8, 3), batch_size=4, seed=3, start=2)
    assert made.description == expected[-1]
    for some, others in zip((made.training, made.validation, made.held_out), expected[:-1], strict=True):
        for a, b in zip(next(some.as_numpy_iterator()), next(others.as_numpy_iterator()), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_kept_is_what_would_be_read(folder):
    kept, read = (
        tfzoo.data.open(folder, "masks", seed=0, image_shape=(8, 8, 3), keep=keep) for keep in (21_000, 20_999)
    )
    assert kept.training.keep and not read.training.keep  # 7 pictures of 600 pixels, five bytes each
    for _ in range(2):
        for a, b in zip(kept.training.at(1, 2), read.training.at(1, 2), strict=True):
            np.testing.assert_array_equal(a, b)
    assert sum(len(pair.kept) for pair in kept.training.pairs) == 1
    assert not any(pair.kept for pair in read.training.pairs)
