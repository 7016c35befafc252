"""A trained run and a way to call the commands, shared by the tests of apps/."""

import pathlib

import pytest
from typer.testing import CliRunner

from apps.__main__ import application

TINY = ("--size", "tiny", "--epochs", "1", "--steps-per-epoch", "3", "--batch-size", "4")


@pytest.fixture(scope="session")
def invoke():
    """Call `tfzoo` in this process: `invoke("train", "unet", ...)` gives exit_code, stdout and stderr."""
    return lambda *arguments: CliRunner().invoke(
        application(), [str(argument) for argument in arguments], catch_exceptions=False
    )


@pytest.fixture(scope="session")
def trained(invoke, tmp_path_factory) -> pathlib.Path:
    """The run folder of a tiny U-Net; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = invoke("train", "unet", *TINY, "--output", folder)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def damaged(trained, tmp_path):
    """Write a damaged copy of the trained model: `damaged("cut short")`."""

    def write(how: str) -> pathlib.Path:
        whole = (trained / "best.keras").read_bytes()
        path = tmp_path / "damaged.keras"
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        path.write_bytes({"empty": b"", "cut short": whole[:-200], "a bit flipped": flipped, "text": b"model"}[how])
        return path

    return write


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    """The run of a classifier of two classes of pictures, as small as can be, beside their folder `data`."""
    import numpy as np
    from PIL import Image

    from apps import train

    folder, rng = tmp_path_factory.mktemp("classifier"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(folder / "data" / name / f"{i}.png")
    asked = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "settings": {"image_shape": (16, 16, 3)}}
    train.train("resnet", folder / "run", data=str(folder / "data"), **asked)
    return folder / "run"


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory) -> pathlib.Path:
    """The run of a tiny variational autoencoder."""
    from apps import train

    folder = tmp_path_factory.mktemp("autoencoder") / "run"
    train.train("vae", folder, size="tiny", epochs=1, steps_per_epoch=20, batch_size=32, learning_rate=1e-2)
    return folder


@pytest.fixture
def stopped(monkeypatch, tmp_path):
    """Train a run that stops behind step 4, and let it go on: `stopped("vae", **options)` gives its folder."""
    from apps import train
    from tfzoo.training.checkpoint import Checkpoints

    class Stop(Exception):
        pass

    save = Checkpoints.on_train_batch_end

    def stopping(self, batch, logs=None):
        save(self, batch, logs)
        if self.model.optimizer.iterations == 4:
            raise Stop

    def run(name, **options) -> pathlib.Path:
        folder = tmp_path / "stopped"
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "on_train_batch_end", stopping)
            with pytest.raises(Stop):
                train.train(name, folder, checkpoint_steps=1, **options)
        train.train(name, folder, **options)
        return folder

    return run


@pytest.fixture
def explained(monkeypatch):
    """The pictures that `tfzoo explain` explains from now on, as the model gets them."""
    from apps import explain

    explainer, seen = explain.explainer, []

    def recorded(*asked):
        explaining = explainer(*asked)
        return lambda image: seen.append(image) or explaining(image)

    monkeypatch.setattr(explain, "explainer", recorded)
    return seen
