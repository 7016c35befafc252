"""What the recipes of classifiers share, on ResNet's: data as they say, figures, pictures, builder's options."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from apps import train
from apps.recipes import _classifier
from apps.recipes import resnet as recipe


def dataset(images, labels, batch=4):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch)


def reading(scores):
    """A model that gives an image's first pixels as logits, and images that hold these logits."""
    image = keras.Input((4, 4, 1))
    classes = scores.shape[-1]
    model = keras.Model(image, keras.layers.Flatten()(image)[:, :classes])
    images = np.zeros((len(scores), 16), "float32")
    images[:, :classes] = scores
    return model, images.reshape(-1, 4, 4, 1)


def test_figures_are_those_of_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 7)).astype("float32"), rng.integers(0, 7, 50)
    scores[np.arange(50), labels] += 1
    model, images = reading(scores)
    found = recipe.evaluate(model, dataset(images, labels))
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    guesses = scores.argmax(1)
    expected = {
        "top1": metrics.accuracy_score(labels, guesses),
        "top5": metrics.top_k_accuracy_score(labels, scores, k=5),
        "recall": metrics.recall_score(labels, guesses, average="macro"),
        "precision": metrics.precision_score(labels, guesses, average="macro", zero_division=0),
        "nll": metrics.log_loss(labels, probabilities),
        "most_frequent": np.bincount(labels).max() / 50,
    }
    assert {k: v for k, v in found.items() if k != "calibration"} == pytest.approx(expected, rel=1e-5)
    assert 0 < found["calibration"] < 1 and 0.2 < found["top1"] < 0.9


def test_few_classes_have_no_top5():
    model, images = reading(np.eye(3, dtype="float32"))
    found = recipe.evaluate(model, dataset(images, np.array([0, 1, 2])))
    assert "top5" not in found and found["top1"] == 1


def test_classes_that_the_model_does_not_know():
    model, images = reading(np.eye(3, dtype="float32"))
    with pytest.raises(ValueError, match="the data has 5 classes or more, the model 3. Judge it on data of the"):
        recipe.evaluate(model, dataset(images, np.array([0, 1, 4])))


@pytest.mark.parametrize("wrong", [0, 1, 20])
def test_the_picture_is_drawn_with_and_without_mistakes(tmp_path, wrong):
    scores = 3 * np.eye(6, dtype="float32")[np.arange(30) % 6]
    labels = np.arange(30) % 6
    labels[:wrong] = (labels[:wrong] + 1) % 6
    model, images = reading(scores)
    recipe.draw(model, dataset(images, labels), tmp_path / "a.png", classes=("a cat", "$_", "c", "d", "e", "f"))
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.width == 800 and np.ptp(np.asarray(drawn.convert("L"))) > 100
        assert (drawn.height > 500) == (wrong > 6)


def test_digits_are_shifted_for_training_only():
    data = recipe.datasets("digits", (16, 16, 1), batch_size=32, seed=3)
    images, labels = next(data.training.as_numpy_iterator())
    assert images.shape == (32, 16, 16, 1) and images.min() == -1 and images.max() <= 1 and labels.shape == (32,)
    held, _ = next(data.held_out.as_numpy_iterator())
    rows = (held[..., 0] > -1).any(2)
    assert rows[:, 1].all() and rows[:, -2].all()  # every digit reaches from top to bottom, as scikit-learn has them
    assert not (images[..., 0] > -1).any(2)[:, :2].all()
    again = next(recipe.datasets("digits", (16, 16, 1), batch_size=32, seed=3).training.as_numpy_iterator())
    np.testing.assert_array_equal(images, again[0])


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (90, 120, 3), np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    return tmp_path / "data"


def test_windows_of_photographs(photographs):
    data = recipe.datasets(str(photographs), (32, 48, 3), batch_size=4, seed=0)
    images, _ = next(data.training.as_numpy_iterator())
    assert images.shape == (4, 32, 48, 3) and -1 <= images.min() < 0 < images.max() <= 1
    assert data.classes == ("cat", "dog", "owl")
    held, _ = next(data.held_out.as_numpy_iterator())
    np.testing.assert_array_equal(held, next(data.held_out.as_numpy_iterator())[0])


@pytest.mark.parametrize(("smallest", "size"), [(1, (8, 8)), (15, (32, 32))])
def test_the_builders_options_follow_from_the_data(smallest, size):
    options = {"data": "digits", "seed": 0, "settings": {}}
    assert _classifier.settings(options, smallest) == {"classes": 10, "image_shape": (*size, 1)}


def test_more_classes_than_asked_for(photographs):
    options = {"data": str(photographs), "seed": 0, "settings": {"classes": 2}}
    with pytest.raises(ValueError, match=r"has 3 classes. Accepted: --set classes=3 or more. Received: 2"):
        recipe.settings(options)
    assert recipe.settings({**options, "settings": {}}) == {"classes": 3, "image_shape": (224, 224, 3)}


def test_a_run_is_built_for_its_data(photographs, tmp_path):
    asked = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "settings": {"image_shape": (24, 24, 3)}}
    train.train("resnet", tmp_path / "run", data=str(photographs), **asked)
    options = json.loads((tmp_path / "run" / "options.json").read_text())
    assert options["settings"] == {"classes": 3, "image_shape": [24, 24, 3]}
    assert keras.models.load_model(tmp_path / "run" / "model.keras").output_shape == (None, 3)
