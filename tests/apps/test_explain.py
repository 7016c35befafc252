"""`tfzoo explain` draws what the library computes, of a run and of a file, and refuses what it cannot explain."""

import keras
import numpy as np
import pytest
from PIL import Image
from skimage import data

import tfzoo
from tfzoo.explanations.grad_cam import grad_cam
from tfzoo.explanations.overlay import overlay

rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "coffee.jpg"
    Image.fromarray(data.coffee()).resize((61, 47)).save(path)
    return path


@pytest.mark.parametrize("asked", [[], ["--class", "dog"], ["--class", 1, "--layer", "layer1"]], ids=str)
def test_grad_cam_of_a_run(classifier, picture, invoke, tmp_path, asked):
    result = invoke("explain", classifier, picture, "-o", tmp_path / "out", *asked)
    assert result.exit_code == 0, result.stderr
    model = keras.models.load_model(classifier / "best.keras")
    whole = Image.open(picture).resize((16, 16), Image.Resampling.BILINEAR)  # as the recipe judges small ones
    image = 2 * np.asarray(whole, np.float32)[None] / 255 - 1
    scores = np.asarray(model(image))[0]
    chosen = 1 if asked else int(scores.argmax())
    share = np.exp(scores.max()) / np.exp(scores).sum()
    assert f"{('cat', 'dog')[scores.argmax()]} {share:.1%}"[:-2] in result.stdout
    assert "black and white" not in result.stdout
    at = "layer1" if "--layer" in asked else "layer3"
    said = f"what speaks for {('cat', 'dog')[chosen]}, by Grad-CAM at {at}: {tmp_path / 'out' / 'coffee.png'}"
    assert said in result.stdout
    heat = grad_cam(model, image, [chosen], "layer1" if "--layer" in asked else None)[0]
    with Image.open(tmp_path / "out" / "coffee.png") as drawn:
        want = np.asarray(overlay((image[0] + 1) / 2, heat), int)
        assert np.abs(np.asarray(drawn, int) - want).mean() < 4  # Pillow rounds the picture to 8 bits


def test_attention_of_a_file(picture, invoke, tmp_path):
    model = tfzoo.build("vit", size="tiny", image_shape=(8, 8, 3))
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    model.save(tmp_path / "vit.keras")
    result = invoke("explain", tmp_path / "vit.keras", picture, picture, "-o", tmp_path / "out")
    assert result.exit_code == 0 and "what it takes from where, by attention rollout" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["coffee.png", "coffee_1.png"]
    result = invoke("explain", tmp_path / "vit.keras", picture, "-o", tmp_path / "b", "--method", "grad-cam")
    assert result.exit_code == 0 and "by Grad-CAM" in result.stdout
    result = invoke("explain", tmp_path / "vit.keras", picture, "--method", "attention", "--class", 3)
    assert result.exit_code == 2 and "attention is no class's" in result.stderr


def test_the_rectified_picture_is_the_one_with_a_map(picture, invoke, tmp_path):
    model = tfzoo.build("spatial_transformer", size="tiny", image_shape=(16, 16, 3))
    model.get_layer("transformer").get_layer("theta").bias.assign([-1, 0, 0, 0, 1, 0])  # mirrored
    model.save(tmp_path / "a.keras")
    assert invoke("explain", tmp_path / "a.keras", picture, "-o", tmp_path).exit_code == 0
    whole = Image.open(picture).resize((16, 16), Image.Resampling.BILINEAR)
    with Image.open(tmp_path / "coffee.png") as drawn:
        shown = np.asarray(drawn, int)[7:224:14, 7:224:14]
    assert np.abs(shown - np.asarray(whole, int)[:, ::-1]).mean() < 4


def test_a_file_of_no_run_is_explained_by_its_family(picture, invoke, tmp_path, explained):
    model = tfzoo.build("resnet", size="tiny", image_shape=(16, 16, 3))
    model.save(tmp_path / "resnet.keras")
    for options in ([], ["--values", 0, 1]):
        result = invoke("explain", tmp_path / "resnet.keras", picture, "-o", tmp_path / "out", *options)
        assert result.exit_code == 0, result.stderr
        assert ("black and white are taken for -1 and 1, as the recipe of resnet" in result.stdout) != bool(options)
    whole = Image.open(picture).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(explained[1][0], np.asarray(whole) / 255, atol=0.02)  # Pillow rounds twice
    np.testing.assert_allclose(explained[0], 2 * explained[1] - 1, atol=1e-6)


def test_all_that_is_wrong_is_said_at_once(classifier, picture, invoke, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    wrong = ["--class", 7, "--layer", "nope", "--method", "attention"]
    result = invoke("explain", classifier, picture, tmp_path / "bad.png", *wrong, "-o", tmp_path / "o")
    assert result.exit_code == 2 and not (tmp_path / "o").exists()
    for said in ("there is no class '7'", "Received: nope", "attention is no class's", "bad.png"):
        assert said in result.stderr


def test_refusals(classifier, picture, invoke, tmp_path):
    result = invoke("explain", classifier, picture, "--class", "owl", "-o", tmp_path / "o")
    assert result.exit_code == 2 and "Accepted for --class: cat, dog, or a number below 2" in result.stderr
    result = invoke("explain", classifier, picture, "--layer", "fc", "-o", tmp_path / "o")
    assert result.exit_code == 2 and "Received: fc" in result.stderr
    result = invoke("explain", classifier, picture, "--method", "attention", "-o", tmp_path / "o")
    assert result.exit_code == 2 and "Grad-CAM explains others" in result.stderr
    (tmp_path / "bad.png").write_text("no picture")
    result = invoke("explain", classifier, picture, tmp_path / "bad.png", "-o", tmp_path / "o")
    assert result.exit_code == 2 and "bad.png" in result.stderr
    tfzoo.build("unet", size="tiny").save(tmp_path / "unet.keras")
    result = invoke("explain", tmp_path / "unet.keras", picture, "-o", tmp_path / "o")
    assert result.exit_code == 2 and "is no classifier of pictures" in result.stderr
    assert not (tmp_path / "o").exists()
