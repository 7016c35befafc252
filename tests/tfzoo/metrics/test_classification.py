import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from tfzoo.metrics.classification import ConfusionMatrix

RNG = np.random.default_rng(1)
LABELS = RNG.integers(0, 5, 83)
SCORES = RNG.normal(size=(83, 5)) + 2 * np.eye(5)[LABELS]
GUESSES = SCORES.argmax(-1)


@pytest.mark.parametrize("weights", [None, RNG.uniform(0, 2, 83)], ids=["plain", "weighted"])
def test_is_that_of_scikit_learn(weights):
    metric = ConfusionMatrix(5)
    for rows in (slice(0, 50), slice(50, 83)):
        metric.update_state(LABELS[rows], SCORES[rows], None if weights is None else weights[rows])
    options = {"sample_weight": weights}
    np.testing.assert_allclose(metric.matrix(), metrics.confusion_matrix(LABELS, GUESSES, **options), rtol=1e-12)
    expected = [function(LABELS, GUESSES, average=None, **options) for function in (recall, precision)]
    np.testing.assert_allclose([metric.recall(), metric.precision()], expected, rtol=1e-12)
    means = {
        "confusion_accuracy": metrics.accuracy_score(LABELS, GUESSES, **options),
        "confusion_recall": np.mean(expected[0]),
        "confusion_precision": np.mean(expected[1]),
    }
    found = metric.result()
    assert found.keys() == means.keys()
    np.testing.assert_allclose([found[name] for name in means], list(means.values()), rtol=1e-12)


recall, precision = metrics.recall_score, metrics.precision_score


def test_one_output():
    metric = ConfusionMatrix(2, threshold=0.0)
    metric.update_state([[0], [0], [1], [1], [1]], [[-1.0], [0.5], [0.1], [2.0], [-3.0]])
    np.testing.assert_array_equal(metric.matrix(), [[1, 1], [1, 2]])


def test_classes_that_do_not_occur():
    metric = ConfusionMatrix(3)
    assert {float(rate) for rate in metric.result().values()} == {0.0}
    metric.update_state([0, 0, 1], np.eye(3)[[0, 2, 0]])
    np.testing.assert_array_equal(metric.recall(), [0.5, 0, np.nan])
    np.testing.assert_array_equal(metric.precision(), [0.5, np.nan, 0])
    for name, function in (("recall", recall), ("precision", precision)):
        expected = function([0, 0, 1], [0, 2, 0], average="macro", zero_division=0)
        np.testing.assert_allclose(expected, 1 / 6)  # class 2 is only guessed, class 1 never
        np.testing.assert_allclose(metric.result()[f"confusion_{name}"], expected, rtol=1e-12)


def test_a_class_that_is_neither_is_left_out():
    metric = ConfusionMatrix(4)
    metric.update_state([0, 0, 1], np.eye(4)[[0, 1, 1]])
    found = metric.result()
    np.testing.assert_allclose([found["confusion_recall"], found["confusion_precision"]], [0.75, 0.75])


@pytest.mark.parametrize("classes", [3, 60])
def test_draw(classes, tmp_path):
    metric = ConfusionMatrix(classes)
    metric.update_state([0, 1, 1], np.eye(classes)[[0, 1, 2]])
    labels = [r"$\frac{$", "long " * 40, "<b>"] + ["" for _ in range(classes - 3)]
    metric.draw(tmp_path / "new" / "confusion.png", labels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["confusion.png"]
    with Image.open(tmp_path / "new" / "confusion.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 200
        colors = picture.convert("RGB").getcolors(10**6)
    assert any(red < 50 and blue > 80 for _, (red, _, blue) in colors)  # a full cell is dark blue


def test_wrong_options(tmp_path):
    with pytest.raises(ValueError, match=r"at least 2 classes. Received: classes=1"):
        ConfusionMatrix(1)
    with pytest.raises(ValueError, match=r"3 classes have as many names. Received: 2 labels"):
        ConfusionMatrix(3).draw(tmp_path / "x.png", ["a", "b"])
    assert not list(tmp_path.iterdir())
