"""The spatial transformer's recipe takes its pictures as they are, and draws what becomes of them."""

import keras
import numpy as np
import pytest
from PIL import Image

import tfzoo
from apps.recipes import _classifier
from apps.recipes import spatial_transformer as recipe
from tfzoo.data.sources import cluttered_digits


@pytest.fixture(scope="module")
def data():
    return recipe.datasets("cluttered_digits", (16, 16, 1), batch_size=4, seed=0)


def test_pictures_that_are_new_are_not_shifted(data):
    images, labels = next(data.training.as_numpy_iterator())
    made = [cluttered_digits.picture("training", (16, 16), 0, 0, i) for i in range(4)]
    np.testing.assert_allclose(images, [one.image / np.float32(255) for one in made], atol=1e-6)
    np.testing.assert_array_equal(labels, [one.label for one in made])


def test_the_builders_options():
    options, plain = (
        {"data": "cluttered_digits", "seed": 0, "settings": {}},
        {"classes": 10, "image_shape": (60, 60, 1)},
    )
    assert recipe.settings({**options, "size": "tiny"}) == plain
    assert recipe.settings({**options, "size": "default"}) == plain | recipe.WIDTHS | recipe.FRONT
    without = {**options, "size": "default", "settings": {"transform": None}}
    assert recipe.settings(without) == plain | recipe.WIDTHS
    for some in (recipe.settings({**options, "size": "default"}), recipe.settings(without) | {"transform": None}):
        assert tfzoo.build("spatial_transformer", **some).output_shape == (None, 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_transformer_makes_of_them_is_drawn(tmp_path, channels):
    model = tfzoo.build("spatial_transformer", size="tiny", image_shape=(16, 16, channels))
    theta = model.get_layer("transformer").get_layer("theta")
    theta.bias.assign([-1, 0, 0, 0, 1, 0])  # mirrored
    held_out = recipe.datasets("cluttered_digits", (16, 16, channels), batch_size=4, seed=0).held_out
    pixels = recipe.rectified(model, next(held_out.as_numpy_iterator())[0][:3], recipe.DEFAULTS["values"]).astype(int)
    assert pixels.shape == (40, 60, 3) and np.ptp(pixels) > 100
    given, made = (pixels[row : row + 16, 2:18] for row in (2, 22))
    np.testing.assert_allclose(made, given[:, ::-1], atol=1)
    recipe.draw(model, held_out, tmp_path / "a.png", columns=3)
    _classifier.draw(model, held_out, tmp_path / "b.png", values=recipe.DEFAULTS["values"])
    with Image.open(tmp_path / "a.png") as drawn, Image.open(tmp_path / "b.png") as above:
        assert drawn.size == (800, above.height + 533)
        page = np.asarray(drawn, int)
        np.testing.assert_array_equal(page[: above.height], np.asarray(above.convert("RGB")))
    centres = (np.arange(40) + 0.5) * 533 / 40, (np.arange(60) + 0.5) * 800 / 60
    np.testing.assert_array_equal(page[above.height :][np.ix_(*(x.astype(int) for x in centres))], pixels)


def test_without_a_transformer_the_mistakes_are_drawn(tmp_path, data):
    model = tfzoo.build("spatial_transformer", size="tiny", transform=None)
    recipe.compile(model, optimizer=lambda kind, **more: kind(1e-3, **more), jit_compile=False)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    recipe.draw(model, data.held_out, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.width == 800
