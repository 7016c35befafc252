"""The U-Net's recipe: its loss, figures and pictures are what they say."""

import functools

import keras
import numpy as np
import pytest

import tfzoo
from apps import recipes, train
from apps.recipes import unet as recipe
from tfzoo.data import pasted_digits


def images(*shape):
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def test_recipe_overfits_one_batch():
    keras.utils.set_random_seed(0)
    model = tfzoo.build("unet", "tiny", image_shape=(64, 64, 3))
    batch = next(iter(pasted_digits.dataset("training", (64, 64, 3), batch_size=4, seed=0)))
    compiled(model, learning_rate=1e-2, steps_per_epoch=400)
    scores = [model.train_on_batch(*batch, return_dict=True) for _ in range(400)]
    assert scores[0]["iou"] < 0.3
    assert recipe.evaluate(model, dataset(batch))["iou"] > 0.9
    assert float(model.optimizer.learning_rate) < 1e-6  # the cosine has come to its end


def compiled(model, **options):
    options = recipes.DEFAULTS | {"epochs": 1, **options}
    recipe.compile(model, optimizer=functools.partial(train.optimizer, options), jit_compile=False)


def dataset(batch):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(batch)


def test_recipe_figures_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    x, masks = rng.random((2, 8, 8, 3), np.float32), rng.random((2, 8, 8, 1)) < 0.25
    x[:, :, :, 1:] = x[:, :, :, :1]
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, image[..., :1] - 0.6)  # foreground where the picture is above .6
    figures = recipe.evaluate(model, dataset((x, masks.astype(np.float32))).unbatch().batch(1))
    guess, rare = x[..., :1] > 0.6, np.stack([recipe.otsu(picture) for picture in x])
    iou = (guess & masks).sum() / (guess | masks).sum()
    both = {"iou": iou, "dice": 2 * (guess & masks).sum() / (guess.sum() + masks.sum())}
    baselines = {"otsu_iou": (rare & masks).sum() / (rare | masks).sum(), "all_foreground_iou": masks.mean()}
    assert figures == pytest.approx(both | baselines, rel=1e-12)
    assert figures["dice"] == pytest.approx(2 * iou / (1 + iou), rel=1e-12)
    compiled(model, learning_rate=1e-3, steps_per_epoch=1)  # the same while it is trained
    found = model.evaluate(x, masks.astype(np.float32), batch_size=1, verbose=0, return_dict=True)
    assert {name: found[name] for name in both} == pytest.approx(both, rel=1e-6)


def test_recipe_figures_without_foreground_are_0():
    x = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    image = keras.Input((8, 8, 3))
    figures = recipe.evaluate(keras.Model(image, image[..., :1] - 2), dataset((x, np.zeros((2, 8, 8, 1), np.float32))))
    assert set(figures.values()) == {0.0}


def test_otsu_finds_dark_and_bright_digits():
    for digit, paper in ((0.1, 0.9), (0.8, 0.2)):
        picture = np.full((8, 8, 3), paper, np.float32)
        picture[2:4, 1:5] = digit
        np.testing.assert_array_equal(recipe.otsu(picture)[..., 0], picture[..., 0] == np.float32(digit))


def test_recipe_loss_is_dice_plus_cross_entropy():
    mask = (images(2, 16, 16, 1) < 0.3).astype(np.float32)
    logits = np.random.default_rng(2).normal(0, 2, mask.shape).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    axes = (1, 2, 3)
    dice = 1 - 2 * (mask * p).sum(axes) / (mask.sum(axes) + p.sum(axes))
    cross_entropy = -(mask * np.log(p) + (1 - mask) * np.log(1 - p)).mean(axes)
    np.testing.assert_allclose(recipe.dice_and_cross_entropy(mask, logits), dice + cross_entropy, rtol=1e-5)


def test_recipe_draws_pictures_and_does_not_say_which(tmp_path, monkeypatch):
    from matplotlib.axes import Axes
    from PIL import Image

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, title: titles.append(title))

    held_out = pasted_digits.dataset("held_out", (32, 32, 3), batch_size=4, seed=0, pictures=6)
    recipe.draw(tfzoo.build("unet", "tiny"), held_out, tmp_path / "rows.png", rows=3)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "rows.png")))) > 50
    assert titles == ["picture", "true mask", "U-Net, probability", "Otsu's threshold"]


def test_recipe_refuses_several_classes():
    with pytest.raises(ValueError, match=r"classes=1\. Received: classes=3"):
        compiled(tfzoo.build("unet", "tiny", classes=3), learning_rate=1e-3, steps_per_epoch=1)
    with pytest.raises(ValueError, match=r"classes=1\. Received: classes=3"):  # before masks of three are looked at
        recipe.settings({"settings": {"classes": 3}})
