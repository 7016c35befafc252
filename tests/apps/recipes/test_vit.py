"""The Vision Transformer's recipe learns; tests/apps/recipes/test_resnet.py has what it shares with the others."""

import keras
import pytest
from PIL import Image

import tfzoo
from apps.recipes import vit as recipe


def test_it_learns_the_digits():
    keras.utils.set_random_seed(0)
    model = tfzoo.build("vit", size="tiny")
    seen = []

    def optimizer(kind, **arguments):
        seen.append((kind, arguments))
        return kind(3e-3, **arguments)

    recipe.compile(model, optimizer=optimizer, jit_compile=False)
    assert seen == [(keras.optimizers.AdamW, {"weight_decay": 0.05})]
    data = recipe.datasets("digits", (8, 8, 1), batch_size=64, seed=0)
    before = recipe.evaluate(model, data.held_out)
    model.fit(data.training, steps_per_epoch=150, verbose=0)
    after = recipe.evaluate(model, data.held_out)
    assert before["top1"] < 0.3 and after["top1"] > 0.4 and after["nll"] < 0.8 * before["nll"]
    assert before["nll"] == pytest.approx(2.303, abs=0.1)  # ln 10: the head begins with zeros


@pytest.mark.parametrize(("size", "own"), [("tiny", recipe.SMALL), ("s16", {})])
def test_only_the_smallest_size_has_settings_of_its_own(size, own):
    options = {"data": "digits", "seed": 0, "settings": {}, "size": size}
    found = recipe.settings(options)
    assert found == {"classes": 10, "image_shape": (16, 16, 1), **own}
    if own:
        assert tfzoo.build("vit", size=size, **found).output_shape == (None, 10)


@pytest.fixture
def photographs(tmp_path):
    """Larger pictures than the smallest size is for."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (100, 90), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    return {"data": str(tmp_path), "seed": 0, "settings": {}}


@pytest.mark.parametrize(
    ("settings", "received"),
    [
        ({}, "3136 patches of 4x4 pixels, of pictures of 224x224"),
        ({"image_shape": (132, 128, 3)}, "1056 patches of 4x4 pixels, of pictures of 132x128"),
    ],
)
def test_the_smallest_size_takes_no_large_pictures(photographs, settings, received):
    with pytest.raises(ValueError, match=f"at most 1024 patches. Accepted: .*--size s16.* Received: {received}"):
        recipe.settings(photographs | {"size": recipe.DEFAULTS["size"], "settings": settings})


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ("s16", {}),
        ("tiny", {"patch": 16}),
        ("tiny", {"image_shape": (128, 128, 3)}),
        ("tiny", {"image_shape": [64, 64, 3]}),
        ("tiny", {"image_shape": "large"}),  # which the builder refuses
    ],
)
def test_what_it_names_instead_is_taken(photographs, size, settings):
    assert recipe.settings(photographs | {"size": size, "settings": settings})["classes"] == 2


@pytest.mark.parametrize(
    ("size", "settings", "pixels", "shape"),
    [
        ("s16", {}, (20, 24), (32, 32)),
        ("s16", {}, (28, 28), (32, 32)),
        ("h14", {}, (32, 32), (42, 42)),
        ("s16", {"patch": 8}, (20, 24), (24, 24)),
        ("s16", {"patch": "a"}, (20, 24), (20, 24)),  # which the builder refuses
        ("h14", {}, (90, 100), (224, 224)),
    ],
)
def test_the_patches_cover_the_picture(tmp_path, size, settings, pixels, shape):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", pixels[::-1], (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    options = {"data": str(tmp_path), "seed": 0, "settings": settings, "size": size}
    assert recipe.settings(options)["image_shape"] == (*shape, 3)
