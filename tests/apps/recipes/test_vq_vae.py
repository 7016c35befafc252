"""The recipe of vector-quantised autoencoders: its data, its figures, its commands, and exact resume."""

import numpy as np
import pytest

import tfzoo
from apps import recipes, run_folder, train
from apps.recipes import vq_vae as recipe

TINY = {"size": "tiny", "epochs": 2, "steps_per_epoch": 3, "batch_size": 8}


def test_its_data_are_greys():
    from sklearn.datasets import load_digits

    model = tfzoo.build("vq_vae", "tiny")
    data = recipe.datasets("digits", (8, 8, 1), batch_size=16, seed=0, **recipes.follows(recipe, model))
    (batch,) = next(data.training.as_numpy_iterator())
    nearest = np.abs(load_digits().images[None] / 16 - batch[:, None, :, :, 0]).max((2, 3)).min(1)
    np.testing.assert_allclose(nearest, 0, atol=0.003)


def test_a_codebook_larger_than_the_data():
    model = tfzoo.build("vq_vae", "tiny", codes=20_113)
    with pytest.raises(ValueError, match="20113 codes, and the pictures have 20112 vectors"):  # 1,257 of 16
        recipe.datasets("digits", (8, 8, 1), batch_size=16, seed=0, **recipes.follows(recipe, model))


def test_its_figures():
    model = tfzoo.build("vq_vae", "tiny")
    data = recipe.datasets("digits", (8, 8, 1), batch_size=16, seed=0, **recipes.follows(recipe, model))
    found = recipe.evaluate(model, data.held_out)
    x = np.concatenate([batch[0] for batch in data.held_out.as_numpy_iterator()])
    found_again = model.quantiser(model.encoder(x))
    error = np.square(x - model.decoder(found_again["quantised"])).mean()
    assert found["squared_error"] == pytest.approx(error, rel=1e-4)
    assert found["psnr"] == pytest.approx(-10 * np.log10(error), rel=1e-4)
    counts = np.bincount(np.ravel(found_again["codes"]), minlength=8)
    share = counts[counts > 0] / counts.sum()
    assert found["codes_in_use"] == len(share)
    assert found["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)
    logits = np.asarray(model.prior(found_again["codes"]), "float64")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = np.take_along_axis(log_p, np.asarray(found_again["codes"])[..., None], -1)
    assert found["prior_nats"] == pytest.approx(-each.sum() / len(x), rel=1e-4)


def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path, stopped, invoke):
    """The codebook's averages and the draws for dead codes, too."""
    train.train("vq_vae", tmp_path / "whole", **TINY)

    folder = stopped("vq_vae", **TINY)
    one, other = (run_folder.load_networks(path)[1] for path in (tmp_path / "whole", folder))
    assert set(one) == {"encoder", "quantiser", "decoder", "prior"}
    for name in one:
        for a, b in zip(one[name].get_weights(), other[name].get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    for command, file in (("sample", "sample.png"), ("reconstruct", "reconstruct.png")):
        done = invoke(command, tmp_path / "whole", "-n", 5)
        assert done.exit_code == 0, done.stderr
        assert (tmp_path / "whole" / "samples" / file).exists()
    done = invoke("evaluate", tmp_path / "whole", "--output", tmp_path / "judged")
    assert done.exit_code == 0 and "codes_in_use" in done.stdout, done.stderr
