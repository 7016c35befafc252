"""Write a trained model as the SavedModel that TensorFlow Serving loads, and check it there; or as PyTorch's files."""

import csv
import functools
import inspect
import pathlib
import shlex
from enum import StrEnum
from typing import Annotated, Any

from typer import Argument, Option

from apps import VerificationFailed
from apps.values import Given, numbers

BLACK_AND_WHITE = (0.0, 1.0)  # what a model takes them for, where nobody says


class Framework(StrEnum):
    """Whose files are written."""

    tensorflow = "tensorflow"
    torch = "torch"


class Precision(StrEnum):
    """How the weights are kept."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Fit(StrEnum):
    """How a file's picture is brought to the model's size."""

    crop = "crop"
    middle = "middle"
    stretch = "stretch"


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder (its best model), or a .keras file.")],
    output: Annotated[pathlib.Path, Option("--output", "-o", help="Folder of the versions, such as models/unet.")],
    version: Annotated[int | None, Option(min=1, help="A new one.", show_default="the highest plus one")] = None,
    framework: Annotated[Framework, Option(help="torch: model.py, .pt2, ONNX.")] = Framework.tensorflow,
    precision: Annotated[Precision, Option(help="Of the weights in the file.")] = Precision.float32,
    fold: Annotated[bool, Option("--fold", help="Take BatchNormalization into the layers before it.")] = False,
    batch: Annotated[int | None, Option(min=1, help="Examples of every request.", show_default="any number")] = None,
    size: Annotated[
        tuple[int, int] | None, Option(help="Height and width that files are brought to, where the model takes any.")
    ] = None,
    values: Given = None,
    fit: Annotated[
        Fit | None,
        Option(
            help="The largest centred window, the middle 87.5 % of that, or the whole picture.",
            show_default="as it was judged, or crop",
        ),
    ] = None,
    max_pixels: Annotated[int, Option(min=1, help="That a file may have.")] = 25_000_000,
) -> int:
    """Run the command."""
    from bridge import _quiet

    _quiet.import_tensorflow()
    import tfzoo
    from apps import run_folder

    run_folder.check(output)
    wanted = numbers(values)
    if framework is Framework.torch:
        given = {"--precision": precision != "float32", "--fold": fold, "--batch": batch, "--size": size}
        given |= {"--values": values, "--fit": fit, "--max-pixels": max_pixels != 25_000_000}
        if wrong := [name for name, value in given.items() if value]:
            raise ValueError(f"--framework torch writes the network as it is. Received: {', '.join(wrong)}")
    family, networks = run_folder.load_networks(target)
    with run_folder.room(output):
        if framework is Framework.torch:
            return export_torch(networks, output, version)
        was = trained_on(family, run_folder.asked(target), *networks.values(), size=size)
        if family and not values and not run_folder.asked(target):  # of no family the export says so itself
            print(f"{assumed(target, family, was['values'])} (--values names others)")
        return export(
            networks,
            output,
            signatures=served(tfzoo.family(family), target) if family else None,
            facts=facts(target),
            version=version,
            precision=precision.value,
            fold=fold,
            batch=batch,
            size=size,
            values=wanted or was["values"],
            fit=fit.value if fit else was["fit"],
            max_pixels=max_pixels,
        )


def served(family, target: pathlib.Path):
    """Give a family's function of what it serves, if it has one, which may know the names of the run's classes."""
    from apps import run_folder

    signatures = getattr(family, "signatures", None)
    labels = run_folder.asked(target).get("classes")
    if not labels or "labels" not in inspect.signature(signatures or print).parameters:
        return signatures
    return functools.partial(signatures, labels=labels)


def trained_on(
    family: str | None, asked: dict[str, Any], *networks, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Give how a run, or else its family's recipe, prepares the pictures that it judges.

    Args:
        family: None for no family.
        asked: The run's options; empty for no run.
        networks: Its own; the size of the pictures is the first one's, unless it takes any.
        size: `(H, W)` of the pictures for one that takes any.

    Returns:
        `values`, of black and white, and `fit`, as `tfzoo.export.pictures` has them: 0, 1 and "crop" where nobody says.
    """
    from apps import recipes

    recipe = recipes.find(family) if family in recipes.names() else None
    own = recipe.DEFAULTS.get("values") if recipe else None
    values = asked.get("values") or own or BLACK_AND_WHITE
    found = {"values": tuple(tuple(x) if isinstance(x, list) else x for x in values), "fit": "crop"}
    if hasattr(recipe, "fit"):
        taken = networks[0].inputs[0].shape[1:3]
        size = size if None in taken else taken
        found |= {"fit": recipe.fit(size)} if size else {}
    return found


