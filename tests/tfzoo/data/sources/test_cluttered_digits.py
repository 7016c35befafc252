"""Cluttered digits: what is drawn is what is said of it, and every picture is a function of its arguments."""

import math
import zlib

import numpy as np
import pytest

import tfzoo.data
from tfzoo import spatial_transformer as st
from tfzoo.data import pipeline
from tfzoo.data.pasted_digits import handwriting
from tfzoo.data.sources import cluttered_digits

SIZE = (60, 60)


@pytest.fixture(autouse=True)
def nothing_kept():
    """Let a test have digits of its own."""
    yield
    for function in (cluttered_digits.turned, cluttered_digits.draws, cluttered_digits.upright):
        function.cache_clear()


def pictures(split, count, size=SIZE, seed=0, epoch=0):
    return [cluttered_digits.picture(split, size, seed, epoch, i) for i in range(count)]


def wedge(monkeypatch):
    """Let all digits be a wedge, broad above and narrow below, alone in their pictures."""
    drawn = np.zeros((2, 96, 96), np.uint8)
    for row in range(16, 80):
        half = 5 + (80 - row) / 64 * 12
        drawn[:, row, round(48 - half) : round(48 + half)] = 255
    monkeypatch.setattr(cluttered_digits, "handwriting", lambda split: (drawn, np.array([3, 7])))
    monkeypatch.setattr(cluttered_digits, "PIECES", 0)


def direction(image):
    """Give the angle of the ink's narrow end around its middle, from straight down, from x to y; and the middle."""
    rows, columns = np.nonzero(image[..., 0] > 127)
    middle = columns.mean() + 0.5, rows.mean() + 0.5
    away = np.stack([columns + 0.5 - middle[0], rows + 0.5 - middle[1]], -1)
    values, vectors = np.linalg.eigh(away.T @ away)
    axis = vectors[:, values.argmax()]
    axis = axis * np.sign((np.array([away @ axis]) ** 3).sum())  # the long, thin side
    return math.atan2(-axis[0], axis[1]), middle


def test_the_angle_and_the_center_are_those_of_what_is_drawn(monkeypatch):
    wedge(monkeypatch)
    for made in pictures("held_out", 40):
        found, _ = direction(made.image)
        assert abs(found - made.angle) < 0.05
        rows, columns = np.nonzero(made.image[..., 0] > 127)
        # Half of its height above the center, which is the middle of the 8x8 grid, and half below.
        along = (columns + 0.5 - made.center[0]) * -math.sin(made.angle)
        along += (rows + 0.5 - made.center[1]) * math.cos(made.angle)
        assert abs(along.min() + along.max()) < 1.5 and 20 < np.ptp(along) < 27


def test_the_affine_grid_of_its_angle_turns_it_back(monkeypatch):
    wedge(monkeypatch)
    for made in pictures("validation", 10):
        a = made.angle
        x, y = (2 * (n - 0.5) / 59 - 1 for n in made.center)  # a pixel's center is half a pixel from its edge
        theta = np.array([[math.cos(a), -math.sin(a), x, math.sin(a), math.cos(a), y]])
        found = np.array(st.sample(made.image[None] / 255.0, st.affine(theta, SIZE)))[0]
        left, _ = direction(255 * found)
        assert abs(left) < 0.05
        assert abs(made.angle) < 0.2 or abs(left) < abs(made.angle) / 2


@pytest.mark.parametrize("split", cluttered_digits.SPLITS)
def test_angles_are_known_without_the_picture_and_spread(split):
    made = [picture.angle for picture in pictures(split, 100)]
    assert [cluttered_digits.angle(split, i) for i in range(100)] == made
    assert [cluttered_digits.picture(split, (32, 40), 0, 0, i).angle for i in range(5)] == made[:5]
    assert cluttered_digits.angle(split, 3, seed=1, epoch=2) == cluttered_digits.picture(split, SIZE, 1, 2, 3).angle
    low, high = np.degrees([min(made), max(made)])
    assert -60 <= low < -50 and 50 < high <= 60 and abs(np.mean(made)) < 0.25


