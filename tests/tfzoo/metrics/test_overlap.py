import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.metrics.overlap import Dice, IoU

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, (5, 7, 3))
SCORES = RNG.normal(size=(5, 7, 3, 4)).astype("float32")
MASKS = RNG.integers(0, 2, (5, 7, 3, 1)).astype("float32")
LOGITS = RNG.normal(size=(5, 7, 3, 1)).astype("float32")


def by_hand(truth, guess, kind, weights=1.0):
    both, either = (weights * (truth & guess)).sum(), (weights * (truth | guess)).sum()
    return both / either if kind is IoU else 2 * both / (either + both)


@pytest.mark.parametrize("kind", [IoU, Dice])
def test_of_a_mask(kind):
    metric = kind(threshold=0.0)
    for rows in (slice(0, 2), slice(2, 5)):
        metric.update_state(MASKS[rows], LOGITS[rows])
    np.testing.assert_allclose(metric.result(), by_hand(MASKS > 0, LOGITS > 0, kind), rtol=1e-12)


@pytest.mark.parametrize("kind", [IoU, Dice])
def test_of_several_classes(kind):
    metric = kind(4, targets=(0, 1, 3))
    metric.update_state(LABELS, SCORES)
    expected = [by_hand(c == LABELS, SCORES.argmax(-1) == c, kind) for c in range(4)]
    np.testing.assert_allclose(metric.by_class(), expected, rtol=1e-12)
    np.testing.assert_allclose(metric.result(), np.mean([expected[c] for c in (0, 1, 3)]), rtol=1e-12)


def test_iou_is_that_of_keras():
    binary, ours = keras.metrics.BinaryIoU([1], threshold=0.0), IoU(threshold=0.0)
    several, all_ours = keras.metrics.MeanIoU(4, sparse_y_pred=False), IoU(4, targets=range(4))
    for metric, batch in ((binary, (MASKS, LOGITS)), (ours, (MASKS, LOGITS)), (several, (LABELS, SCORES))):
        metric.update_state(*batch)
    all_ours.update_state(LABELS, SCORES)
    np.testing.assert_allclose(ours.result(), binary.result(), rtol=1e-6)
    np.testing.assert_allclose(all_ours.result(), several.result(), rtol=1e-6)


@pytest.mark.parametrize("truth", [LABELS[..., None], np.eye(4)[LABELS], LABELS.astype("uint8")])
def test_labels_in_every_form(truth):
    metric, plain = Dice(4), Dice(4)
    metric.update_state(truth, SCORES)
    plain.update_state(LABELS, SCORES)
    assert metric.result() == plain.result() > 0.1


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 7, 3), (5, 7, 3, 1)])
def test_weights_of_pictures_and_pixels(shape):
    weights = RNG.uniform(0, 2, shape)
    metric = Dice(threshold=0.0)
    metric.update_state(MASKS, LOGITS, weights)
    each = weights.reshape(shape + (1,) * (4 - len(shape))) if len(shape) != 2 else weights.reshape(5, 1, 1, 1)
    np.testing.assert_allclose(metric.result(), by_hand(MASKS > 0, LOGITS > 0, Dice, each), rtol=1e-12)


def test_an_ignored_label_is_not_judged():
    labels, judged = LABELS.copy(), RNG.integers(0, 2, LABELS.shape).astype(bool)
    labels[~judged] = 255
    metric = IoU(4, targets=[2], ignore=255)
    metric.update_state(labels, SCORES)
    expected = by_hand(LABELS == 2, SCORES.argmax(-1) == 2, IoU, judged)
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-12)


def test_a_class_that_does_not_occur_is_left_out():
    metric = Dice(5)
    metric.update_state(np.array([[0, 1], [1, 2]]), tf.one_hot([[0, 1], [2, 2]], 5))
    np.testing.assert_allclose(metric.result(), (2 / 3 + 2 / 3) / 2)


