"""One pair of numbers for all channels, or a row for each, as torchvision normalises."""

import numpy as np
import pytest
import tensorflow as tf

from tfzoo.data.black_and_white import scaled, shown, text, wrong

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # of torchvision's weights
IMAGENET = (tuple(-MEAN / STD), tuple((1 - MEAN) / STD))


@pytest.mark.parametrize("kind", [np.asarray, tf.constant])
def test_a_mean_and_a_standard_deviation(kind):
    image = np.random.default_rng(0).random((2, 5, 4, 3), "float32")
    np.testing.assert_allclose(scaled(kind(image), IMAGENET), (image - MEAN) / STD, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        scaled(kind(image), (-1.0, (1.0, 2.0, 3.0))), -1 + image * [2, 3, 4], rtol=1e-5, atol=1e-6
    )
    for values in (IMAGENET, (0.0, 1.0), (1.0, -1.0)):
        np.testing.assert_allclose(shown(np.asarray(scaled(kind(image), values)), values), image, atol=1e-6)


def test_what_is_drawn_is_cut_off():
    np.testing.assert_array_equal(shown(np.float32([-3, -1, 0, 1, 3]), (-1.0, 1.0)), [0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("values", "channels"),
    [
        ((1.0, 1.0), 3),
        (((0.0, 1.0), (1.0, 2.0)), 3),
        (((0.0, 1.0, 2.0), (1.0, 2.0, 2.0)), 3),
        (IMAGENET, 1),
        ((0.0, float("nan")), 1),
        ((0.0, 1.0, 2.0), 3),
        ((0.0, 1e39), 3),
        (None, 3),
        ("ab", 3),
        ((0.0, ((0.0, 1.0),)), 1),
    ],
)
def test_refusals(values, channels):
    assert f"one for each channel ({channels} here). Received: " in wrong(values, channels)


def test_what_is_accepted():
    assert wrong(IMAGENET, 3) is None and wrong((-1.0, 1.0), 1) is None and wrong((0.0, (1.0, 2.0, 3.0)), 3) is None


def test_as_text():
    assert text((-1.0, 1.0)) == "-1 and 1" and text(((0.0, 0.5), 1.0)) == "0,0.5 and 1"
