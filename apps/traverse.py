"""Show what each latent does: a row of pictures for each, and all of them moving; two latents as a map."""

import pathlib
from typing import Annotated

from typer import Argument, Option

HIGH = 32  # latents below one another, before the next ones are drawn beside them


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder of a model with latents.")],
    number: Annotated[int, Option("--picture", min=0, help="Which held-out picture is changed.")] = 0,
    steps: Annotated[int, Option(min=2, max=99, help="Values of each latent.")] = 9,
    reach: Annotated[float, Option(min=0.01, max=20, help="They go from -REACH to REACH.")] = 3.0,
    data: Annotated[str | None, Option(help="As for train.", show_default="the run's")] = None,
    output: Annotated[
        pathlib.Path | None,
        Option(help="Folder of traverse.png, traverse.gif and map.png.", show_default="RUN/samples"),
    ] = None,
) -> int:
    """Run the command."""
    from bridge import _quiet

    _quiet.import_tensorflow()
    import numpy as np

    from apps import run_folder, sheets
    from bridge.files import aside

    output = output or target / "samples"
    run_folder.check(output)
    model = run_folder.able(target, "traverse")
    datasets = run_folder.datasets(target, model, data)
    pictures = np.concatenate([batch[0] for batch in datasets.held_out.as_numpy_iterator()])
    if number >= len(pictures):
        raise ValueError(f"--picture must be below {len(pictures)}, the held-out pictures. Received: {number}")
    values = np.linspace(-reach, reach, steps)
    rows = model.traverse(pictures[number], values)  # (latents, values, H, W, C)
    with run_folder.room(output):
        with aside(output / "traverse.png") as side:
            draw_rows(rows, values).save(side, "PNG")
        with aside(output / "traverse.gif") as side:
            sheets.animate(draw_frames(rows, values), side)
        wrote = ["traverse.png", "traverse.gif"]
        if len(rows) == 2:
            with aside(output / "map.png") as side:
                draw_map(model, pictures, reach).save(side, "PNG")
            wrote.append("map.png")
    print(f"wrote {', '.join(str(output / name) for name in wrote)}: {len(rows)} latents from {-reach:g} to {reach:g}")
    return 0


def draw_rows(rows, values):
    """Draw a row for each latent: which it is before it, its values above.

    Args:
        rows: `(latents, values, H, W, C)`.
        values: Of each latent.
    """
    from apps import sheets

    blocks = []
    for first in range(0, len(rows), HIGH):
        block = rows[first : first + HIGH]
        sheet = sheets.tiles(block.reshape(-1, *block.shape[2:]), len(values))
        names = [name(first + i) for i in range(len(block))]
        blocks.append(sheets.labelled(sheet, names, [short(value) for value in values]))
    return sheets.beside(blocks)


def draw_frames(rows, values) -> list:
    """Draw for each value all latents side by side: before each row which its first one is, above it the value.

    Args:
        rows: `(latents, values, H, W, C)`.
        values: Of each latent.
    """
    import math

    from apps import sheets

    columns = math.ceil(len(rows) ** 0.5)
    names = [name(i) for i in range(0, len(rows), columns)]
    return [
        sheets.labelled(sheets.tiles(rows[:, i], columns), names, [short(value), *[""] * (columns - 1)])
        for i, value in enumerate(values)
    ]


def name(latent: int) -> str:
    """Give a latent's name, as the last axis of latents is counted."""
    return f"z[{latent}]"


def short(value: float) -> str:
    """Give a latent's value in three digits; no minus before zero."""
    return f"{round(float(value), 4) + 0:.3g}"


def draw_map(model, pictures, reach: float, side: int = 20):
    """Draw the plane of two latents: the picture of each place, and beside it where held-out pictures lie.

    Args:
        model: With `encode` and `decode` of two latents.
        pictures: `(N, H, W, C)`.
        reach: The map goes from -reach to reach.
        side: Places in a row.
    """
    import io

    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    from apps import sheets

    plane = sheets.tiles(model.decode(places(reach, side)), side)
    means = model.encode(pictures)
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(np.asarray(plane), extent=(-reach, reach, -reach, reach))
    right.plot(*means.T, ".", color="black", markersize=4)
    for axes, title in ((left, "the picture of each place"), (right, counted(means, reach))):
        axes.set(title=title, xlabel=name(0), ylabel=name(1), xlim=(-reach, reach), ylim=(-reach, reach))
        axes.set_aspect("equal")
    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    return Image.open(file).convert("RGB")


def counted(means, reach: float) -> str:
    """Say how many pictures there are, and how many of them lie outside of a map."""
    import numpy as np

    outside = int((np.abs(means) > reach).any(-1).sum())
    return f"{len(means)} held-out pictures" + (f", {outside} of them beyond" if outside else "")


def places(reach: float, side: int):
    """Give the middles of a square's places, row by row from the upper left one `(side * side, 2)`: up is larger."""
    import numpy as np

    axis = reach * (2 * np.arange(side) + 1 - side) / side
    return np.stack(np.meshgrid(axis, axis[::-1]), -1).reshape(-1, 2)
