"""`--values` says for each channel what black and white are: figures, maps and what is served follow it."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

import tfzoo
from apps.values import numbers
from tfzoo.export import session

ROWS = ["-2.12,-2.04,-1.80", "2.25,2.43,2.64"]


def test_numbers():
    assert numbers(None) is None and numbers(("-1", "1")) == (-1, 1)
    assert numbers(("0", "1,2,3e0")) == (0, (1, 2, 3))
    for text in ("", "1,", "a", "1 2", "0x1"):
        with pytest.raises(ValueError, match="two numbers, or two rows of numbers with commas between them"):
            numbers(("0", text))


@pytest.fixture
def reds(tmp_path):
    """A folder of dark and light red pictures, and a model that tells them apart by red being above -1 or not."""
    for name, red in (("dark", 20), ("light", 80)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("RGB", (8, 8), (red + i, 255 * (i % 2), 0)).save(tmp_path / "data" / name / f"{i}.png")
    model = tfzoo.build("resnet", size="tiny", classes=2, image_shape=(8, 8, 3))
    same = keras.layers.Conv2D(3, 1, use_bias=False, name="same")(model.input)
    logits = keras.layers.Dense(2, name="fc")(keras.layers.GlobalAveragePooling2D()(same))
    told = keras.Model(model.input, logits, name="resnet")
    told.get_layer("same").set_weights([np.eye(3, dtype="float32")[None, None]])
    told.get_layer("fc").set_weights([np.float32([[-1, 1], [0, 0], [0, 0]]), np.float32([-1, 1])])
    told.save(tmp_path / "told.keras")
    return tmp_path


def test_figures_are_of_what_was_asked_for(reds, invoke):
    # red from -2.12 to 2.25: the dark ones lie around -1.74, the light ones around -0.71
    found = {}
    for name, options in {"rows": ["--values", *ROWS], "one": ["--values", -1, 1], "none": []}.items():
        result = invoke("evaluate", reds / "told.keras", "--data", reds / "data", "--output", reds / name, *options)
        assert result.exit_code == 0, result.stderr
        assert ("black and white are taken for -1 and 1, as the recipe of resnet" in result.stdout) == (name == "none")
        found[name] = json.loads((reds / name / "evaluate.json").read_text())
    assert found["rows"]["top1"] == 1 and found["rows"]["values"] == "-2.12,-2.04,-1.8 and 2.25,2.43,2.64"
    assert found["one"]["top1"] == found["none"]["top1"] == 0.5 and "values" not in found["none"]


def test_what_is_served_follows(reds, invoke):
    result = invoke("export", reds / "told.keras", "-o", reds / "served", "--values", *ROWS)
    assert result.exit_code == 0, result.stderr
    with session.load(reds / "served" / "1") as (_, run):
        for name, red in (("dark", 22), ("light", 82)):
            file = np.array([(reds / "data" / name / "2.png").read_bytes()], object)
            given = run("serving_bytes", {"image_bytes": file})["probabilities"][0]
            value = -2.12 + (2.25 + 2.12) * red / 255
            np.testing.assert_allclose(given[1], 1 / (1 + np.exp(-2 * (1 + value))), rtol=1e-4)
    assert "-2.12" in (reds / "served" / "1" / "model_card.md").read_text()


def test_maps_lie_over_the_picture_itself(reds, invoke):
    picture = reds / "data" / "light" / "1.png"
    result = invoke("explain", reds / "told.keras", picture, "-o", reds / "out", "--values", *ROWS)
    assert result.exit_code == 0, result.stderr
    with Image.open(reds / "out" / "1.png") as drawn:
        np.testing.assert_allclose(np.asarray(drawn.convert("RGB"))[100, 100], [81, 255, 0], atol=1)


@pytest.mark.parametrize("command", ["evaluate", "explain", "export"])
def test_refusals(reds, invoke, command):
    more = {"explain": [reds / "data" / "dark" / "0.png"], "evaluate": ["--data", reds / "data"], "export": []}[command]
    for values, said in (
        (("0", "a"), "Received: 0 a"),
        (("0,1", "2,3"), "(3 here). Received: ((0.0, 1.0), (2.0, 3.0))"),
    ):
        result = invoke(command, reds / "told.keras", *more, "--output", reds / "no", "--values", *values)
        assert result.exit_code == 2 and said in result.stderr, result.stderr
        assert not (reds / "no").exists()


def test_pictures_with_masks_have_none(trained, invoke, tmp_path):
    result = invoke("evaluate", trained, "--output", tmp_path, "--values", 0, 1)
    assert result.exit_code == 2 and "--values is for classifiers; the pictures of unet go from 0 to 1" in result.stderr


def test_a_run_keeps_to_its_own(reds, invoke, monkeypatch):
    run, few = reds / "run", ["--epochs", 1, "--steps-per-epoch", 2, "--batch-size", 2]
    result = invoke("train", "resnet", "--data", reds / "data", *few, "--values", *ROWS, "--output", run)
    assert result.exit_code == 0, result.stderr
    assert json.loads((run / "options.json").read_text())["values"] == [[-2.12, -2.04, -1.8], [2.25, 2.43, 2.64]]
    assert "--values -2.12,-2.04,-1.8 2.25,2.43,2.64" in (run / "run.html").read_text()
    model = keras.models.load_model(run / "best.keras")
    seen = {}
    for options in ([], ["--values", -1, 1]):
        assert invoke("evaluate", run, *options).exit_code == 0
        seen[len(options)] = json.loads((run / "evaluate.json").read_text())["nll"]
    images = np.stack([np.asarray(Image.open(f)) for f in sorted((reds / "data").glob("*/*.png"))]) / 255
    black, white = (np.array([float(x) for x in row.split(",")]) for row in ROWS)
    assert seen[0] != seen[3]
    # of the held-out pictures, one of each class, the figure is that of the rows
    scores = np.asarray(model.predict_on_batch((black + (white - black) * images).astype("float32")), "float64")
    nll = np.log(np.exp(scores).sum(1)) - scores[np.arange(10), np.arange(10) // 5]
    assert any(seen[0] == pytest.approx((nll[i] + nll[5 + j]) / 2, rel=1e-4) for i in range(5) for j in range(5))
    result = invoke("export", run, "-o", reds / "m")
    assert result.exit_code == 0 and "-2.12" in (reds / "m" / "1" / "model_card.md").read_text(), result.stderr