def test_counts_beyond_float32():
    metric = IoU()
    metric.truth.assign([0, 2**24])
    metric.update_state(np.ones((1, 1)), np.zeros((1, 1)))
    assert metric.truth[1] == 2**24 + 1


@pytest.mark.parametrize("kind", [IoU, Dice])
def test_nothing_gives_0(kind):
    metric = kind()
    assert metric.result() == 0
    metric.update_state(np.zeros((2, 3, 1)), np.zeros((2, 3, 1)))
    assert metric.result() == 0  # neither is there, so nothing is judged


def test_a_label_that_does_not_exist():
    metric = IoU(3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"labels of 3 classes are in \[0, 3\)"):
        metric.update_state([[0, 3]], np.zeros((1, 2, 3)))
    tf.function(metric.update_state, jit_compile=True)(tf.constant([[0, 3]]), tf.zeros((1, 2, 3)))
    assert np.isnan(metric.by_class()[0])


@pytest.mark.parametrize(
    ("truth", "scores", "weights", "said"),
    [
        ((5, 7), (5, 7, 3), None, r"have the shape \(B, ..., 4\). Received: y_true \(5, 7\), y_pred \(5, 7, 3\)"),
        ((5, 6), (5, 7, 4), None, r"without the last axis, \(5, 7\).*Received: y_true \(5, 6\)"),
        ((5, 7), (5, 7, 4), (7,), r"one for each example, \(B,\).*Received: sample_weight \(7,\)"),
        ((1, 7), (1, 7, 4), (5,), r"Received: sample_weight \(5,\)"),
        ((5, 7), (5, 7, 4), (5, 7, 4), r"Received: sample_weight \(5, 7, 4\)"),
    ],
)
def test_wrong_shapes(truth, scores, weights, said):
    with pytest.raises(ValueError, match=said):
        Dice(4).update_state(np.zeros(truth), np.zeros(scores), None if weights is None else np.ones(weights))


def update(metric, truth, scores, spec):
    """Update in a graph that knows of the labels and scores what `spec` says."""
    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(spec, ("int32", "float32"), strict=True)]
    tf.function(metric.update_state, input_signature=specs)(tf.cast(truth, "int32"), tf.cast(scores, "float32"))


@pytest.mark.parametrize("shape", [(None, None), None])
def test_labels_that_may_be_one_hot_are_refused(shape):
    with pytest.raises(ValueError, match=r"one-hot is told by their shape.*Received: y_true .*set their shape"):
        update(Dice(3), [[1], [2]], np.eye(3)[[1, 0]], (shape, (None, 3)))


def test_scores_of_which_nothing_is_known_are_refused():
    with pytest.raises(ValueError, match=r"scores of 3 classes have the shape .* y_pred <unknown>"):
        update(Dice(3), [1, 2], np.eye(3)[[1, 0]], ((None,), None))


@pytest.mark.parametrize(
    ("truth", "shape"),
    [
        (LABELS, (None, None, None)),
        (LABELS[..., None], (None, None, None, 1)),
        (np.eye(4)[LABELS], (None, None, None, 4)),
    ],
)
def test_labels_of_open_size(truth, shape):
    metric, plain = Dice(4), Dice(4)
    update(metric, truth, SCORES, (shape, (None, None, None, 4)))
    plain.update_state(LABELS, SCORES)
    assert metric.result() == plain.result() > 0.1


def test_a_mask_of_open_size_is_no_one_hot():
    metric = Dice(threshold=0.0)
    update(metric, MASKS, LOGITS, ((None,) * 4, (None, None, None, 1)))
    np.testing.assert_allclose(metric.result(), by_hand(MASKS > 0, LOGITS > 0, Dice), rtol=1e-12)


@pytest.mark.parametrize("options", [{"classes": 1}, {"targets": (2,)}, {"targets": ()}, {"targets": (-1,)}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match="at least 2 classes.*Received: classes="):
        IoU(**options)
