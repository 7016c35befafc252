"""What is drawn has the distribution that it should, what is done with it is NumPy's result, and keys decide it all."""

import functools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image

from tfzoo.data import augmentation

MANY = 600
rng = np.random.default_rng(0)
PICTURE = rng.random((6, 9, 3), np.float32)


@functools.cache
def keys(count=MANY):
    return augmentation.key(7, 1, tf.range(count))


def drawn(one, count=MANY):
    """Apply to the keys of many examples."""
    return np.stack(tf.function(lambda some: tf.map_fn(one, some, fn_output_signature=tf.float32))(keys(count)))


def test_keys_are_functions_of_seed_epoch_and_number_and_all_differ():
    made = {
        int(augmentation.key(seed, tf.constant(epoch), tf.constant(number)))
        for seed in (0, 1, 2**32 - 1)
        for epoch in range(3)
        for number in range(9)
    }
    assert len(made) == 81
    key = augmentation.key(5, 2, 3)
    np.testing.assert_array_equal(key, augmentation.key(5, 2, 3))
    parts = [int(augmentation.part(key, purpose)) for purpose in ("a", "b", "a")]
    assert parts[0] == parts[2] != parts[1]


def test_bits_are_those_of_splitmix64():
    # The first of seed 1234567 by the authors' generator, https://prng.di.unimi.it/splitmix64.c
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    made = augmentation.bits(tf.constant(1234567, tf.uint64), (4,))
    np.testing.assert_array_equal(made, np.array(expected, np.uint64))


