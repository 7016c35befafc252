"""The run folder: how the commands talk to one another.

    options.json    what was asked for, the data's classes, the devices, the command line and the versions
    model.keras     the model after the last epoch
    best.keras      the model after the epoch with the lowest validation loss, or the last where there is no such loss
                    (a model of several networks: generator.keras, best_generator.keras, ...)
    optimizer.json  the optimizer's settings, with which `bridge to-torch` takes the training over to torch
    log.csv         a line per epoch
    speed.csv       the same for what it took, which is another in every run
    tensorboard/    scalars, pictures and the graph
    checkpoints/    the whole state of the training, the last two; an unfinished run goes on from there
    run.html        all of it as one page
    training.json   written last: the run is finished
    evaluate.json   figures on held-out data; which data, and of which model
    samples/        pictures

Whatever must be whole is written to the side and renamed. The models are saved uncompiled: a plain
`keras.models.load_model` reads them, without this project and its losses.
"""

import contextlib
import csv
import errno
import importlib.metadata
import json
import math
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from apps import RunFailed, no_room, recipes
from bridge import trainings
from bridge.files import aside
from bridge.models import functional, is_functional, parts
from bridge.sources import load_keras

NUMBERS = {"val_loss", "seconds", "examples_per_second"}  # columns of log.csv and speed.csv that a run counts with


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


def check_new(folder: pathlib.Path) -> None:
    """Refuse a folder that a run cannot begin in: one with something in it, or one that cannot be written."""
    check(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"the output folder must be new or empty, so that no run is overwritten. Received: {folder}, which has "
            f"{', '.join(sorted(file.name for file in folder.iterdir())[:5])}. Name another with --output."
        )


def create(folder: pathlib.Path, options: dict[str, Any]) -> None:
    """Begin a run folder: `options.json` and an empty `samples/`.

    Args:
        folder: Does not exist or is empty.
        options: Everything that the run was asked for.

    Raises:
        ValueError: The folder has something in it already, or cannot be written.
    """
    check_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    versions = {package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "torch", "numpy")}
    write_json(folder / "options.json", {**options, "command": shlex.join(sys.argv), "versions": versions})
    (folder / "samples").mkdir()  # last: a run that is killed here goes on


def describe(folder: pathlib.Path, model: keras.Model, steps: int) -> None:
    """Write `optimizer.json`, if the model is one network with an optimizer of its own.

    Args:
        folder: The run folder.
        model: Compiled.
        steps: Of the whole run.
    """
    if is_functional(model) and isinstance(model.optimizer, keras.optimizers.Optimizer):
        write_json(folder / "optimizer.json", trainings.describe(model, steps))


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


def networks(model: keras.Model) -> dict[str, keras.Model]:
    """Give the networks of a model by the names of its attributes; a model that is one is called "model"."""
    return (not is_functional(model) and parts(model)) or {"model": model}


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


def asked(target: pathlib.Path) -> dict[str, Any]:
    """Give what the run of a run folder or of a model file in one was asked for; nothing of a file that is in none."""
    folder = target if target.is_dir() else target.parent
    return options(folder) if target.is_dir() or (folder / "options.json").exists() else {}


def family(target: pathlib.Path, model: keras.Model) -> str | None:
    """Give the family of a run folder's model or of a file's: the run's, or the one that it is called as.

    Of a file in no run folder that is none where the output has an activation: it is another's model of the same name.
    """
    if known := asked(target).get("family"):
        return known
    if model.name not in recipes.names() or not is_functional(model):
        return None
    ends = [tensor._keras_history.operation for tensor in keras.tree.flatten(functional(model).outputs)]
    linear = all(getattr(end, "activation", None) is keras.activations.linear for end in ends)
    return model.name if linear else None


def load(target: pathlib.Path) -> keras.Model:
    """Load the model of a run folder, the best one, or of a file.

    Args:
        target: A run folder or a `.keras` file.

    Returns:
        The model, not compiled; of several networks as its family builds it.

    Raises:
        ValueError: There is no such model, or Keras cannot read it.
    """
    asked = options(target) if target.is_dir() else {}
    files = {path.stem.removeprefix("best_"): path for path in sorted(target.glob("best_*.keras"))}
    if asked and files:
        return assembled(asked, files)
    path = model_file(target)
    if not path.is_file():
        raise ValueError(f"no such model: {path}. Accepted: a run folder that holds best.keras, or a .keras file.")
    return load_keras(str(path))


