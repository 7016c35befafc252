"""Show what each latent does: a row of pictures for each, and all of them moving; two latents as a map."""

import pathlib
from typing import Annotated

from typer import Argument, Option


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
    frames = [sheets.tiles(rows[:, i]) for i in range(steps)]
    with run_folder.room(output):
        with aside(output / "traverse.png") as side:
            sheets.tiles(rows.reshape(-1, *rows.shape[2:]), steps).save(side, "PNG")
        with aside(output / "traverse.gif") as side:
            sheets.animate(frames, side)
        wrote = ["traverse.png", "traverse.gif"]
        if len(rows) == 2:
            with aside(output / "map.png") as side:
                draw_map(model, pictures, reach).save(side, "PNG")
            wrote.append("map.png")
    print(f"wrote {', '.join(str(output / name) for name in wrote)}: {len(rows)} latents from {-reach:g} to {reach:g}")
    return 0


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
    outside = int((np.abs(means) > reach).any(-1).sum())
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.imshow(np.asarray(plane), extent=(-reach, reach, -reach, reach))
    right.plot(*means.T, ".", color="black", markersize=4)
    said = f"{len(means)} held-out pictures" + (f", {outside} of them beyond" if outside else "")
    for axes, title in ((left, "the picture of each place"), (right, said)):
        axes.set(title=title, xlabel="first latent", ylabel="second latent", xlim=(-reach, reach), ylim=(-reach, reach))
        axes.set_aspect("equal")
    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    return Image.open(file).convert("RGB")


def places(reach: float, side: int):
    """Give the middles of a square's places, row by row from the upper left one `(side * side, 2)`: up is larger."""
    import numpy as np

    axis = reach * (2 * np.arange(side) + 1 - side) / side
    return np.stack(np.meshgrid(axis, axis[::-1]), -1).reshape(-1, 2)
