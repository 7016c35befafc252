import json
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import tfzoo.export
import tfzoo.unet
from apps import run_folder
from apps.export import trained_on
from tfzoo.export import session, warm_up

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def exported(trained, invoke, tmp_path_factory):
    """The result of the command, and the folder of the version that it wrote; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "unet"
    result = invoke("export", trained, "-o", folder)
    assert result.exit_code == 0, result.stderr
    return result, folder / "1"


def test_what_is_served_is_the_best_model(exported, trained):
    result, path = exported
    assert f"wrote {path}; differences from the model" in result.stdout and "serving_bytes: 0.0e+00" in result.stdout
    assert "black and white" not in result.stdout  # the run says how it was trained
    image = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    want = 1 / (1 + np.exp(-keras.models.load_model(trained / "best.keras").predict(image, verbose=0)))
    assert np.ptp(want) > 0
    asked = list(warm_up.read(path))
    assert len(asked) == 2
    with session.load(path) as (_, run):
        np.testing.assert_allclose(run("serving_default", {"image": image})["mask"], want, rtol=1e-5)
        for name, inputs in asked:
            assert run(name, inputs)["mask"].shape == (2, 32, 32, 1)


def test_the_card_tells_of_the_run(exported, trained):
    card = (exported[1] / "model_card.md").read_text()
    assert "| data | pasted_digits |" in card and "| family | unet |" in card and "| val_loss |" in card
    assert "figures | none: \\`tfzoo evaluate" in card


def test_figures_on_held_out_data_are_in_the_card(trained, tmp_path):
    from apps import export

    shutil.copytree(trained, tmp_path / "run")
    run_folder.write_json(tmp_path / "run" / "evaluate.json", {"iou": 0.75})
    assert export.facts(tmp_path / "run")["Held-out data"] == {"iou": 0.75}


def test_options_reach_the_export(trained, invoke, tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(tfzoo.export, "save", lambda networks, output, **options: given.update(options) or 1 / 0)
    options = (
        "--version 9 --precision bfloat16 --fold --batch 4 --size 32 32 --values -1 1 --fit stretch --max-pixels 99"
    )
    with pytest.raises(ZeroDivisionError):
        invoke("export", trained, "-o", tmp_path / "m", *options.split())
    del given["progress"], given["facts"]
    assert given == {
        "signatures": tfzoo.unet.signatures,
        "version": 9,
        "precision": "bfloat16",
        "fold": True,
        "batch": 4,
        "size": (32, 32),
        "values": (-1.0, 1.0),
        "fit": "stretch",
        "max_pixels": 99,
    }


def test_versions_go_up(exported, trained, invoke, tmp_path):
    folder = tmp_path / "unet"
    shutil.copytree(exported[1].parent, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = invoke("export", trained, "-o", folder, "--version", "1")
    assert result.exit_code == 2 and "which has version 1. Accepted: --version 2 or more" in result.stderr
    (folder / "notes.txt").touch()
    result = invoke("export", trained, "-o", folder)
    assert result.exit_code == 2 and "which also has notes.txt. Name another folder" in result.stderr
    (folder / "notes.txt").unlink()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_an_unfinished_run(trained, invoke, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "training.json").unlink()
    result = invoke("export", tmp_path / "run", "-o", tmp_path / "m")
    assert (
        result.exit_code == 2 and "holds a run that is not finished. Go on with it (tfzoo train unet" in result.stderr
    )
    assert not (tmp_path / "m").exists()


def test_the_torch_side(trained, invoke, tmp_path):
    result = invoke("export", trained, "-o", tmp_path / "torch", "--framework", "torch")
    assert result.exit_code == 0, result.stderr
    files = {"model.py", "model.safetensors", "report.json", "report.html", "model.pt2", "model.onnx"}
    assert {path.name for path in (tmp_path / "torch" / "1").iterdir()} == files
    assert json.loads((tmp_path / "torch" / "1" / "report.json").read_text())["passed"]
    for file in ("model.py", "model.pt2", "model.onnx"):
        assert f"{file}, difference " in result.stdout
    again = invoke("export", trained, "-o", tmp_path / "torch", "--framework", "torch", "--version", "1")
    assert again.exit_code == 2 and "which has version 1" in again.stderr


def test_the_torch_side_has_no_options_of_the_other(trained, invoke, tmp_path):
    given = ("--framework", "torch", "--precision", "bfloat16", "--fold", "--size", "8", "8")
    result = invoke("export", trained, "-o", tmp_path / "m", *given)
    assert result.exit_code == 2 and "Received: --precision, --fold, --size" in result.stderr


def test_a_model_that_is_called_as_a_family(tmp_path, invoke):
    """Its name is no reason to put a sigmoid behind it."""
    x = keras.Input((8, 8, 3), name="image")
    y = keras.layers.Conv2D(1, 1, activation="sigmoid", name="probability")(x)
    keras.Model(x, y, name="unet").save(tmp_path / "mine.keras")
    assert invoke("export", tmp_path / "mine.keras", "-o", tmp_path / "m").exit_code == 0
    with session.load(tmp_path / "m" / "1") as (signatures, _):
        assert list(signatures["serving_default"].outputs) == ["probability"]


@pytest.mark.parametrize(
    "file, text", [("evaluate.json", "[1]"), ("evaluate.json", "{"), ("log.csv", "epoch,val_loss\n0,x")]
)
def test_a_damaged_run_folder(trained, invoke, tmp_path, file, text):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / file).write_text(text)
    result = invoke("export", tmp_path / "run", "-o", tmp_path / "m")
    assert result.exit_code == 2 and f"{file} is " in result.stderr and "damaged" in result.stderr


def test_a_difference_is_not_published(trained, invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(tfzoo.export, "replay", lambda path, wanted: dict.fromkeys(wanted, 1e-3))
    result = invoke("export", trained, "-o", tmp_path / "deep" / "er")
    assert result.exit_code == 1 and "the SavedModel differs serving_default by 1.0e-03" in result.stderr
    monkeypatch.setattr("bridge.artifacts.write", lambda network, folder: ({"model.py": 1e-2}, []))
    result = invoke("export", trained, "-o", tmp_path / "deep" / "er", "--framework", "torch")
    assert result.exit_code == 1 and "model.py by 1.0e-02 of the largest output: not what model gives" in result.stderr
    assert not list(tmp_path.iterdir())


def test_no_room_for_a_version_leaves_nothing(trained, invoke, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the weights are larger: TensorFlow's own error
        result = invoke("export", trained, "-o", tmp_path / "models" / "unet")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 3 and "no room left to write in" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_of_no_family(tmp_path, invoke):
    x = keras.Input((4,), name="x")
    keras.Model(x, keras.layers.Dense(2, name="y")(x), name="mine").save(tmp_path / "mine.keras")
    result = invoke("export", tmp_path / "mine.keras", "-o", tmp_path / "m")
    assert result.exit_code == 0 and "There is no signature serving_bytes: it needs one input" in result.stdout
    with session.load(tmp_path / "m" / "1") as (signatures, _):
        assert list(signatures) == ["serving_default"] and list(signatures["serving_default"].outputs) == ["y"]


def test_the_next_command_can_be_pasted(trained, invoke, tmp_path):
    result = invoke("export", trained, "-o", tmp_path / "my models")
    assert f"--dir '{tmp_path}/my models/1'\n" in result.stdout


@pytest.mark.parametrize("how", ["empty", "cut short", "a bit flipped", "text"])
def test_a_damaged_model_is_refused(how, damaged, invoke, tmp_path):
    result = invoke("export", damaged(how), "-o", tmp_path / "models")
    assert result.exit_code == 2 and "cannot be read as a Keras model" in result.stderr
    assert not (tmp_path / "models").exists()


def test_a_place_that_cannot_be_written(trained, invoke, tmp_path):
    (tmp_path / "file").touch()
    result = invoke("export", trained, "-o", tmp_path / "file")
    assert result.exit_code == 2 and "a folder that can be written. Received:" in result.stderr
    assert "(Not a directory)" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_killed_export_publishes_nothing(trained, invoke, tmp_path):
    """A real process, killed while it writes; what it left is no version to a server, and the next export goes on."""
    folder = tmp_path / "unet"
    command = [sys.executable, "-m", "apps", "export", trained, "-o", folder]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while not list(folder.glob(".partial-*/saved_model.pb")):
        assert running.poll() is None and time.monotonic() < deadline, running.stdout.read()
        time.sleep(0.002)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert [path for path in folder.iterdir() if path.name[0] != "."] == []
    result = invoke("export", trained, "-o", folder)
    assert result.exit_code == 0, result.stderr
    assert (folder / "1" / "saved_model.pb").is_file()


@pytest.mark.parametrize(
    ("options", "values", "fit"),
    [([], (-1.0, 1.0), "stretch"), (["--values", 0, 1, "--fit", "crop"], (0.0, 1.0), "crop")],
)
def test_a_classifiers_pixels_and_labels_are_those_of_its_run(
    classifier, invoke, tmp_path, monkeypatch, options, values, fit
):
    given = {}
    monkeypatch.setattr(tfzoo.export, "save", lambda networks, output, **options: given.update(options) or 1 / 0)
    for target in (classifier, classifier / "best.keras"):
        with pytest.raises(ZeroDivisionError):
            invoke("export", target, "-o", tmp_path / "m", *options)
        assert given["values"] == values and given["fit"] == fit
        assert given["signatures"].keywords == {"labels": ["cat", "dog"]}


def test_a_file_of_no_run_is_exported_as_its_family(invoke, tmp_path):
    model = tfzoo.build("resnet", size="tiny")
    model.save(tmp_path / "resnet.keras")
    result = invoke("export", tmp_path / "resnet.keras", "-o", tmp_path / "m")
    assert result.exit_code == 0, result.stderr
    with session.load(tmp_path / "m" / "1") as (signatures, _):
        assert list(signatures["serving_bytes"].outputs) == ["probabilities"]
    card = (tmp_path / "m" / "1" / "model_card.md").read_text()
    assert "-1.0" in card and "stretch" in card
    said = "black and white are taken for -1 and 1, as the recipe of resnet has them (--values names others)"
    assert said in result.stdout
    result = invoke("export", tmp_path / "resnet.keras", "-o", tmp_path / "m", "--values", 0, 1)
    assert result.exit_code == 0 and "black and white" not in result.stdout


def test_what_is_served_is_fitted_as_the_recipe_says():
    large, any_size = (tfzoo.build("resnet", size="tiny", image_shape=(n, n, 3)) for n in (96, None))
    assert trained_on(None, {}, large) == trained_on("mine", {}, large) == {"values": (0.0, 1.0), "fit": "crop"}
    assert trained_on("unet", {}, large) == {"values": (0.0, 1.0), "fit": "crop"}
    assert trained_on("vit", {}, large, size=(8, 8)) == {"values": (-1.0, 1.0), "fit": "middle"}
    assert trained_on("resnet", {}, any_size, size=(8, 8))["fit"] == "stretch"
    assert trained_on("resnet", {}, any_size)["fit"] == "crop"
