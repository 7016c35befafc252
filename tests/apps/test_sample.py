"""`tfzoo sample`: what the run's model draws, and nothing of a run that cannot."""

import numpy as np
from PIL import Image

from apps import run_folder, sheets


def test_it_draws_what_the_model_gives(invoke, autoencoder, tmp_path):
    path = tmp_path / "grid.png"
    done = invoke("sample", autoencoder, "-n", 9, "--seed", 4, "--output", path)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"wrote {path}: 9 samples by seed 4\n"
    wanted = sheets.tiles(run_folder.load(autoencoder).sample(9, 4))
    with Image.open(path) as drawn:
        np.testing.assert_array_equal(drawn, wanted)
    assert np.asarray(wanted).std() > 1
    assert invoke("sample", autoencoder).exit_code == 0
    assert (autoencoder / "samples" / "sample.png").exists()


def test_a_model_that_cannot(invoke, trained, tmp_path):
    for target, text in ((trained, "is a run of unet"), (trained / "best.keras", "is no run folder")):
        done = invoke("sample", target, "--output", tmp_path / "a.png")
        assert done.exit_code == 2 and f"{target} {text}. Accepted: a run folder of " in done.stderr
        assert "vae" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_network_that_is_missing_or_of_another_size(invoke, autoencoder, tmp_path):
    import shutil

    run = shutil.copytree(autoencoder, tmp_path / "run")
    (run / "best_decoder.keras").unlink()
    done = invoke("sample", run)
    assert done.exit_code == 2 and "must have best models of encoder, decoder. Received: encoder" in done.stderr
    shutil.copy(autoencoder / "best_encoder.keras", run / "best_decoder.keras")
    done = invoke("sample", run)
    assert done.exit_code == 2 and "cannot be loaded into decoder" in done.stderr