def assembled(asked: dict[str, Any], files: dict[str, pathlib.Path]) -> keras.Model:
    """Build the model of a run, and fill each of its networks from its file."""
    import tfzoo
    from bridge import keras_weights

    model = tfzoo.build(asked["family"], size=asked["size"], **asked["settings"])
    held = networks(model)
    if files.keys() != held.keys():
        raise ValueError(f"the run must have best models of {', '.join(held)}. Received: {', '.join(files)}")
    for name, network in held.items():
        keras_weights.load(network, str(files[name]))
    return model


def able(target: pathlib.Path, method: str) -> keras.Model:
    """Load the model of a run folder, if it can do something.

    Args:
        target: A run folder.
        method: What it must have, such as "sample".

    Raises:
        ValueError: There is no such run, or its model cannot.
    """
    model = load(target) if target.is_dir() else None
    if model is None or not hasattr(model, method):
        import tfzoo

        what = f"a run of {asked(target).get('family')}" if target.is_dir() else "no run folder"
        families = [name for name in tfzoo.names() if method in getattr(tfzoo.family(name), "ABLE", ())]
        raise ValueError(f"{target} is {what}. Accepted: a run folder of {', '.join(families)}.")
    return model


def datasets(target: pathlib.Path, model: keras.Model, data: str | None):
    """Open the data of a run, or other data, as its recipe does."""
    was = options(target)
    recipe = recipes.find(was["family"])
    return recipe.datasets(
        data or was["data"],
        model.input_shape[1:],
        batch_size=was["batch_size"],
        seed=was["seed"],
        **recipes.follows(recipe, model),
    )


def model_file(target: pathlib.Path) -> pathlib.Path:
    """Give the file of the model that `load` loads, whether it is there or not; of several networks the first one's."""
    several = sorted(target.glob("best_*.keras"))
    return (several or [target / "best.keras"])[0] if target.is_dir() else target


def load_networks(target: pathlib.Path) -> tuple[str | None, dict[str, keras.Model]]:
    """Load every network of a finished run, the best ones, or that of a file.

    Args:
        target: A run folder or a `.keras` file.

    Returns:
        The family, as `family` has it, and the networks by name; one alone is called "model".

    Raises:
        ValueError: The run is not finished, there is no such model, or Keras cannot read it.
    """
    if not target.is_dir():
        model = load(target)
        return family(target, model), {"model": model}
    known = options(target)["family"]
    if unfinished(target):
        raise ValueError(
            f"{target} holds a run that is not finished. Go on with it (tfzoo train {known} --output {target}), or "
            f"name its best model so far: {target / 'best.keras'}."
        )
    files = {path.stem.removeprefix("best_"): path for path in sorted(target.glob("best_*.keras"))}
    return known, {name: load(path) for name, path in (files or {"model": target / "best.keras"}).items()}


def figures(folder: pathlib.Path) -> dict[str, Any]:
    """Read what `evaluate` measured, nothing where it has not been run; raises a ValueError for a damaged file."""
    path = folder / "evaluate.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return dict(found.items())
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}). Remove it, or run `tfzoo evaluate` again.") from error


def unfinished(folder: pathlib.Path) -> bool:
    """Tell whether a folder holds a run that did not come to its end."""
    return (folder / "options.json").exists() and not (folder / "training.json").exists()


