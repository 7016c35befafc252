"""`tfzoo reconstruct`: held-out pictures, and below each what comes back."""

import numpy as np
from PIL import Image

from apps import run_folder, sheets


def test_pictures_and_what_comes_back(invoke, autoencoder, tmp_path):
    done = invoke("reconstruct", autoencoder, "-n", 20, "--output", tmp_path / "a.png")
    assert done.exit_code == 0, done.stderr
    model = run_folder.load(autoencoder)
    held_out = np.concatenate(
        [b[0] for b in run_folder.datasets(autoencoder, model, None).held_out.as_numpy_iterator()]
    )
    pictures = held_out[:20]
    back = model.reconstruct(pictures)
    assert f"mean squared error of a pixel: {np.square(pictures - back).mean():.4f}" in done.stdout
    assert set(np.unique(pictures)) == {0, 1}
    with Image.open(tmp_path / "a.png") as drawn:
        cells = np.asarray(drawn)
    row = np.asarray(sheets.tiles(back[16:], 16))
    np.testing.assert_array_equal(cells[3 * 66 : 3 * 66 + 64, : row.shape[1]], row[:64])


def test_data_of_another_kind(invoke, autoencoder, tmp_path):
    done = invoke("reconstruct", autoencoder, "--data", tmp_path, "--output", tmp_path / "a.png")
    assert done.exit_code == 2 and "pictures" in done.stderr
    assert not (tmp_path / "a.png").exists()
