"""scikit-learn's digits: all of them, split as zoo.md's baselines are."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfzoo.data
from tfzoo.data import augmentation, pipeline


def test_the_held_out_fifth_is_that_of_the_baselines():
    x, y = load_digits(return_X_y=True)
    _, held_out, _, labels = train_test_split(x, y, test_size=0.2, stratify=y, random_state=0)
    source = tfzoo.data.open("digits", "classes", seed=5)
    pictures, numbers = source.held_out.arrays
    np.testing.assert_array_equal(np.round(pictures.reshape(-1, 64) / 255 * 16), held_out)
    np.testing.assert_array_equal(numbers, labels)
    assert pictures.dtype == np.uint8 and pictures.max() == 255 and numbers.dtype == np.int64


def test_every_digit_is_in_one_part():
    source = tfzoo.data.open("digits", "classes", seed=0)
    parts = (source.training, source.validation, source.held_out)
    assert [len(part) for part in parts] == [1257, 180, 360]
    whole = load_digits().images
    rows = np.concatenate([part.arrays[0].reshape(-1, 64) for part in parts])
    expected = np.round(whole.reshape(-1, 64) * 255 / 16)
    np.testing.assert_array_equal(np.sort(rows.astype(int) @ np.arange(1, 65)), np.sort(expected @ np.arange(1, 65)))
    for part in parts:
        assert np.ptp(np.bincount(part.arrays[1])) <= 0.06 * len(part)


def test_pictures_alone():
    source = tfzoo.data.open("digits", "images", seed=0)
    assert len(source.training[0]) == 1 and source.classes is None
    with pytest.raises(IndexError):
        source.training[1257]


def test_a_model_learns_them_through_the_whole_pipeline_and_goes_on_bit_for_bit():
    def augment(key, image, label):
        image = augmentation.pad_and_crop(key, augmentation.in_unit_range(image), 1)
        return image, tf.one_hot(label, 10)

    def prepare(image, label):
        return augmentation.in_unit_range(image), tf.one_hot(label, 10)

    def data(start=0):
        source = tfzoo.data.open("digits", "classes", seed=0)
        how = {"augment": augment, "mix": augmentation.mixup, "prepare": prepare}
        return pipeline.datasets(source, batch_size=64, seed=0, start=start, **how)

    def model():
        keras.utils.set_random_seed(0)
        layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(64, "relu")]
        made = keras.Sequential([*layers, keras.layers.Dense(10, "softmax")])
        made.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy", metrics=["accuracy"])
        return made

    def fit(model, steps, start=0):
        model.fit(data(start).training, steps_per_epoch=steps, verbose=0, shuffle=False)

    whole, halves = model(), model()
    fit(whole, 200)
    fit(halves, 110)
    fit(halves, 90, start=110)
    for one, other in zip(whole.get_weights(), halves.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.evaluate(data().held_out, verbose=0, return_dict=True)["accuracy"] > 0.7
