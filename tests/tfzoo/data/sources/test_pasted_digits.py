"""The stream of `tfzoo.data.pasted_digits`, bit for bit, as a source."""

import numpy as np
import pytest

import tfzoo.data
from tfzoo.data import pasted_digits, pipeline

SHAPE = (32, 64, 3)


def test_the_pictures_are_those_of_pasted_digits():
    pictures = {"validation": 5, "held_out": 3}
    source = tfzoo.data.open("pasted_digits", "masks", seed=7, image_shape=SHAPE, pictures=pictures)
    made = pipeline.datasets(
        source, batch_size=4, seed=7, start=249
    )  # the epoch's last batch, and the next one's first
    given = [made.training.take(2), made.validation, made.held_out]
    whole = {
        split: pasted_digits.dataset(split, SHAPE, batch_size=4, seed=0, pictures=n) for split, n in pictures.items()
    }
    expected = [pasted_digits.dataset("training", SHAPE, batch_size=4, seed=7, start=249).take(2), *whole.values()]
    for some, others in zip(given, expected, strict=True):
        assert some.element_spec == others.element_spec
        for one, other in zip(some.as_numpy_iterator(), others.as_numpy_iterator(), strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_beyond_the_end_are_no_pictures():
    pictures = {"validation": 1002, "held_out": 3}  # more than an epoch has
    source = tfzoo.data.open("pasted_digits", "masks", seed=0, image_shape=SHAPE, pictures=pictures)
    for part in (source.training, source.validation, source.held_out):
        for i in (-1, len(part)):
            with pytest.raises(IndexError):
                part[i]
    np.testing.assert_array_equal(source.validation[1001][0], source.validation.at(1, 1)[0])
    assert source.training.at(3, 5)[0].shape == SHAPE


def test_sizes_that_digits_do_not_fit_in():
    with pytest.raises(ValueError, match="at least 32x32"):
        tfzoo.data.open("pasted_digits", "masks", seed=0, image_shape=(16, 16, 3))
