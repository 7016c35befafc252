"""Train a model by its family's recipe, and keep what comes of it in a run folder."""

import ast
import importlib
import math
import pathlib
import shlex
import sys
from types import ModuleType
from typing import Annotated, Any

from typer import Argument, Option


def run(
    name: Annotated[str, Argument(metavar="NAME", help="Family, as `tfzoo list` gives them.")],
    size: Annotated[str | None, Option(help="One of the family's sizes.")] = None,
    data: Annotated[str | None, Option(help="The recipe's data set, or a folder of your own.")] = None,
    epochs: Annotated[int | None, Option(min=1, help="How often the model is judged and saved.")] = None,
    steps_per_epoch: Annotated[int | None, Option(min=1, help="Batches in an epoch.")] = None,
    batch_size: Annotated[int | None, Option(min=1, help="Examples in a batch.")] = None,
    learning_rate: Annotated[float | None, Option(min=0, help="The schedule's highest.")] = None,
    seed: Annotated[int, Option(min=0, max=2**32 - 1, help="Decides every random choice.")] = 0,
    output: Annotated[pathlib.Path | None, Option(help="Run folder, new or empty.", show_default="runs/NAME")] = None,
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Option of the builder; a Python literal.")
    ] = None,
) -> int:
    """Run the command; what is not given is the recipe's."""
    given = {
        "size": size,
        "data": data,
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
    }
    options = recipe(name).DEFAULTS | {key: value for key, value in given.items() if value is not None}
    output = output or pathlib.Path("runs", name)
    train(name, output, **options, seed=seed, settings=parse(set_ or []))
    print(f"wrote {output}. Next: tfzoo evaluate {shlex.quote(str(output))}")
    return 0


def recipe(name: str) -> ModuleType:
    """Find a family's recipe by its file name.

    Args:
        name: A family.

    Returns:
        The module `apps.recipes.<name>`.

    Raises:
        ValueError: There is none.
    """
    files = pathlib.Path(__file__).parent.glob("recipes/[!_]*.py")
    known = sorted(file.stem for file in files)
    if name not in known:
        raise ValueError(f"no recipe for the family {name!r}. Accepted: {', '.join(known)}.")
    return importlib.import_module(f"apps.recipes.{name}")


def parse(settings: list[str]) -> dict[str, Any]:
    """Read `key=value` pairs; a value is a Python literal or else a string.

    Args:
        settings: For example `["widths=(4, 8)", "batch_norm=True"]`.

    Returns:
        The values by key.

    Raises:
        ValueError: Some are not pairs, or a key is there twice.
    """
    wrong = [setting for setting in settings if not setting.partition("=")[0].isidentifier() or "=" not in setting]
    if wrong:
        raise ValueError(f"--set takes KEY=VALUE, such as batch_norm=True. Received: {', '.join(wrong)}")
    keys = [setting.partition("=")[0] for setting in settings]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"--set takes every key once. Received more than once: {', '.join(twice)}. Leave one of each.")
    values = {}
    for key, _, text in (setting.partition("=") for setting in settings):
        try:
            values[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[key] = text
    return values


def train(
    name: str,
    output: pathlib.Path,
    *,
    size: str,
    data: str,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    settings: dict[str, Any],
    title: str | None = None,
) -> None:
    """Train a model into a run folder. The folder is made when all else has been found right.

    Args:
        name: A family with a recipe.
        output: The run folder, new or empty.
        size: One of the family's sizes.
        data: What the recipe's `datasets` accepts.
        epochs: How often the validation data is looked at and the models are saved.
        steps_per_epoch: Batches in an epoch.
        batch_size: Examples in a batch.
        learning_rate: The highest of the recipe's schedule.
        seed: Decides every random choice.
        settings: Options of the builder, beyond the size's.
        title: Printed when all has been found right and the training begins.

    Raises:
        ValueError: Something that was asked for cannot be; no folder is left behind.
        RunFailed: The loss is no longer a number, or there is no room left to write.
    """
    asked = {key: value for key, value in locals().items() if key not in ("name", "output", "title")}
    if "size" in settings:
        raise ValueError(f"the size is chosen by --size, not by --set. Received: --set size={settings['size']}")
    if not math.isfinite(learning_rate):
        raise ValueError(f"--learning-rate must be a finite number, such as 0.002. Received: {learning_rate}")

    from bridge import _quiet

    _quiet.import_tensorflow()
    import keras

    import tfzoo
    from apps import run_folder

    keras.utils.set_random_seed(seed)
    try:
        model = tfzoo.build(name, size=size, **settings)
    except TypeError as error:  # such as a text where the builder counts
        raise ValueError(f"{name} cannot be built with {settings}: {error}. Look at --set.") from error
    steps = recipe(name)
    datasets = steps.datasets(data, model.input_shape[1:], batch_size=batch_size, seed=seed)
    if data != steps.DEFAULTS["data"] and pathlib.Path(data).is_dir():
        asked["data"] = str(pathlib.Path(data).absolute())  # the run may be evaluated from another folder
    steps.compile(model, learning_rate=learning_rate, steps=epochs * steps_per_epoch)
    with run_folder.room(output):
        run_folder.create(output, {"family": name, **asked})
        if title:
            print(title)
        print(f"{name} ({model.count_params():,} parameters) on {datasets.description}")
        model.fit(
            datasets.training,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            validation_data=datasets.validation,
            callbacks=[
                run_folder.StopAtNaN(output),
                run_folder.KeepModels(output),
                keras.callbacks.CSVLogger(output / "log.csv"),
            ],
            shuffle=False,  # the recipe's pipeline does it
            verbose=1 if sys.stdout.isatty() else 2,  # a bar is for people; a log gets a line per epoch
        )
