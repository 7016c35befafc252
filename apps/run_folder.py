"""The run folder: how the commands talk to one another.

    options.json    what was asked for, the command line and the versions
    model.keras     the model after the last epoch
    best.keras      the model after the epoch with the lowest validation loss
    log.csv         a line per epoch
    evaluate.json   figures on held-out data
    samples/        pictures

Whatever must be whole is written to the side and renamed. The models are saved uncompiled: a plain
`keras.models.load_model` reads them, without this project and its losses.
"""

import contextlib
import errno
import importlib.metadata
import json
import math
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import keras

from apps import RunFailed, no_room
from bridge.files import aside
from bridge.keras_reader import functional
from bridge.sources import load_keras


def check(folder: pathlib.Path) -> None:
    """Refuse a folder that cannot be written, or cannot be made where it is not there; nothing is made yet.

    Args:
        folder: What is to be written into.

    Raises:
        ValueError: It is a file or in one, or it may not be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = os.strerror(errno.EACCES if there.is_dir() else errno.ENOTDIR)
        raise ValueError(
            f"the output must be in a folder that can be written. Received: {folder} ({reason}). "
            "Name another with --output."
        )


@contextlib.contextmanager
def room(folder: pathlib.Path) -> Iterator[None]:
    """Say where there was no room, should a block find none: the system's own message does not.

    Args:
        folder: What the block writes into.

    Raises:
        RunFailed: There is no room left.
    """
    try:
        yield
    except Exception as error:
        if not no_room(error):
            raise
        raise RunFailed(
            f"there is no room left to write in {folder} ({no_room(error)}). What was written whole is kept. "
            "Free some space or raise the limit (`df`, `ulimit -f`), or name another place with --output."
        ) from error


def create(folder: pathlib.Path, options: dict[str, Any]) -> None:
    """Begin a run folder: `options.json` and an empty `samples/`.

    Args:
        folder: Does not exist or is empty.
        options: Everything that the run was asked for.

    Raises:
        ValueError: The folder has something in it already, or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"the output folder must be new or empty, so that no run is overwritten. Received: {folder}, which has "
            f"{', '.join(sorted(file.name for file in folder.iterdir())[:5])}. Name another with --output."
        )
    check(folder)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    versions = {package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "torch", "numpy")}
    write_json(folder / "options.json", {**options, "command": shlex.join(sys.argv), "versions": versions})


def write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Write values as indented JSON, whole or not at all."""
    with aside(path) as side:
        side.write_text(json.dumps(values, indent=2, default=str) + "\n", encoding="utf-8")


def save(model: keras.Model, path: pathlib.Path) -> None:
    """Save a model uncompiled, whole or not at all.

    Args:
        model: A functional or Sequential model, compiled or not.
        path: A `.keras` file; replaced if it exists.
    """
    # Another model of the same layers, so nothing is copied; the compiled one would ask for its loss when loaded.
    uncompiled = keras.Model(*structures(model), name=model.name)
    with aside(path) as side:
        uncompiled.save(side)


def structures(model: keras.Model) -> tuple[Any, Any]:
    """Give a model's inputs and outputs as it takes and gives them: `model.inputs` is a list even of a dictionary."""
    graph = functional(model)
    return graph._inputs_struct, graph._outputs_struct


def options(folder: pathlib.Path) -> dict[str, Any]:
    """Read what a run was asked for.

    Args:
        folder: A run folder.

    Returns:
        The contents of its `options.json`.

    Raises:
        ValueError: There is none, or it cannot be read.
    """
    path = folder / "options.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["family"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is not a run folder, or a damaged one: {path.name}: {type(error).__name__}: {error}. "
            "Accepted: a folder that `tfzoo train` or `tfzoo demo` wrote, or a .keras file."
        ) from error
    return values


def load(target: pathlib.Path) -> keras.Model:
    """Load the model of a run folder, the best one, or of a file.

    Args:
        target: A run folder or a `.keras` file.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: There is no such model, or Keras cannot read it.
    """
    if target.is_dir():
        options(target)
        target = target / "best.keras"
    if not target.is_file():
        raise ValueError(f"no such model: {target}. Accepted: a run folder that holds best.keras, or a .keras file.")
    return load_keras(str(target))


class KeepModels(keras.callbacks.Callback):
    """Keep the last and the best model of a run folder after every epoch.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.folder, self.lowest = folder, math.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Save `model.keras`, and `best.keras` if the validation loss has never been as low; RunFailed if it is NaN."""
        finite("validation loss", logs["val_loss"], self.model, self.folder)
        save(self.model, self.folder / "model.keras")
        if logs["val_loss"] < self.lowest:
            self.lowest = logs["val_loss"]
            save(self.model, self.folder / "best.keras")


class StopAtNaN(keras.callbacks.Callback):
    """Stop a run whose loss is no longer a number.

    Args:
        folder: The run folder, to name the last good model.
    """

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.folder = folder

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Raise RunFailed at the first step after which the loss is not finite."""
        finite("loss", logs["loss"], self.model, self.folder)


def finite(what: str, loss: float, model: keras.Model, folder: pathlib.Path) -> None:
    """Raise RunFailed, which names the last good model of a run folder, if a loss is not finite."""
    if not math.isfinite(loss):
        good = folder / "best.keras"
        raise RunFailed(
            f"the {what} became {loss} at step {int(model.optimizer.iterations)}. "
            f"Last good model: {good if good.exists() else 'none, no epoch ended well'}. "
            "Try a lower --learning-rate."
        )
