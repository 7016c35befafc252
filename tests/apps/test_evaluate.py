import html
import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

import tfzoo
from apps.recipes import find


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run that may be written into."""
    return shutil.copytree(trained, tmp_path / "run")


def figures(folder):
    """The numbers of `evaluate.json`."""
    found = json.loads((folder / "evaluate.json").read_text())
    return {name: value for name, value in found.items() if not isinstance(value, str)}


def of(folder):
    """What the figures of `evaluate.json` are of: data, model."""
    found = json.loads((folder / "evaluate.json").read_text())
    return found["data"], found["model"]


def test_the_figures_are_the_recipes(run, invoke):
    result = invoke("evaluate", run)
    assert result.exit_code == 0, result.stderr
    unet = find("unet")
    held_out = unet.datasets("pasted_digits", (32, 32, 3), batch_size=4, seed=0).held_out
    expected = unet.evaluate(keras.models.load_model(run / "best.keras"), held_out)
    assert figures(run) == pytest.approx(expected)
    for name, value in expected.items():
        assert name in result.stdout and f"{value:.3f}" in result.stdout
    pixels = np.asarray(Image.open(run / "samples" / "evaluate.png"))
    assert pixels.std() > 10  # a picture, not a blank sheet


def test_the_best_model_is_measured_and_the_last_on_demand(run, invoke):
    blind = keras.models.load_model(run / "best.keras")
    blind.get_layer("logits").bias.assign([1e6])  # says "foreground" everywhere
    blind.save(run / "best.keras")
    assert invoke("evaluate", run).exit_code == 0
    best = json.loads((run / "evaluate.json").read_text())
    assert best["iou"] == best["all_foreground_iou"]
    assert invoke("evaluate", run / "model.keras").exit_code == 0
    assert json.loads((run / "evaluate.json").read_text())["iou"] != best["iou"]


def test_the_figures_say_of_what_they_are(run, invoke, tmp_path):
    mine = tmp_path / "<mine>"
    for name in ("images", "masks"):
        (mine / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (32, 32), 255 * (i % 2)).save(mine / name / f"{i}.png")
    assert invoke("evaluate", run).exit_code == 0
    assert of(run) == (json.loads((run / "options.json").read_text())["examples"], "best.keras")
    assert invoke("evaluate", run / "model.keras", "--data", mine).exit_code == 0
    data, model = of(run)
    assert "<mine>" in data and model == "model.keras"
    page = (run / "run.html").read_text()
    assert f'<td>data</td><td class="n">{html.escape(data)}</td>' in page and ">model.keras</td>" in page


def test_the_page_of_a_run_is_of_its_own_model_alone(run, invoke, tmp_path):
    shutil.copy(run / "best.keras", tmp_path / "foreign.keras")
    other = shutil.copytree(run, tmp_path / "other")
    for target, model in ((tmp_path / "foreign.keras", "foreign.keras"), (other, "other/best.keras")):
        before = (run / "run.html").read_bytes()
        result = invoke("evaluate", target, "--output", run)
        assert result.exit_code == 0 and "run.html" not in result.stdout, result.stderr
        assert of(run)[1] == str(tmp_path / model)
        assert (run / "run.html").read_bytes() == before


def test_a_file_without_a_run(run, invoke, tmp_path):
    shutil.copy(run / "best.keras", tmp_path / "alone.keras")
    result = invoke("evaluate", tmp_path / "alone.keras", "--output", tmp_path / "results")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "results" / "evaluate.json").exists()
    assert (tmp_path / "results" / "samples" / "evaluate.png").exists()


def test_a_file_of_no_family(invoke, tmp_path):
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Conv2D(1, 1)(image), name="mine").save(tmp_path / "mine.keras")
    result = invoke("evaluate", tmp_path / "mine.keras")
    assert result.exit_code == 2 and "no recipe for the family 'mine'. Accepted: googlenet, " in result.stderr


@pytest.mark.parametrize("how", ["empty", "cut short", "a bit flipped", "text"])
def test_a_damaged_model_is_refused(how, damaged, invoke, tmp_path):
    path = damaged(how)
    result = invoke("evaluate", path)
    assert result.exit_code == 2 and f"error: {path} cannot be read as a Keras model" in result.stderr
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none"], "no such model: none"),
        (["empty"], "empty is not a run folder"),
        (["run", "--data", "empty"], "empty"),
        (["run", "--output", "run/log.csv/results"], "a folder that can be written"),
    ],
)
def test_what_cannot_be_read_or_written_is_named(arguments, said, run, invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = invoke("evaluate", *arguments)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and said in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_classifiers_figures_are_those_of_numpy(classifier, invoke, tmp_path):
    result = invoke("evaluate", classifier, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    options = json.loads((classifier / "options.json").read_text())
    data = find("resnet").datasets(options["data"], (16, 16, 3), batch_size=2, seed=options["seed"])
    images, labels = (np.concatenate(parts) for parts in zip(*data.held_out.as_numpy_iterator(), strict=True))
    scores = np.asarray(keras.models.load_model(classifier / "best.keras")(images), "float64")
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    guesses, sure = scores.argmax(1), probabilities.max(1)
    met = np.union1d(labels, guesses)
    taken = np.array([[np.sum((labels == i) & (guesses == j)) for j in met] for i in met])
    bins = np.ceil(15 * sure)
    gaps = [
        np.mean(bins == b) * abs(np.mean((guesses == labels)[bins == b]) - sure[bins == b].mean()) for b in set(bins)
    ]
    assert len(labels) == 2 and figures(tmp_path / "out") == pytest.approx(
        {
            "top1": np.mean(guesses == labels),
            "recall": np.mean(np.diag(taken) / np.maximum(taken.sum(1), 1)),
            "precision": np.mean(np.diag(taken) / np.maximum(taken.sum(0), 1)),
            "nll": -np.mean(np.log(probabilities[np.arange(len(labels)), labels])),
            "calibration": np.sum(gaps),
            "most_frequent": np.bincount(labels).max() / len(labels),
        },
        rel=1e-4,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include_top": False}, "resnet is no classifier of pictures. Accepted: a functional model from"),
        ({"image_shape": (None, None, 1)}, "image_shape must be (height, width, 1 or 3). Received: image_shape=(None,"),
    ],
)
def test_a_network_that_is_no_classifier_of_one_size(invoke, tmp_path, options, said):
    model = tfzoo.build("resnet", size="tiny", **{"image_shape": (8, 8, 1), **options})
    model.save(tmp_path / "a.keras")
    result = invoke("evaluate", tmp_path / "a.keras", "--output", tmp_path / "out")
    assert result.exit_code == 2 and said in result.stderr and not (tmp_path / "out").exists()


def test_other_classes_than_the_models_are_refused(classifier, invoke, tmp_path):
    result = invoke("evaluate", classifier, "--output", tmp_path / "same")
    assert result.exit_code == 0, result.stderr
    shutil.copytree(classifier.parent / "data", tmp_path / "data")
    (tmp_path / "data" / "cat").rename(tmp_path / "data" / "zebra")  # dog, zebra
    result = invoke("evaluate", classifier, "--data", tmp_path / "data", "--output", tmp_path / "out")
    assert result.exit_code == 2 and "trained on the classes cat, dog, in this order" in result.stderr
    assert "Received: dog, zebra" in result.stderr and not (tmp_path / "out").exists()


def test_a_picture_that_cannot_be_drawn_leaves_the_results_before(run, invoke, monkeypatch):
    assert invoke("evaluate", run).exit_code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    def draw(model, dataset, path, **named):
        path.write_text("half")
        raise ZeroDivisionError("no picture")

    monkeypatch.setattr(find("unet"), "draw", draw)
    with pytest.raises(ZeroDivisionError, match="no picture"):
        invoke("evaluate", run / "model.keras")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_lone_file_is_not_judged_on_another_number_of_classes(classifier, invoke, tmp_path):
    tfzoo.build("resnet", size="tiny", image_shape=(16, 16, 3)).save(tmp_path / "ten.keras")
    result = invoke(
        "evaluate", tmp_path / "ten.keras", "--data", classifier.parent / "data", "--output", tmp_path / "out"
    )
    assert result.exit_code == 2 and "ten.keras knows 10 classes, and no run says which" in result.stderr
    assert "data of 10 classes. Received: 2 classes of " in result.stderr and not (tmp_path / "out").exists()


def test_a_lone_file_says_on_what_it_is_judged(classifier, invoke, tmp_path):
    shutil.copy(classifier / "best.keras", tmp_path / "alone.keras")
    given = ("--data", classifier.parent / "data", "--output", tmp_path / "out")
    result = invoke("evaluate", tmp_path / "alone.keras", *given)
    assert result.exit_code == 0, result.stderr
    assert f"alone.keras on {of(tmp_path / 'out')[0]}\n" in result.stdout and "data: 4" in of(tmp_path / "out")[0]
    assert "black and white are taken for -1 and 1, as the recipe of resnet has them" in result.stdout
    result = invoke("evaluate", classifier, "--output", tmp_path / "of a run")
    assert "best.keras on " in result.stdout and "black and white" not in result.stdout
