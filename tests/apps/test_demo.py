import json

import keras
import numpy as np
import pytest

import bridge
from apps import demo

SHORT = ("demo", "--size", "tiny", "--epochs", "1", "--steps-per-epoch", "2")


@pytest.fixture(scope="module")
def shown(invoke, tmp_path_factory):
    """The demo on a shortened setting, run where a newcomer runs it: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "30")  # of no meaning where the output is no terminal
        result = invoke(*SHORT)
    assert result.exit_code == 0, result.stderr
    return folder / "runs" / "demo", result.stdout


def test_it_wrote_what_it_says(shown):
    folder, said = shown
    paths = [line.split()[0] for line in said.splitlines() if line.startswith("runs/demo/")]
    assert len(paths) == 7
    for path in paths:
        assert (folder.parents[1] / path).stat().st_size > 0


def test_it_shows_the_figures_that_it_measured(shown):
    folder, said = shown
    measured = json.loads((folder / "evaluate.json").read_text())
    assert measured.pop("model") == "best.keras" and measured.pop("data")
    for name, value in measured.items():
        assert any(line.split() == [name, f"{value:.3f}"] for line in said.splitlines())
    assert "bit-identical" in said and "largest difference" in said


def test_the_proof_is_there(shown):
    folder, _ = shown
    assert json.loads((folder / "torch" / "report.json").read_text())["passed"] is True


def test_what_came_back_is_what_went(shown):
    folder, _ = shown
    there, back = (keras.models.load_model(folder / name) for name in ("best.keras", "back.keras"))
    for a, b in zip(there.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_lost_on_the_way_is_seen(shown, monkeypatch):
    folder, _ = shown
    load = bridge.load_torch

    def careless(*arguments, **options):
        module = load(*arguments, **options)
        next(module.parameters()).data[0] *= 1.001
        return module

    monkeypatch.setattr(bridge, "load_torch", careless)
    monkeypatch.setattr(bridge, "save_torch", lambda model, path: bridge.verify(model, load(path, trust=True)))
    with pytest.raises(demo.VerificationFailed, match="not bit for bit"):
        demo.carried(folder)


def test_it_can_be_repeated(tmp_path):
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert demo.free_folder(tmp_path / "demo") == tmp_path / "demo-3"


def test_a_place_that_cannot_be_written_is_refused_before_it_begins(invoke, tmp_path):
    (tmp_path / "file").touch()
    result = invoke(*SHORT, "--output", tmp_path / "file" / "run")
    assert result.exit_code == 2 and "a folder that can be written" in result.stderr and not result.stdout


def test_an_output_that_exists_is_refused(invoke, tmp_path):
    (tmp_path / "mine").touch()
    result = invoke(*SHORT, "--output", tmp_path)
    assert result.exit_code == 2 and "the output folder must be new or empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