def assumed(target: pathlib.Path, family: str | None, values) -> str:
    """Say what black and white are taken for, of a file in no run folder: it may have been trained on others."""
    from tfzoo.data.black_and_white import text

    so = f", as the recipe of {family} has them" if family else ""
    return f"no run says how {target} was trained: black and white are taken for {text(values)}{so}"


def export(networks: dict[str, Any], output: pathlib.Path, **options) -> int:
    """Write a version for TensorFlow Serving, and say how far it is from the model; see `tfzoo.export.save`."""
    from tfzoo.export import save

    made = save(networks, output, progress=print, **options)
    print(f"wrote {made.path}; differences from the model, as shares of the largest output:")
    for name, value in made.differences.items():
        print(f"  {name}: {value:.1e}" + (f", by the options {made.changes[name]:.1e}" if made.changes else ""))
    for note in made.notes:
        print(note)
    print(f"Next: saved_model_cli show --all --dir {shlex.quote(str(made.path))}")
    print(f"      tfzoo predict {shlex.quote(str(output))} IMAGE...")
    return 0


def export_torch(networks: dict[str, Any], output: pathlib.Path, version: int | None) -> int:
    """Write a version for PyTorch: a folder for each network, or one."""
    from bridge import artifacts
    from bridge.files import aside
    from tfzoo.export import versions

    marker = "model.py" if len(networks) == 1 else f"{next(iter(networks))}/model.py"
    path = output / str(versions.choose(output, version, marker))
    with aside(path) as side:
        for name, network in networks.items():
            folder = side if len(networks) == 1 else side / name
            differences, notes = artifacts.write(network, folder)
            limit = artifacts.tolerance(network)
            far = [f"{file} by {value:.1e}" for file, value in differences.items() if not value <= limit]
            if far:
                raise VerificationFailed(
                    f"{', '.join(far)} of the largest output: not what {name} gives. Nothing is kept."
                )
            for file, value in differences.items():
                print(f"  {name}: {file}, difference {value:.1e} of the largest output")
            for note in notes:
                print(note)
    print(f"wrote {path}")
    if len(networks) == 1:
        print(f'Next: python -c "import bridge; print(bridge.load_torch({str(path)!r}, trust=True))"')
    return 0


def facts(target: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Give what a run folder knows of its model, for the model card; nothing of a lone file."""
    from apps import run_folder

    if not target.is_dir():
        return {"Training": {"file": target.name}}
    options = run_folder.options(target)
    asked = ("family", "size", "data", "epochs", "steps_per_epoch", "batch_size", "learning_rate", "seed", "command")
    found = {"Training": {key: options[key] for key in asked if key in options}}
    versions = options.get("versions")
    if isinstance(versions, dict):
        found["Training"]["versions"] = ", ".join(f"{package} {version}" for package, version in versions.items())
    try:
        with (target / "log.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        judged = [row for row in rows if "val_loss" in row]
        found["Best epoch"] = dict(min(judged, key=lambda row: float(row["val_loss"])) if judged else rows[-1])
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"{target / 'log.csv'} is missing or damaged: {type(error).__name__}: {error}") from error
    figures = run_folder.figures(target)
    found["Held-out data"] = figures or {"figures": f"none: `tfzoo evaluate {target}` makes them"}
    return found