def same(folder: pathlib.Path, given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Give the options of an unfinished run, if those that are given now are the same.

    Args:
        folder: The run folder.
        given: Options by name; what is not there, also of `settings`, is the run's.
        defaults: Of options that the run may be too old to have.

    Returns:
        What `options.json` holds, above the defaults.

    Raises:
        ValueError: Lists every option that differs.
    """
    asked = json.loads(json.dumps(defaults)) | options(folder)
    now = json.loads(json.dumps(given, default=str))  # tuples are lists there
    if "settings" in now:  # the run has those that follow from its data, too
        now["settings"] = {**asked.get("settings", {}), **now["settings"]}
    differ = [f"{key}: {asked.get(key)!r} there, {now[key]!r} now" for key in now if asked.get(key) != now[key]]
    if differ:
        raise ValueError(
            f"{folder} holds an unfinished run with other options:\n  " + "\n  ".join(differ) + "\n"
            "Leave these options out to go on with that run, or name another folder with --output."
        )
    return asked


class Log(keras.callbacks.Callback):
    """Write `log.csv`, a line per epoch.

    Args:
        folder: The run folder.
        epoch: Where the run begins; what the file has of later epochs is made again.
        write: Whether to write; else the lines are only remembered.
    """

    def __init__(self, folder: pathlib.Path, epoch: int, *, write: bool = True):
        super().__init__()
        self.path, self.write, self.rows = folder / "log.csv", write, rows_before(folder / "log.csv", epoch)

    def losses(self) -> list[float]:
        """Give the validation loss of every epoch so far; none where there is no validation."""
        return [float(row["val_loss"]) for row in self.rows if "val_loss" in row]

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Add the epoch's line."""
        self.rows.append({"epoch": epoch, **{name: np.asarray(value).tolist() for name, value in sorted(logs.items())}})
        if self.write:
            write_rows(self.path, self.rows)


class SpeedLog(keras.callbacks.Callback):
    """Write `speed.csv`, a line per epoch: the seconds since the line before, all included, and the steps' speed.

    Args:
        folder: The run folder.
        epoch: Where the run begins; what the file has of later epochs is made again.
        speed: A `tfzoo.training.speed.Speed`.
    """

    def __init__(self, folder: pathlib.Path, epoch: int, speed):
        super().__init__()
        self.path, self.speed, self.rows = folder / "speed.csv", speed, rows_before(folder / "speed.csv", epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Add the epoch's line."""
        figures = {"seconds": self.speed.seconds(), "examples_per_second": self.speed.examples_per_second()}
        self.rows.append({"epoch": epoch, **{name: round(value, 3) for name, value in figures.items()}})
        write_rows(self.path, self.rows)


def rows_before(path: pathlib.Path, epoch: int) -> list[dict[str, Any]]:
    """Read the lines of `log.csv` or `speed.csv`, of the epochs before one; none where there is no file.

    What a run counts with is looked at here, as it would stop where it is needed; other columns may hold anything.

    Raises:
        ValueError: The file is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < epoch]
        for row in rows:
            if None in row:
                raise ValueError(f"{len(row[None])} values too many in the line of epoch {row['epoch']}")
            for name in NUMBERS & row.keys():
                float(row[name])
        return rows
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}). Put it back as it was, or remove it: the run goes "
            "on, and the lines of the epochs before are lost."
        ) from error


def write_rows(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Write lines as CSV, whole or not at all; a line that lacks a column of another one has nothing there."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with aside(path) as side, side.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def totals(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Sum up the lines of `speed.csv`: `seconds` of all, `examples_per_second` of all their steps.

    A line with a rate of 0, or without one, does not count there; what no line has is left out.
    """
    seconds = [value for row in rows if 0 <= (value := float(row.get("seconds", "nan"))) < math.inf]
    rates = [value for row in rows if 0 < (value := float(row.get("examples_per_second", "nan"))) < math.inf]
    found = {"seconds": round(sum(seconds), 3)} if seconds else {}
    if rates:  # epochs are equally long
        found["examples_per_second"] = round(len(rates) / sum(1 / rate for rate in rates), 3)
    return found


class KeepModels(keras.callbacks.Callback):
    """Keep the last and the best model of a run folder after every epoch.

    Args:
        folder: The run folder.
        log: The epochs so far.
        saved: A context in which the weights are those to be saved.
    """

    def __init__(self, folder: pathlib.Path, log: Log, saved: Callable[[], Any] = contextlib.nullcontext):
        super().__init__()
        self.folder, self.log, self.saved = folder, log, saved

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Save the last networks, and the best if the validation loss has never been as low, or there is none."""
        best = "val_loss" not in logs or logs["val_loss"] < min(self.log.losses(), default=float("inf"))
        with self.saved():
            for name, network in networks(self.model).items():
                save(network, self.folder / f"{name}.keras")
                if best:
                    save(network, self.folder / ("best.keras" if name == "model" else f"best_{name}.keras"))


class StopEarly(keras.callbacks.Callback):
    """Stop when the validation loss has not been lower for so many epochs.

    Args:
        patience: Epochs; 0 never stops.
        log: The epochs so far.
    """

    def __init__(self, patience: int, log: Log):
        super().__init__()
        self.patience, self.log = patience, log

    def reached(self) -> bool:
        """Tell whether the epochs so far are enough."""
        losses = self.log.losses()
        return 0 < self.patience < len(losses) and min(losses[-self.patience :]) >= min(losses[: -self.patience])

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Let `fit` stop."""
        if self.reached():
            self.model.stop_training = True
