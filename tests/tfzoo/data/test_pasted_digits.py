"""Pasted digits: exact masks, splits that share nothing, and pictures that are functions of their arguments."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from tfzoo.data import pasted_digits

SHAPE = (128, 128, 3)
SPLITS = list(pasted_digits.PHOTOGRAPHS)


def pictures(split, count, shape=SHAPE, seed=0):
    return [pasted_digits.picture(split, shape, seed, 0, i) for i in range(count)]


@pytest.mark.parametrize("split", SPLITS)
def test_mask_is_where_the_picture_differs_from_its_background(split):
    for i in range(60):
        made = pasted_digits.picture(split, SHAPE, 0, 0, i)
        changed = (made.image != pasted_digits.background(split, SHAPE, 0, 0, i)).any(-1, keepdims=True)
        np.testing.assert_array_equal(made.mask, changed)


@pytest.mark.parametrize("shape", [SHAPE, (32, 32, 3), (64, 160, 3)])
def test_boxes_are_tight_disjoint_and_hold_all_of_the_mask(shape):
    for made in pictures("training", 100, shape):
        digits = np.zeros(shape[:2], int)  # in how many boxes a pixel is
        for top, left, bottom, right in made.boxes:
            inside = made.mask[top:bottom, left:right, 0]
            assert inside.any(1)[[0, -1]].all() and inside.any(0)[[0, -1]].all()
            digits[top:bottom, left:right] += 1
        assert digits.max() == 1
        assert digits[made.mask[..., 0] > 0].all()
        assert 1 <= len(made.boxes) == len(made.classes) <= 5


@pytest.mark.parametrize("split", SPLITS)
def test_every_pixel_of_a_digit_contrasts_with_its_surroundings(split):
    margin, luminance = pasted_digits.MARGIN, np.array([0.299, 0.587, 0.114])
    least = 1
    for i in range(100):
        made = pasted_digits.picture(split, SHAPE, 0, 0, i)
        before = pasted_digits.background(split, SHAPE, 0, 0, i) @ luminance
        after = made.image @ luminance
        for top, left, bottom, right in made.boxes:
            around = before[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin].mean()
            digit = after[top:bottom, left:right][made.mask[top:bottom, left:right, 0] > 0]
            least = min(least, abs(digit - around).min())
            assert (digit > around).all() or (digit < around).all()
    assert pasted_digits.CONTRAST - 1e-3 < least < pasted_digits.CONTRAST + 0.05


def test_classes_are_those_of_the_digits_drawn(monkeypatch):
    drawn = np.zeros((2, 12, 12), np.uint8)
    drawn[0, 4:8, 6] = 255  # a short bar, class 1: at most 240 pixels at any size
    drawn[1, 2:10, 2:10] = 255  # a square, class 9: at least 600
    monkeypatch.setattr(pasted_digits, "handwriting", lambda split: (drawn, np.array([1, 9])))
    seen = set()
    for made in pictures("training", 30):
        for (top, left, bottom, right), label in zip(made.boxes, made.classes, strict=True):
            assert label == (1 if made.mask[top:bottom, left:right].sum() < 400 else 9)
            seen.add(int(label))
    assert seen == {1, 9}


def test_splits_share_neither_photograph_nor_digit():
    photographs = [name for names in pasted_digits.PHOTOGRAPHS.values() for name in names]
    assert len(set(photographs)) == len(photographs) == 17
    contents = [copies[0].tobytes() for split in SPLITS for copies in pasted_digits.photographs(split)]
    assert len(set(contents)) == 17
    digits = {split: {digit.tobytes() for digit in pasted_digits.handwriting(split)[0]} for split in SPLITS}
    sizes = {split: len(pasted_digits.handwriting(split)[0]) for split in SPLITS}
    assert sizes == {"training": 1257, "validation": 180, "held_out": 360}
    assert not digits["held_out"] & (digits["training"] | digits["validation"])
    assert not digits["validation"] & digits["training"]
    assert all(set(pasted_digits.handwriting(split)[1]) == set(range(10)) for split in SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_picture_is_a_function_of_its_arguments(split):
    first = pasted_digits.picture(split, SHAPE, 3, 1, 2)
    pasted_digits.picture(split, SHAPE, 0, 0, 0)
    again = pasted_digits.picture(split, SHAPE, 3, 1, 2)
    for name in ("image", "mask", "boxes", "classes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    for other in ((4, 1, 2), (3, 2, 2), (3, 1, 3)):
        assert not np.array_equal(first.image, pasted_digits.picture(split, SHAPE, *other).image)


def test_only_training_photographs_are_augmented(monkeypatch):
    monkeypatch.setattr(pasted_digits, "augment", lambda window, other, rng: 0 * np.float32(window))
    assert pasted_digits.background("training", SHAPE, 0, 0, 0).max() == 0
    assert pasted_digits.background("validation", SHAPE, 0, 0, 0).max() > 0
    assert pasted_digits.background("held_out", SHAPE, 0, 0, 0).max() > 0


def test_crops_are_upright_windows_in_the_photographs_colours(monkeypatch):
    y, x = np.mgrid[0:400, 0:600]
    slopes = np.stack([x * 255 / 599, y * 255 / 399, 0 * x + 51], -1).astype(np.uint8)
    monkeypatch.setattr(pasted_digits, "photographs", lambda split: [[Image.fromarray(slopes)]])
    seen, corners = set(), []
    for i in range(40):
        red, green, blue = np.moveaxis(pasted_digits.background("held_out", SHAPE, 0, 0, i), -1, 0)
        assert (np.diff(green, axis=0) >= 0).all() and green[-1].min() > green[0].max()
        steps = np.diff(red, axis=1)
        assert (steps >= 0).all() or (steps <= 0).all()
        np.testing.assert_allclose(blue, 0.2, atol=1e-6)
        # As wide as high in the photograph's pixels, too.
        np.testing.assert_allclose(np.ptp(red) * 599, np.ptp(green) * 399, atol=8)
        seen.add(bool(red[0, 0] < red[0, -1]))
        corners.append((green.min(), np.ptp(green)))
    assert seen == {True, False}
    assert (np.std(corners, axis=0) > 0.05).all()


def test_training_pictures_are_in_range_and_varied():
    made = np.stack([picture.image for picture in pictures("training", 60)])
    assert made.dtype == np.float32
    assert made.min() >= 0 and made.max() <= 1
    colours = made.mean((1, 2))  # (60, 3)
    assert (colours.std(0) > 0.1).all()


def test_dataset_streams_the_pictures_in_order_epoch_after_epoch(monkeypatch):
    monkeypatch.setattr(pasted_digits, "EPOCH", 3)
    stream = pasted_digits.dataset("training", (64, 32, 3), batch_size=2, seed=5).as_numpy_iterator()
    images, masks = (np.concatenate(part) for part in zip(*(next(stream) for _ in range(3)), strict=True))
    assert images.dtype == masks.dtype == np.float32
    for n, (image, mask) in enumerate(zip(images, masks, strict=True)):
        made = pasted_digits.picture("training", (64, 32, 3), 5, n // 3, n % 3)
        np.testing.assert_array_equal(image, made.image)
        np.testing.assert_array_equal(mask, made.mask)


def test_finite_dataset_ends_and_knows_its_shapes():
    held_out = pasted_digits.dataset("held_out", (32, 64, 3), batch_size=4, seed=0, pictures=6)
    assert [tuple(spec.shape) for spec in held_out.element_spec] == [(None, 32, 64, 3), (None, 32, 64, 1)]
    assert [len(images) for images, _ in held_out.as_numpy_iterator()] == [4, 2]


def test_pictures_are_made_while_a_training_step_runs(monkeypatch):
    make, made, ahead = pasted_digits.picture, [], threading.Event()

    def watched(*arguments):
        made.append(arguments)
        if len(made) == 10:  # four more batches than the one that was asked for
            ahead.set()
        return make(*arguments)

    monkeypatch.setattr(pasted_digits, "picture", watched)
    stream = pasted_digits.dataset("training", (32, 32, 3), batch_size=2, seed=0).as_numpy_iterator()
    next(stream)
    assert ahead.wait(60)  # nobody asks meanwhile; it takes milliseconds


def test_a_batch_costs_far_less_than_a_training_step():
    stream = pasted_digits.dataset("training", SHAPE, batch_size=8, seed=0).as_numpy_iterator()
    next(stream)
    started = time.process_time()
    for _ in range(20):
        next(stream)
    # The step takes about 155 ms of two cores, 310 ms of processor time; measured here: 25.
    assert (time.process_time() - started) / 20 < 0.1


@pytest.mark.parametrize(
    ("split", "shape", "messages"),
    [
        ("test", (128, 128), ["training, validation, held_out. Received: split='test'", r"Received: .*\(128, 128\)"]),
        ("training", (None, None, 3), ["fixed size.*at least 32x32"]),
        ("training", (16, 128, 3), ["at least 32x32"]),
        ("training", (128, 128, 1), [r"\(height, width, 3\)"]),
    ],
)
def test_refusals(split, shape, messages):
    with pytest.raises(ValueError) as error:
        pasted_digits.dataset(split, shape, batch_size=1, seed=0)
    for message in messages:
        error.match(message)
