"""The recipe of flows: the noise between the greys, what it measures, and that a run goes on as if never stopped."""

import math

import numpy as np
import pytest
from PIL import Image

import tfzoo
from apps import recipes, run_folder, sheets, train
from apps.recipes import normalizing_flow as recipe

TINY = {"size": "tiny", "epochs": 2, "steps_per_epoch": 3, "batch_size": 8}


def pictures(shape=(8, 8, 1), seed=0, batch_size=16, **options):
    model = tfzoo.build("normalizing_flow", "tiny", shape=shape, **options)
    return model, recipe.datasets("digits", shape, batch_size=batch_size, seed=seed, **recipes.follows(recipe, model))


def whole(part):
    return np.concatenate([batch[0] for batch in part.as_numpy_iterator()])


def test_the_noise_is_between_the_greys():
    from sklearn.datasets import load_digits

    _, data = pictures()
    held_out, (batch,) = whole(data.held_out), next(data.training.as_numpy_iterator())
    known = load_digits().images[..., None]
    for x in (held_out[:20], batch):
        noise = x * 16 - np.floor(x * 16 + 1e-6)
        assert np.abs(np.floor(x * 16 + 1e-6)[:, None] - known[None]).max((2, 3, 4)).min(1).max() == 0
        assert abs(noise.mean() - 0.5) < 0.03 and abs(noise.std() - 12**-0.5) < 0.03
    assert held_out.shape == (360, 8, 8, 1) and held_out.min() >= 0 and held_out.max() < 17 / 16


def test_the_noise_is_another_in_every_epoch_and_the_same_in_what_is_judged():
    _, data = pictures(batch_size=1257)
    first, second = (batch[0] for batch in data.training.take(2).as_numpy_iterator())
    greys, others = np.floor(first * 16 + 1e-6), np.floor(second * 16 + 1e-6)
    same = np.abs(others - greys[:1]).max((1, 2, 3)).argmin()  # the first picture, in the next epoch
    assert (others[same] == greys[0]).all() and np.abs(second[same] - first[0]).max() > 0.01
    again = pictures(seed=5, batch_size=7)[1]
    np.testing.assert_array_equal(whole(again.held_out), whole(data.held_out))
    some = whole(data.held_out)
    noise = (some * 16) % 1
    assert np.abs(np.corrcoef(noise[:2].reshape(2, -1))[0, 1]) < 0.5  # other pictures have another


def test_other_sizes_and_what_is_no_picture():
    _, data = pictures(shape=(16, 12, 3), levels=256)
    (batch,) = next(data.training.as_numpy_iterator())
    assert batch.shape == (16, 16, 12, 3) and batch.max() < 256 / 255
    for shape in ((2,), (8, 8, 2)):
        with pytest.raises(ValueError, match="shape must be .height, width, 1 or 3.. Received: shape="):
            pictures(shape=shape)


def test_its_figures():
    model, data = pictures()
    found, x = recipe.evaluate(model, data.held_out), whole(data.held_out)
    assert found["log_likelihood"] == pytest.approx(model.log_prob(x).mean(), rel=1e-5)
    # P(greys) is at least the density times the volume of its noise
    bits = -(found["log_likelihood"] + 64 * math.log(1 / 16)) / 64 / math.log(2)
    assert found["bits_per_dimension"] == pytest.approx(bits, rel=1e-6)
    assert 0 <= found["inverse_error"] < 1e-5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flow") / "run"
    train.train("normalizing_flow", folder, **TINY)
    return folder


def test_a_run(run):
    files = {path.name for path in run.iterdir()}
    assert {"flow.keras", "inverse_network.keras", "best_flow.keras", "best_inverse_network.keras"} <= files
    model, (_, networks) = run_folder.load(run), run_folder.load_networks(run)
    for name, network in networks.items():
        for a, b in zip(getattr(model, name).get_weights(), network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert any(path.suffix == ".png" for path in (run / "samples").rglob("*"))


def test_a_run_that_stopped_goes_on_as_if_it_had_not(run, stopped):
    folder = stopped("normalizing_flow", **TINY)
    one, other = (run_folder.load_networks(path)[1] for path in (run, folder))
    for name in one:
        for a, b in zip(one[name].get_weights(), other[name].get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_commands(invoke, run, tmp_path):
    done = invoke("evaluate", run, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "log_likelihood" in done.stdout and (tmp_path / "samples" / "evaluate.png").exists()
    done = invoke("sample", run, "-n", 9, "--seed", 4, "--output", tmp_path / "grid.png")
    assert done.exit_code == 0, done.stderr
    with Image.open(tmp_path / "grid.png") as drawn:
        np.testing.assert_array_equal(drawn, sheets.tiles(run_folder.load(run).sample(9, 4)))
    done = invoke("export", run, "--output", tmp_path / "flow")
    assert done.exit_code == 0, done.stderr
    assert all(name in done.stdout for name in ("serving_default", "decode"))