def test_digits_are_anywhere_and_whole(monkeypatch):
    monkeypatch.setattr(cluttered_digits, "PIECES", 0)
    made = pictures("training", 200)
    inked = np.max([picture.image[..., 0] for picture in made], 0) > 0
    assert inked.any(0).all() and inked.any(1).all() and inked.mean() > 0.85
    digits = handwriting("training")[0]
    least = min(digit[16:80, 16:80].astype(int).sum() for digit in digits) * (24 / 64) ** 2 * 0.9**2
    for picture in made:
        assert picture.image.astype(int).sum() > 0.95 * least  # else a part of it would be outside
        assert all(0 < n < 60 for n in picture.center)


def test_pieces_are_six_pixels_of_other_digits_with_ink_in_them(monkeypatch):
    cut, made = cluttered_digits.pieces, []

    def watched(split, others, *how):
        found = cut(split, others, *how)
        made.extend(enumerate(zip(others, found, strict=True)))
        return found

    monkeypatch.setattr(cluttered_digits, "pieces", watched)
    for first in range(0, 30, 10):
        made.clear()
        images = cluttered_digits.pictures("held_out", SIZE, 0, [0] * 10, range(first, first + 10)).image[..., 0]
        assert len(made) == 10 * 8
        for n, (i, piece) in made:
            image = images[n]
            drawn, _ = cluttered_digits.draw(handwriting("held_out")[0][i], 24, 0.0)
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(drawn, 6), (6, 6))
            assert piece.shape == (6, 6) and piece.max() > 127
            assert (windows == piece).all((2, 3)).any()
            there = np.lib.stride_tricks.sliding_window_view(image, (6, 6))
            assert (there >= piece).all((2, 3)).any()


def test_no_piece_is_of_the_digit_itself(monkeypatch):
    digits, labels = handwriting("held_out")
    monkeypatch.setattr(cluttered_digits, "handwriting", lambda split: (digits[:3], labels[:3]))
    cut = []
    monkeypatch.setattr(
        cluttered_digits, "pieces", lambda split, i, *_: cut.extend(i) or np.zeros((len(i), 6, 6), np.uint8)
    )
    for index in range(3):
        cut.clear()
        for again in range(5):
            cluttered_digits.picture("held_out", SIZE, 0, again, index)
        assert set(cut) == {0, 1, 2} - {index}


def test_the_splits_are_those_of_digits():
    source = tfzoo.data.open("digits", "classes", seed=0)
    for split in cluttered_digits.SPLITS:
        count = len(getattr(source, split))
        labels = [picture.label for picture in pictures(split, count)]
        expected = getattr(source, split).arrays[1]
        if split == "training":  # each once in an epoch, in an order of its own
            np.testing.assert_array_equal(np.bincount(labels), np.bincount(expected))
            assert labels != [picture.label for picture in pictures(split, count, epoch=1)]
        else:
            np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("split", cluttered_digits.SPLITS)
def test_a_picture_is_a_function_of_its_arguments(split):
    first = cluttered_digits.picture(split, SIZE, 3, 1, 2)
    cluttered_digits.picture(split, SIZE, 0, 0, 0)
    again = cluttered_digits.picture(split, SIZE, 3, 1, 2)
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.label, first.angle, first.center) == (again.label, again.angle, again.center)
    assert first.image.dtype == np.uint8 and first.image.max() > 200
    for other in ((4, 1, 2), (3, 2, 2), (3, 1, 3)):
        assert not np.array_equal(first.image, cluttered_digits.picture(split, SIZE, *other).image)


@pytest.mark.parametrize("split", cluttered_digits.SPLITS)
@pytest.mark.parametrize("size", [SIZE, (32, 48)], ids=str)
def test_several_are_those_that_are_made_one_by_one(split, size):
    epochs, indices = [0, 1, 5, 0, 2], [0, 3, 77, 120, 41]
    for seed in (0, 2**33):
        made = cluttered_digits.pictures(split, size, seed, epochs, indices)
        for n, (epoch, index) in enumerate(zip(epochs, indices, strict=True)):
            one = cluttered_digits.picture(split, size, seed, epoch, index)
            np.testing.assert_array_equal(made.image[n], one.image)
            assert (made.label[n], made.angle[n], tuple(made.center[n])) == (one.label, one.angle, one.center)