CHANGES = {
    "flip": augmentation.flip,
    "pad_and_crop": augmentation.pad_and_crop,
    "random_crop": lambda key, image: augmentation.random_crop(key, image, (4, 5)),
    "random_resized_crop": lambda key, image: augmentation.random_resized_crop(key, image, (4, 5)),
    "jitter": lambda key, image: augmentation.jitter(key, image, hue=0.1),
    "mixup": lambda key, image: augmentation.mixup(key, (image, image[0, 0]), (image[::-1], image[1, 1]))[0],
    "cutmix": lambda key, image: augmentation.cutmix(key, (image, image[0, 0]), (image[::-1], image[1, 1]))[0],
    "centre_crop": lambda key, image: augmentation.centre_crop(image, (3, 4)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_batch_at_once_is_one_after_the_other(change):
    images = np.random.default_rng(3).random((20, 6, 9, 3), np.float32)
    made = tf.function(tf.vectorized_map)(lambda some: change(*some), (keys(20), images))
    for key, image, found in zip(keys(20), images, made, strict=True):
        np.testing.assert_allclose(found, change(key, tf.constant(image)), atol=1e-6)


def test_draws_are_uniform_and_independent():
    one, other = (drawn(lambda key, purpose=purpose: augmentation.uniform(key, purpose)) for purpose in "ab")
    assert scipy.stats.kstest(one, "uniform").pvalue > 1e-3
    several = drawn(lambda key: augmentation.uniform(key, "a", -1, 3, (2, 2)))
    assert scipy.stats.kstest(several.ravel(), scipy.stats.uniform(-1, 4).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(several.reshape(-1, 4).T) - np.eye(4)).max() < 4 / np.sqrt(MANY)
    met = np.bincount(drawn(lambda key: tf.cast(augmentation.integers(key, "a", 5), tf.float32)).astype(int))
    assert len(met) == 5 and np.sum((met - MANY / 5) ** 2 / (MANY / 5)) < 18.5  # chi-square of 4: 99.9%
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(MANY)
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 4 / np.sqrt(MANY)


def test_a_picture_is_coloured_if_one_pixel_is():
    grey = np.repeat(PICTURE[..., :1], 3, -1)
    several = [grey, *(grey.copy() for _ in range(3))]
    for channel in range(3):
        several[channel + 1][2, 3, channel] += 0.1
    assert [bool(augmentation.coloured(image)) for image in several] == [False, True, True, True]
    assert tf.vectorized_map(augmentation.coloured, np.stack(several)).numpy().tolist() == [False, True, True, True]


def test_flip():
    mirrored = 0
    for key in keys(40):
        made = augmentation.flip(key, PICTURE)
        np.testing.assert_array_equal(augmentation.flip(key, PICTURE[..., :1]), made[..., :1])  # as its partner
        assert np.array_equal(made, PICTURE) or np.array_equal(made, PICTURE[:, ::-1])
        mirrored += not np.array_equal(made, PICTURE)
    assert 8 < mirrored < 32


def test_pad_and_crop_shifts_each_way_as_often():
    ramp = np.arange(1, 55, dtype=np.float32).reshape(6, 9, 1)
    padded = np.pad(ramp, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[y : y + 6, x : x + 9].tobytes(): (y, x) for y in range(5) for x in range(5)}
    made = drawn(lambda key: augmentation.pad_and_crop(key, ramp, 2))
    met = np.zeros((5, 5))
    for picture in made:
        met[windows[picture.tobytes()]] += 1
    assert np.sum((met - MANY / 25) ** 2 / (MANY / 25)) < 51.2  # chi-square of 24 degrees of freedom: 99.9%


def test_random_crop_is_any_window():
    ramp = np.arange(30, dtype=np.float32).reshape(5, 6, 1)
    made = drawn(lambda key: augmentation.random_crop(key, ramp, (3, 4)))
    for picture in made[:50]:
        y, x = divmod(int(picture[0, 0, 0]), 6)
        np.testing.assert_array_equal(picture, ramp[y : y + 3, x : x + 4])
    met = np.bincount(made[:, 0, 0, 0].astype(int), minlength=30)
    assert np.count_nonzero(met) == 9 and met.max() < 1.6 * MANY / 9
    whole = augmentation.random_crop(keys(1)[0], ramp, (5, 6))
    np.testing.assert_array_equal(whole, ramp)


def test_random_resized_crop_cuts_the_areas_and_shapes_that_it_should():
    height, width = 200, 320
    y, x = np.mgrid[:height, :width]
    picture = np.stack([y, x], -1).astype(np.float32)
    made = drawn(lambda key: augmentation.random_resized_crop(key, picture, (8, 8), (0.1, 0.4), (0.5, 1.5)))
    # Neighbouring pixels of the result are the window's side / 8 apart; the middle ones are not at a border.
    h, w = 8 * (made[:, 4, 4, 0] - made[:, 3, 4, 0]), 8 * (made[:, 4, 4, 1] - made[:, 4, 3, 1])
    areas, ratios = h * w / (height * width), w / h
    assert areas.min() > 0.097 and areas.max() < 0.403  # sides are whole pixels
    assert ratios.min() > 0.49 and ratios.max() < 1.53
    assert scipy.stats.kstest(areas, scipy.stats.uniform(0.1, 0.3).cdf).pvalue > 1e-3  # all of them fit
    logs = scipy.stats.uniform(np.log(0.5), np.log(3))
    assert scipy.stats.kstest(np.log(ratios), logs.cdf).pvalue > 1e-3
    top = made[:, 3:5, 4, 0].mean(1) - h / 2 + 0.5
    assert top.min() > -1 and (top + h).max() < height + 1
    assert scipy.stats.kstest(top / (height - h), "uniform").pvalue > 1e-3


def test_random_resized_crop_takes_the_middle_where_nothing_fits():
    picture = np.zeros((4, 100, 1), np.float32)
    picture[:, 47:52] = 1  # 4 x 4/3 = 5.3: five columns, from (100 - 5 + 1) / 2 = 48 - 1 on: 47.5, floored
    made = augmentation.random_resized_crop(keys(1)[0], picture, (4, 5), (0.9, 1.0))
    np.testing.assert_allclose(made[..., 0].numpy().mean(), 1, atol=0.21)
    picture = np.zeros((100, 4, 1), np.float32)
    assert augmentation.random_resized_crop(keys(1)[0], picture, (5, 4), (0.9, 1.0)).shape == (5, 4, 1)


@pytest.mark.parametrize(("height", "width"), [(20, 33), (33, 20), (7, 7), (64, 16)])
def test_centre_crop_is_pillows(height, width):
    values = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    scale = min(height / 16, width / 12)
    h, w = min(max(round(scale * 16), 1), height), min(max(round(scale * 12), 1), width)
    top, left = (height - h) // 2, (width - w) // 2
    cut = Image.fromarray(values[top : top + h, left : left + w])
    expected = np.asarray(cut.resize((12, 16), Image.Resampling.BILINEAR), np.float32) / 255
    made = augmentation.centre_crop(augmentation.in_unit_range(tf.constant(values)), (16, 12))
    np.testing.assert_allclose(made, expected, atol=1.01 / 255)  # Pillow rounds to 8 bits


def test_centre_crop_of_a_share():
    picture = np.arange(100, dtype=np.float32).reshape(10, 10, 1)
    np.testing.assert_array_equal(augmentation.centre_crop(picture, (6, 6), 0.6), picture[2:8, 2:8])


def test_channels():
    values = np.random.default_rng(2).random((4, 5, 3), np.float32)
    grey = augmentation.in_channels(tf.constant(values), 1)
    np.testing.assert_allclose(
        grey[..., 0], values @ [0.299, 0.587, 0.114], atol=2e-4
    )  # TensorFlow's .2989 .5870 .1140
    np.testing.assert_array_equal(augmentation.in_channels(grey, 3), np.repeat(grey, 3, -1))
    assert augmentation.in_channels(grey, 1) is grey
    whole = augmentation.in_unit_range(tf.constant([[[0], [255], [51]]], tf.uint8))
    np.testing.assert_allclose(whole[0, :, 0], [0, 1, 0.2])


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter(channels):
    key, luminance = keys(1)[0], np.array([0.2989, 0.587, 0.114])
    image = PICTURE[..., :channels]
    factors = [augmentation.uniform(key, name, 0.7, 1.3).numpy() for name in ("brightness", "contrast", "saturation")]
    expected = np.clip(image * factors[0], 0, 1)
    mean = (expected @ luminance).mean() if channels == 3 else expected.mean()
    expected = np.clip(mean + (expected - mean) * factors[1], 0, 1)
    if channels == 3:
        grey = (expected @ luminance)[..., None]
        expected = np.clip(grey + (expected - grey) * factors[2], 0, 1)
    made = augmentation.jitter(key, tf.constant(image), 0.3, 0.3, 0.3)
    np.testing.assert_allclose(made, expected, atol=1e-5)
    turned = augmentation.jitter(key, tf.constant(image), 0, 0, 0, hue=0.2)
    if channels == 1:
        np.testing.assert_allclose(turned, image, atol=1e-6)
    else:  # the largest and the smallest channel stay what they are
        np.testing.assert_allclose(turned.numpy().max(-1), image.max(-1), atol=1e-5)
        np.testing.assert_allclose(turned.numpy().min(-1), image.min(-1), atol=1e-5)
        assert np.abs(turned - image).max() > 0.01


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta(alpha):
    shares = drawn(lambda key: augmentation.beta(key, alpha))
    assert np.isfinite(shares).all()
    # Of a small alpha many shares are within float32's rounding of 0 or 1: compared where they are not.
    for point in (0.001, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999):
        expected = scipy.stats.beta(alpha, alpha).cdf(point)
        assert abs((shares <= point).mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / MANY) + 2 / MANY


def pair():
    one = tf.zeros((8, 10, 2)), tf.one_hot(0, 3)
    other = tf.ones((8, 10, 2)), tf.one_hot(2, 3)
    return one, other


def test_mixup():
    one, other = (PICTURE, np.float32([1, 0])), (PICTURE[::-1], np.float32([0, 1]))
    for key in keys(5):
        share = augmentation.beta(key, 0.4).numpy()
        image, label = augmentation.mixup(key, one, other, 0.4)
        np.testing.assert_allclose(image, share * one[0] + (1 - share) * other[0], atol=1e-6)
        np.testing.assert_allclose(label, [share, 1 - share], atol=1e-6)


def test_cutmix_pastes_a_box_and_counts_its_pixels():
    pasted, wanted = [], []
    for key in keys(100):
        image, label = (part.numpy() for part in augmentation.cutmix(key, *pair(), 1.0))
        inside = image[..., 0] == 1
        rows, columns = inside.any(1), inside.any(0)
        np.testing.assert_array_equal(inside, rows[:, None] & columns)  # a box
        assert np.abs(np.diff(rows.astype(int))).sum() <= 2 and np.abs(np.diff(columns.astype(int))).sum() <= 2
        np.testing.assert_allclose(label, [1 - inside.mean(), 0, inside.mean()], atol=1e-6)
        np.testing.assert_array_equal(image[..., 1], image[..., 0])
        pasted.append(inside.mean())
        wanted.append(1 - augmentation.beta(key, 1.0).numpy())
    assert (np.array(pasted) < np.array(wanted) + 0.15).all()  # only the edge takes some of it away
    # E(box in one direction) of side s in [0, 1], centred anywhere: s - s^2/4; squared, and averaged over s = sqrt(u).
    u = (np.arange(100_000) + 0.5) / 100_000
    assert np.mean(pasted) == pytest.approx(np.mean((np.sqrt(u) - u / 4) ** 2), abs=0.06)
