import numpy as np
import pytest

from tfzoo.metrics.precision_recall import PrecisionRecall, precision_recall

RNG = np.random.default_rng(8)
REAL, MADE = RNG.normal(size=(60, 4)), RNG.normal([1.5, 0, 0, 0], 0.8, size=(45, 4))


def by_hand(real, made, k):
    def covered(rows, centres):
        own = np.linalg.norm(centres[:, None] - centres, axis=-1)
        radii = np.sort(own, 1)[:, k]  # the 0th is the centre itself
        return np.mean([any(np.linalg.norm(row - centres, axis=1) <= radii) for row in rows])

    return covered(made, real), covered(real, made)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("width", [4, 40])
def test_is_the_definition(k, width):
    real, made = (np.concatenate([rows] * (width // 4), 1) for rows in (REAL, MADE))
    found = precision_recall(real, made, k)
    np.testing.assert_allclose(found, by_hand(REAL, MADE, k), rtol=1e-12)
    assert 0 < found[0] < 1 and 0 < found[1] < 1 and found[0] != found[1]


def test_on_a_line():
    """Balls of the first neighbour: of radius 1, 1, 9 around the real 0, 1, 10; of 1, 1, 24 around 5, 6, 30."""
    real, made = np.array([[0.0], [1], [10]]), np.array([[5.0], [6], [30]])
    assert precision_recall(real, made, 1) == (2 / 3, 1 / 3)


def test_equal_sets_and_far_sets():
    assert precision_recall(REAL, REAL[::-1]) == (1, 1)
    assert precision_recall(REAL, REAL + 100) == (0, 0)


@pytest.mark.parametrize("width", [3, 50])
def test_equal_sets_of_equal_rows_far_from_0(width):
    rows = np.repeat(1e4 + RNG.normal(size=(6, width)), 5, 0)  # their balls have the radius 0
    assert precision_recall(rows, rows[::-1]) == (1, 1)


def test_metric(features, pictures):
    metric = PrecisionRecall(features, room=60, neighbours=2)
    assert {np.isnan(float(value)) for value in metric.result().values()} == {True}
    metric.update_state(*pictures)
    expected = by_hand(*(np.float64(features(each)) for each in pictures), 2)
    found = metric.result()
    assert list(found) == ["generated_precision", "generated_recall"]
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-12)
    said = metric.describe()
    assert said["generated_recall"] == expected[1] and said["classifier"] == "judge"


def test_refusals(features):
    with pytest.raises(ValueError, match="Received: neighbours=0"):
        PrecisionRecall(features, room=9, neighbours=0)
    assert np.isnan(precision_recall(REAL[:3], MADE)).all()
