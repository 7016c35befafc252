import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from sklearn.metrics import brier_score_loss

from tfzoo.metrics.calibration import BrierScore, CalibrationError

RNG = np.random.default_rng(2)
LABELS = RNG.integers(0, 3, 97)
LOGITS = RNG.normal(size=(97, 3)) + np.eye(3)[LABELS]
PROBABILITIES = scipy.special.softmax(LOGITS, -1)
WEIGHTS = RNG.uniform(0, 2, 97)


def by_hand(labels, probabilities, weights, bins):
    """The paper's sums, bin by bin."""
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    expected, maximum = 0.0, 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            gap = abs(
                np.average(right[inside], weights=weights[inside])
                - np.average(confidence[inside], weights=weights[inside])
            )
            expected += gap * weights[inside].sum() / weights.sum()
            maximum = max(maximum, gap)
    return [expected, maximum]


@pytest.mark.parametrize("bins", [1, 7, 15])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_is_the_sum_over_bins(bins, weights, from_logits):
    metric = CalibrationError(3, bins, from_logits)
    for rows in (slice(0, 40), slice(40, 97)):
        scores = LOGITS if from_logits else PROBABILITIES
        metric.update_state(LABELS[rows], scores[rows], None if weights is None else weights[rows])
    expected = by_hand(LABELS, PROBABILITIES, np.ones(97) if weights is None else weights, bins)
    found = metric.result()
    np.testing.assert_allclose([found["calibration_expected"], found["calibration_maximum"]], expected, rtol=1e-9)


def test_four_examples():
    metric = CalibrationError(2, bins=2, name="c")
    # Confidences .6 (right), .8 (wrong) in the upper bin, one output; .5 is the last of the lower.
    metric.update_state([[0], [0], [1]], [[0.4], [0.8], [0.5]])
    bins = metric.reliability()
    np.testing.assert_array_equal(bins.edges, [0, 0.5, 1])
    np.testing.assert_array_equal(bins.weight, [1, 2])
    np.testing.assert_allclose(bins.confidence, [0.5, 0.7], rtol=1e-7)
    np.testing.assert_allclose(bins.accuracy, [0, 0.5])  # equal probabilities are taken for class 0
    np.testing.assert_allclose(metric.result()["c_expected"], (0.5 + 2 * 0.2) / 3, rtol=1e-6)
    np.testing.assert_allclose(metric.result()["c_maximum"], 0.5)


def test_a_bin_without_examples_has_no_numbers():
    metric = CalibrationError(3, bins=4)
    metric.update_state([0], [[1.0, 0, 0]])
    bins = metric.reliability()
    np.testing.assert_array_equal(bins.accuracy, [np.nan, np.nan, np.nan, 1])
    np.testing.assert_array_equal(bins.confidence, bins.accuracy)
    assert metric.result()["calibration_expected"] == 0


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("from_logits", [False, True])
def test_brier_is_that_of_scikit_learn(weights, from_logits):
    metric = BrierScore(3, from_logits)
    metric.update_state(LABELS, LOGITS if from_logits else PROBABILITIES, weights)
    expected = brier_score_loss(LABELS, PROBABILITIES, sample_weight=weights, scale_by_half=False, labels=[0, 1, 2])
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-9)


def test_brier_of_one_output_counts_both_classes():
    metric = BrierScore(2)
    metric.update_state([[1], [0]], [[0.75], [0.5]])
    np.testing.assert_allclose(metric.result(), (2 * 0.25**2 + 2 * 0.5**2) / 2)


MEASURES = [(CalibrationError, ["calibration_expected", "calibration_maximum"]), (BrierScore, ["brier"])]


def numbers(metric, names):
    result = metric.result()
    return [float(result[name] if isinstance(result, dict) else result) for name in names]


@pytest.mark.parametrize(("kind", "names"), MEASURES)
@pytest.mark.parametrize("scores", [[6.0, -1, 2], [0.5, 0.2, 0.1], [0.6, -0.1, 0.5], [0.5, 0.2, 0.32]])
def test_what_are_no_probabilities(kind, names, scores):
    metric = kind(3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"in \[0, 1\] and .* sum to 1; .* from_logits=True"):
        metric.update_state([0, 1], [scores, [1.0, 0, 0]])
    assert numbers(metric, names) == [0] * len(names)  # nothing was counted
    tf.function(metric.update_state, jit_compile=True)(tf.constant([0, 1]), tf.constant([scores, [1.0, 0, 0]]))
    assert np.isnan(numbers(metric, names)).all()


@pytest.mark.parametrize(("kind", "names"), MEASURES)
def test_one_output_that_is_no_probability(kind, names):
    with pytest.raises(tf.errors.InvalidArgumentError, match="from_logits=True"):
        kind(2).update_state([0, 1], [[0.5], [1.5]])


@pytest.mark.parametrize(("kind", "names"), MEASURES)
@pytest.mark.parametrize("from_logits", [False, True])
def test_nan_is_left_to_the_guard_of_the_training(kind, names, from_logits):
    metric = kind(3, from_logits=from_logits)
    metric.update_state([0, 1], [[np.nan, 0, 0], [1.0, 0, 0]])
    assert np.isnan(numbers(metric, names)).all()


@pytest.mark.parametrize(("kind", "names"), MEASURES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounded_probabilities_are_accepted(kind, names, dtype):
    rows = RNG.dirichlet(np.full(500, 0.5), 64)
    metric, exact = kind(500), kind(500)
    metric.update_state(np.arange(64), tf.cast(rows, dtype))
    exact.update_state(np.arange(64), rows)
    np.testing.assert_allclose(numbers(metric, names), numbers(exact, names), atol=5e-3)


def test_nothing_gives_0():
    assert BrierScore(3).result() == 0
    assert {float(value) for value in CalibrationError(3).result().values()} == {0.0}


def test_wrong_options():
    with pytest.raises(ValueError, match=r"at least 2 classes and 1 bin. Received: classes=1, bins=0"):
        CalibrationError(1, 0)
    with pytest.raises(ValueError, match=r"at least 2 classes. Received: classes=1"):
        BrierScore(1)
    with pytest.raises(ValueError, match=r"scores of 3 classes .* Received: y_true \(2,\), y_pred \(2, 4\)"):
        BrierScore(3).update_state([0, 1], np.zeros((2, 4)))
