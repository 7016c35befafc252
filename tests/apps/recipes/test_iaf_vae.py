"""The recipe of autoencoders with a flow: both kinds are trained, judged and used by the commands."""

import pathlib

import numpy as np

from apps import run_folder, train
from apps.recipes import iaf_vae as recipe

TINY = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 8}
LADDER = {"size": "ladder", "settings": {"width": 6, "latents": 2, "context": 3, "flow_units": (4,), "levels": (1, 1)}}


def test_a_ladder_that_stopped_goes_on_as_if_it_had_not(stopped, tmp_path):
    train.train("iaf_vae", tmp_path / "whole", **TINY, **LADDER)
    folder = stopped("iaf_vae", **TINY, **LADDER)
    one, other = (run_folder.load_networks(path)[1] for path in (tmp_path / "whole", folder))
    assert sorted(one) == sorted(other) == ["decoder", "inference"]
    for name in one:
        for a, b in zip(one[name].get_weights(), other[name].get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_commands(invoke, tmp_path):
    folder = tmp_path / "run"
    train.train("iaf_vae", folder, size="tiny", **TINY)
    assert {path.stem for path in folder.glob("best_*.keras")} == {"best_encoder", "best_flow", "best_decoder"}
    model = run_folder.load(folder)
    found = recipe.evaluate(model, run_folder.datasets(folder, model, None).held_out, samples=2)
    assert found["elbo"] < found["importance_weighted"] < 0 and found["active_latents"] >= 0
    for command in ("sample", "reconstruct", "traverse"):
        done = invoke(command, folder)
        assert done.exit_code == 0, done.stderr
        assert (folder / "samples" / f"{command}.png").exists()
    page = (pathlib.Path(__file__).parents[3] / "docs" / "iaf_vae.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("tfzoo export")]
    words = line.partition("#")[0].split()[1:]
    done = invoke(*({"RUN": folder, "DIR": tmp_path / "served"}.get(word, word) for word in words))
    assert done.exit_code == 0, done.stderr
    assert all(name in done.stdout for name in ("serving_default", "decode"))
