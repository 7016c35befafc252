"""What a real run leaves: TensorBoard's own reader, and the tables that it has to agree with."""

import ast
import csv
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from apps.recipes import find
from apps.train import train

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = {"size": "tiny", "epochs": 3, "steps_per_epoch": 2, "batch_size": 4, "checkpoint_steps": 1, "ema": 0.5}


def table(folder, name):
    return list(csv.DictReader((folder / name).open()))


def read(folder):
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={SCALARS: 0, IMAGES: 0})
    return found.Reload()


def assert_agrees(folder):
    """Compare what TensorBoard reads with both tables."""
    found = read(folder)
    logs, speeds = table(folder, "log.csv"), table(folder, "speed.csv")
    columns = {name: [row[name] for row in logs] for name in logs[0] if name != "epoch"}
    columns["examples_per_second"] = [row["examples_per_second"] for row in speeds]
    assert set(found.Tags()["scalars"]) == set(columns)
    for name, values in columns.items():
        points = found.Scalars(name)
        assert [point.step for point in points] == list(range(len(logs))), name
        np.testing.assert_allclose([point.value for point in points], np.float64(values), rtol=1e-4, atol=1e-3)
    assert [image.step for image in found.Images("validation")] == list(range(len(logs)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three epochs; not to be changed."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    train("unet", folder, **OPTIONS)
    return folder


def test_tensorboard_shows_what_the_tables_hold(run):
    assert_agrees(run)
    names = [node.name for node in read(run).Graph().node]
    assert any("down0_conv0" in name for name in names) and any("logits" in name for name in names)


def test_the_times_add_up(run):
    trained, speeds = json.loads((run / "training.json").read_text()), table(run, "speed.csv")
    assert trained["epochs"] == len(speeds) == 3 and trained["steps"] == 6
    assert trained["seconds"] == pytest.approx(sum(float(row["seconds"]) for row in speeds), abs=1e-3)
    rates = [float(row["examples_per_second"]) for row in speeds]
    assert trained["examples_per_second"] == pytest.approx(3 / sum(1 / rate for rate in rates), rel=1e-3)
    assert all(8 / float(row["examples_per_second"]) < 2 * float(row["seconds"]) for row in speeds)


def test_the_picture_is_of_the_averages_on_validation_data(run, tmp_path):
    unet = find("unet")
    validation = unet.datasets("pasted_digits", (32, 32, 3), batch_size=4, seed=0).validation
    unet.draw(keras.models.load_model(run / "model.keras"), validation, tmp_path / "expected.png")
    expected = (tmp_path / "expected.png").read_bytes()
    assert (run / "samples" / "validation.png").read_bytes() == expected
    assert read(run).Images("validation")[-1].encoded_image_string == expected


def test_a_run_that_was_begun_again_has_every_epoch_once(run, tmp_path):
    """Its third epoch was there when it went on from the middle of that epoch."""
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "training.json").unlink()
    train("unet", folder, from_step=5)
    assert_agrees(folder)
    assert (folder / "log.csv").read_text() == (run / "log.csv").read_text()
    pictures = [[image.encoded_image_string for image in read(each).Images("validation")] for each in (folder, run)]
    assert pictures[0] == pictures[1]


SOURCES = [path for package in ("apps", "tfzoo") for path in (ROOT / package).rglob("*.py")]


def test_nothing_is_imported_that_only_the_end_needs():
    """Keras imports matplotlib itself where it is installed; the others wait until they are used."""
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            names = [node.module] if isinstance(node, ast.ImportFrom) else getattr(node, "names", [])
            found = {str(getattr(name, "name", name)).partition(".")[0] for name in names}
            assert not found & {"matplotlib", "tensorboard", "jinja2", "rich"}, path


def test_tensorboard_is_not_needed_to_write():
    assert not [path for path in SOURCES if "import tensorboard" in path.read_text()]
    assert not [path for path in SOURCES if "from tensorboard" in path.read_text()]
