"""The recipe of autoencoders: what it learns from, what it measures, and that a run goes on as if never stopped."""

import math
import pathlib

import numpy as np
import pytest

import tfzoo
from apps import recipes, run_folder, train
from apps.recipes import vae as recipe
from tfzoo.variational.bounds import bounds
from tfzoo.variational.per_example import per_example

TINY = {"size": "tiny", "epochs": 2, "steps_per_epoch": 3, "batch_size": 8}


def pictures(likelihood="bernoulli", shape=(8, 8, 1), **options):
    model = tfzoo.build("vae", "tiny", image_shape=shape, likelihood=likelihood, **options)
    data = recipe.datasets("digits", shape, batch_size=16, seed=0, **recipes.follows(recipe, model))
    return model, data


@pytest.mark.parametrize(
    "likelihood, said",
    [
        ("bernoulli", "360 held out, cut at half of white to black and white"),
        ("gaussian", "360 held out"),
        ("discretised_logistic", "360 held out, rounded to 17 levels"),
    ],
)
def test_what_it_learns_from_is_what_the_decoder_gives(likelihood, said):
    from sklearn.datasets import load_digits

    model, data = pictures(likelihood, **({"levels": 17} if likelihood == "discretised_logistic" else {}))
    x = np.concatenate([batch[0] for batch in data.held_out.as_numpy_iterator()])
    assert x.shape == (360, 8, 8, 1) and not model.likelihood.check(x)
    assert data.description.endswith(said)
    (batch,) = next(data.training.as_numpy_iterator())
    assert batch.shape == (16, 8, 8, 1) and not model.likelihood.check(batch)
    known = load_digits().images / 16
    known = (known >= 0.5).astype("float32") if likelihood == "bernoulli" else known
    nearest = np.abs(known[None] - x[:20, None, :, :, 0]).max((2, 3)).min(1)  # a byte is not quite a sixteenth
    np.testing.assert_allclose(nearest, 0, atol=0.003 if likelihood == "gaussian" else 1e-6)


def test_other_sizes_and_colours():
    _, data = pictures(shape=(16, 12, 3))
    assert next(data.training.as_numpy_iterator())[0].shape == (16, 16, 12, 3)
    with pytest.raises(ValueError, match="image_shape must be .height, width, 1 or 3."):
        pictures(shape=(8, 8, 2))


def test_of_a_density_there_are_no_bits():
    model, data = pictures("gaussian")
    found = recipe.bounded(model, data.held_out, samples=2)
    assert found.keys() == {"elbo", "importance_weighted", "active_latents"}


def test_its_figures(monkeypatch):
    monkeypatch.setattr(recipe, "FITTED", 7)
    model, data = pictures()
    found = recipe.evaluate(model, data.held_out, samples=3)
    x = np.concatenate([batch[0] for batch in data.held_out.as_numpy_iterator()])
    wanted = bounds(model, x, 3)
    assert found["elbo"] == pytest.approx(wanted.elbo.mean()) and found["elbo"] < found["importance_weighted"]
    assert found["bits_per_dimension"] == pytest.approx(-wanted.importance_weighted.mean() / 64 / math.log(2))
    assert 0 <= found["active_latents"] <= 3
    fitted = per_example(model, x[:7], 3)
    best = fitted.per_example.elbo.mean()
    assert found["per_example_elbo"] == pytest.approx(best)
    assert found["amortisation_gap"] == pytest.approx(best - fitted.amortised.elbo.mean()) and best != 0
    assert found["approximation_gap"] == pytest.approx(fitted.per_example.importance_weighted.mean() - best)


def test_a_run(autoencoder):
    files = {path.name for path in autoencoder.iterdir()}
    assert {"encoder.keras", "decoder.keras", "best_encoder.keras", "best_decoder.keras"} <= files
    assert "optimizer.json" not in files  # of one network alone
    model, (_, networks) = run_folder.load(autoencoder), run_folder.load_networks(autoencoder)
    for name, network in networks.items():
        for a, b in zip(getattr(model, name).get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path, stopped):
    """The draws, too: a checkpoint keeps where they are."""
    train.train("vae", tmp_path / "whole", **TINY)

    folder = stopped("vae", **TINY)
    one, other = (run_folder.load_networks(path)[1] for path in (tmp_path / "whole", folder))
    for name in one:
        for a, b in zip(one[name].get_weights(), other[name].get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_commands(invoke, autoencoder, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "FITTED", 7)
    done = invoke("evaluate", autoencoder, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "amortisation_gap" in done.stdout and (tmp_path / "samples" / "evaluate.png").exists()
    done = invoke("evaluate", autoencoder / "best_encoder.keras", "--output", tmp_path / "one")
    assert done.exit_code == 2 and f"is one of several networks. Accepted: the run folder, {autoencoder}" in done.stderr
    assert not (tmp_path / "one").exists()
    page = (pathlib.Path(__file__).parents[3] / "docs" / "vae.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("tfzoo export")]
    words = line.partition("#")[0].split()[1:]
    done = invoke(*({"RUN": autoencoder, "DIR": tmp_path / "vae"}.get(word, word) for word in words))
    assert done.exit_code == 0, done.stderr
    assert all(name in done.stdout for name in ("serving_default", "decode"))
