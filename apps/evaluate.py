"""Measure a trained model on held-out data, which chose nothing, beside the recipe's baselines."""

import pathlib
from typing import Annotated

from typer import Argument, Option

from apps.values import Given, numbers


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder (its best model), or a .keras file.")],
    data: Annotated[str | None, Option(help="As for train.", show_default="the run's")] = None,
    output: Annotated[pathlib.Path | None, Option(help="Folder of the results.", show_default="the model's")] = None,
    values: Given = None,
) -> int:
    """Run the command."""
    output = output or (target if target.is_dir() else target.parent)
    show("held-out data", evaluate(target, output, data, numbers(values)))
    page = f", {output / 'run.html'}" if is_of_run(target, output) else ""
    print(f"wrote {output / 'evaluate.json'}{page} and {output / 'samples' / 'evaluate.png'}")
    return 0


def evaluate(target: pathlib.Path, output: pathlib.Path, data: str | None = None, values=None) -> dict[str, float]:
    """Measure a model and write `samples/evaluate.png` and `evaluate.json`, and in its run folder `run.html` anew.

    It says on what data, and of a file of no run what black and white are taken for.

    `evaluate.json` also says of what the figures are: `data`, its description, and `model`, its path from `output`, or
    the whole path of one that is elsewhere.

    Args:
        target: A run folder or a `.keras` file; the family of a file without a run is the model's name.
        output: Where the results are written.
        data: What the recipe's `datasets` accepts; None for the data that the run was trained on.
        values: Of black and white, as `tfzoo.data.black_and_white` has them; None for those of the run, or
            else of the recipe.

    Returns:
        The recipe's figures.

    Raises:
        ValueError: The model, its recipe or its data cannot be found or read, or the results not be written.
    """
    from bridge import _quiet

    _quiet.import_tensorflow()
    from apps import recipes, run_folder, run_page
    from apps.export import BLACK_AND_WHITE, assumed
    from bridge.files import aside
    from tfzoo.data.black_and_white import text
    from tfzoo.layers.classifier import scores_of

    run_folder.check(output)
    if target.is_file() and sorted(target.parent.glob("best_*.keras")):
        raise ValueError(f"{target} is one of several networks. Accepted: the run folder, {target.parent}")
    model, file = run_folder.load(target), run_folder.model_file(target).resolve()
    asked = run_folder.asked(target)
    family = run_folder.family(target, model) or model.name
    steps = recipes.find(family)
    options = {**steps.DEFAULTS, "seed": 0, **asked} | ({"values": values} if values else {})
    how = {"values": options["values"]} if "values" in steps.DEFAULTS else {}
    if values and not how:
        raise ValueError(f"--values is for classifiers; the pictures of {family} go from 0 to 1. Leave it out")
    datasets = steps.datasets(
        data or options["data"],
        model.input_shape[1:],
        batch_size=options["batch_size"],
        seed=options["seed"],
        **how,
        **recipes.follows(steps, model),
    )
    known = options.get("classes")
    if known and datasets.classes and list(datasets.classes) != known:
        raise ValueError(
            f"the model was trained on the classes {', '.join(known)}, in this order. Accepted for --data: "
            f"exactly these. Received: {', '.join(datasets.classes)}"
        )
    shape = getattr(scores_of(model), "shape", ()) if datasets.classes else ()
    if not known and datasets.classes and len(shape) == 2 and shape[1] != len(datasets.classes):
        raise ValueError(
            f"{target} knows {shape[1]} classes, and no run says which. Accepted for --data: data of {shape[1]} "
            f"classes. Received: {len(datasets.classes)} classes of {datasets.description}"
        )
    print(f"{file.name} on {datasets.description}")
    if not asked and not values:
        print(assumed(target, family, how.get("values", BLACK_AND_WHITE)) + (" (--values names others)" if how else ""))
    figures = steps.evaluate(model, datasets.held_out)
    with run_folder.room(output), aside(output / "samples" / "evaluate.png") as side:
        # Before the figures are written: should it fail, figures and picture are both those of the time before.
        steps.draw(model, datasets.held_out, side, **datasets.named, **how)
        inside = file.is_relative_to(output.resolve())
        of = {"data": datasets.description, "model": file.relative_to(output.resolve()) if inside else file}
        of |= {"values": text(values)} if values else {}
        run_folder.write_json(output / "evaluate.json", figures | of)
    if is_of_run(target, output):
        with run_folder.room(output):
            run_page.write(output)
    return figures


def is_of_run(target: pathlib.Path, folder: pathlib.Path) -> bool:
    """Tell whether a folder is a run's and the model its own: only then do figures belong on the run's page.

    Args:
        target: A run folder or a `.keras` file.
        folder: Where the results are written.
    """
    from apps.run_folder import model_file

    return (folder / "options.json").exists() and model_file(target).resolve().parent == folder.resolve()


def show(title: str, figures: dict[str, float | str]) -> None:
    """Print a table of figures to the terminal.

    Args:
        title: What they are figures of.
        figures: Numbers or texts by name.
    """
    from rich import box
    from rich.table import Table

    from bridge.inspect import show_table

    table = Table("figure", "value", title=title, title_justify="left", box=box.SIMPLE)
    for name, value in figures.items():
        table.add_row(name, value if isinstance(value, str) else f"{value:.3f}")
    show_table(table)
