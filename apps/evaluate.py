"""Measure a trained model on held-out data, which chose nothing, beside the recipe's baselines."""

import pathlib
from typing import Annotated

from typer import Argument, Option


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder (its best model), or a .keras file.")],
    data: Annotated[str | None, Option(help="As for train.", show_default="the run's")] = None,
    output: Annotated[pathlib.Path | None, Option(help="Folder of the results.", show_default="the model's")] = None,
) -> int:
    """Run the command."""
    output = output or (target if target.is_dir() else target.parent)
    show("held-out data", evaluate(target, output, data))
    page = f", {output / 'run.html'}" if is_of_run(target, output) else ""
    print(f"wrote {output / 'evaluate.json'}{page} and {output / 'samples' / 'evaluate.png'}")
    return 0


def evaluate(target: pathlib.Path, output: pathlib.Path, data: str | None = None) -> dict[str, float]:
    """Measure a model and write `evaluate.json` and `samples/evaluate.png`, and in its run folder `run.html` anew.

    `evaluate.json` also says of what the figures are: `data`, its description, and `model`, its path from `output`, or
    the whole path of one that is elsewhere.

    Args:
        target: A run folder or a `.keras` file; the family of a file without a run is the model's name.
        output: Where the results are written.
        data: What the recipe's `datasets` accepts; None for the data that the run was trained on.

    Returns:
        The recipe's figures.

    Raises:
        ValueError: The model, its recipe or its data cannot be found or read, or the results not be written.
    """
    from bridge import _quiet

    _quiet.import_tensorflow()
    from apps import run_folder, run_page
    from apps.recipes import find
    from bridge.files import aside

    run_folder.check(output)
    model, file = run_folder.load(target), run_folder.model_file(target).resolve()
    options = run_folder.asked(target)
    steps = find(run_folder.family(target, model) or model.name)
    options = {**steps.DEFAULTS, "seed": 0, **options}
    datasets = steps.datasets(
        data or options["data"], model.input_shape[1:], batch_size=options["batch_size"], seed=options["seed"]
    )
    known = options.get("classes")
    if known and datasets.classes and list(datasets.classes) != known:
        raise ValueError(
            f"the model was trained on the classes {', '.join(known)}, in this order. Accepted for --data: "
            f"exactly these. Received: {', '.join(datasets.classes)}"
        )
    figures = steps.evaluate(model, datasets.held_out)
    with run_folder.room(output), aside(output / "samples" / "evaluate.png") as side:
        inside = file.is_relative_to(output.resolve())
        of = {"data": datasets.description, "model": file.relative_to(output.resolve()) if inside else file}
        run_folder.write_json(output / "evaluate.json", figures | of)
        steps.draw(model, datasets.held_out, side, **datasets.named)
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