def test_pictures_are_those_that_runs_have_begun_with():
    made = cluttered_digits.pictures("training", SIZE, 3, [0, 1, 70], [5, 700, 1000])
    assert zlib.crc32(made.image.tobytes()) == 3_026_825_969


def test_after_32_epochs_a_digit_has_the_same_angles_at_other_places_among_other_pieces(monkeypatch):
    count = len(handwriting("training")[0])
    made = [cluttered_digits.pictures("training", SIZE, 7, [e] * count, range(count)) for e in (1, 33, 2)]
    rows = [np.lexsort((one.label, one.angle)) for one in made]
    np.testing.assert_array_equal(made[0].angle[rows[0]], made[1].angle[rows[1]])
    np.testing.assert_array_equal(made[0].label[rows[0]], made[1].label[rows[1]])
    assert len({*made[0].angle, *made[2].angle}) == 2 * count
    apart = np.hypot(*(made[0].center[rows[0]] - made[1].center[rows[1]]).T)
    assert np.mean(apart > 5) > 0.8
    monkeypatch.setattr(cluttered_digits, "draw", None)  # those that are kept are not drawn again
    again = cluttered_digits.pictures("training", SIZE, 7, [33] * count, range(count))
    np.testing.assert_array_equal(again.image, made[1].image)


@pytest.mark.parametrize("kind", cluttered_digits.KINDS)
def test_the_source_gives_new_pictures_to_learn_from_and_the_same_to_judge_by(kind):
    sources = [
        tfzoo.data.open("cluttered_digits", kind, seed=seed, pictures={"validation": 5, "held_out": 400})
        for seed in (7, 8)
    ]
    source = sources[0]
    assert [len(part) for part in (source.training, source.validation, source.held_out)] == [1257, 5, 400]
    assert source.classes == (tuple("0123456789") if kind == "classes" else None)
    for part in ("validation", "held_out"):
        for i in (0, 4):
            found, other = (getattr(one, part)[i] for one in sources)
            made = cluttered_digits.picture(part, SIZE, 0, 0, i)
            np.testing.assert_array_equal(found[0], made.image)
            np.testing.assert_array_equal(found[0], other[0])
            assert found[1:] == ((made.label,) if kind == "classes" else ())
    assert not np.array_equal(source.held_out[0][0], source.held_out[360][0])  # the same digit again
    with pytest.raises(IndexError):
        source.validation[5]
    # Across the end of the first epoch.
    stream = pipeline.datasets(source, batch_size=4, seed=7, start=314).training.take(2)
    images = np.concatenate([batch[0] for batch in stream.as_numpy_iterator()])
    expected = [cluttered_digits.picture("training", SIZE, 7, *divmod(n, 1257)).image for n in range(1256, 1264)]
    np.testing.assert_array_equal(images, expected)
    assert stream.element_spec[0].shape == (4, 60, 60, 1)


def test_other_sizes_are_in_proportion():
    source = tfzoo.data.open("cluttered_digits", "images", seed=0, image_shape=(32, 48, 1))
    assert source.training[3][0].shape == (32, 48, 1)
    assert len(source.held_out) == 256
    small, large = (np.mean([p.image.mean() for p in pictures("held_out", 60, (n, n))]) for n in (30, 90))
    np.testing.assert_allclose(small, large, rtol=0.1)


@pytest.mark.parametrize(
    ("call", "messages"),
    [
        (lambda: cluttered_digits.picture("test", (8, 60), 0, 0, 0), ["Received: split='test'", r"16x16.*\(8, 60\)"]),
        (lambda: cluttered_digits.angle("test", 0), ["training, validation, held_out"]),
        (
            lambda: tfzoo.data.open("cluttered_digits", "classes", seed=0, image_shape=(None, None, 1)),
            [r"fixed size, at least 16x16. Received: \(None, None\)"],
        ),
    ],
)
def test_refusals(call, messages):
    with pytest.raises(ValueError) as error:
        call()
    for message in messages:
        error.match(message)
