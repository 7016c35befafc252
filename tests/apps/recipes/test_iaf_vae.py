"""The recipe of autoencoders with a flow: both kinds are trained, judged and used by the commands."""

import numpy as np
import pytest

from apps import run_folder, train
from apps.recipes import iaf_vae as recipe

TINY = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 8}
LADDER = {"size": "ladder", "settings": {"width": 6, "latents": 2, "context": 3, "flow_units": (4,), "levels": (1, 1)}}


@pytest.mark.parametrize(
    "options, names",
    [({"size": "tiny"}, ["decoder", "encoder", "flow"]), (LADDER, ["decoder", "inference"])],
    ids=["dense", "ladder"],
)
def test_a_run(options, names, invoke, stopped, tmp_path):
    """It stops and goes on as if it had not, and every command takes it."""
    train.train("iaf_vae", tmp_path / "whole", **TINY, **options)
    folder = stopped("iaf_vae", **TINY, **options)
    one, other = (run_folder.load_networks(path)[1] for path in (tmp_path / "whole", folder))
    assert sorted(one) == sorted(other) == names
    for name in names:
        for a, b in zip(one[name].get_weights(), other[name].get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    model = run_folder.load(folder)
    data = run_folder.datasets(folder, model, None)
    found = recipe.evaluate(model, data.held_out, samples=2)
    assert found["elbo"] < found["importance_weighted"] < 0 and found["active_latents"] >= 0
    for command, file in {"sample": "sample", "reconstruct": "reconstruct", "traverse": "traverse"}.items():
        done = invoke(command, folder)
        assert done.exit_code == 0, done.stderr
        assert (folder / "samples" / f"{file}.png").exists()
    done = invoke("export", folder, "--output", tmp_path / "served")
    assert done.exit_code == 0, done.stderr
    assert all(name in done.stdout for name in ("serving_default", "decode"))
