"""`tfzoo traverse`: a row for each latent, all of them moving, and a map of two."""

import numpy as np
from PIL import Image

from apps import run_folder, sheets, train


def test_a_row_for_each_latent(invoke, autoencoder, tmp_path):
    done = invoke("traverse", autoencoder, "--steps", 5, "--reach", 2, "--picture", 7, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "3 latents from -2 to 2" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["traverse.gif", "traverse.png"]
    model = run_folder.load(autoencoder)
    held_out = np.concatenate(
        [b[0] for b in run_folder.datasets(autoencoder, model, None).held_out.as_numpy_iterator()]
    )
    rows = model.traverse(held_out[7], np.linspace(-2, 2, 5))
    with Image.open(tmp_path / "traverse.png") as drawn:
        np.testing.assert_array_equal(drawn, sheets.tiles(rows.reshape(15, 8, 8, 1), 5))
    with Image.open(tmp_path / "traverse.gif") as opened:
        assert opened.n_frames == 8
    assert np.ptp(rows, axis=1).max() > 1e-4


def test_two_latents_are_a_map(invoke, tmp_path):
    asked = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 4, "size": "tiny", "settings": {"latents": 2}}
    train.train("vae", tmp_path / "run", **asked)
    done = invoke("traverse", tmp_path / "run", "--steps", 3)
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "run" / "samples" / "map.png") as drawn:
        assert drawn.size == (1300, 650) and np.asarray(drawn).std() > 20


def test_a_picture_that_is_not_there(invoke, autoencoder, tmp_path):
    done = invoke("traverse", autoencoder, "--picture", 360, "--output", tmp_path)
    assert done.exit_code == 2 and "--picture must be below 360, the held-out pictures. Received: 360" in done.stderr
    assert not list(tmp_path.iterdir())
