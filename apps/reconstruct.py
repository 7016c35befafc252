"""Show held-out pictures and, below each, what comes back of it."""

import pathlib
from typing import Annotated

from typer import Argument, Option


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder of an autoencoder.")],
    data: Annotated[str | None, Option(help="As for train.", show_default="the run's")] = None,
    count: Annotated[int, Option("-n", "--count", min=1, max=10_000, help="How many.")] = 16,
    output: Annotated[
        pathlib.Path | None, Option(help="A PNG; replaced if it is there.", show_default="RUN/samples/reconstruct.png")
    ] = None,
) -> int:
    """Run the command."""
    from bridge import _quiet

    _quiet.import_tensorflow()
    import numpy as np

    from apps import run_folder, sheets
    from bridge.files import aside

    output = output or target / "samples" / "reconstruct.png"
    run_folder.check(output.parent)
    model = run_folder.able(target, "reconstruct")
    datasets = run_folder.datasets(target, model, data)
    pictures = next(datasets.held_out.unbatch().batch(count).as_numpy_iterator())[0]
    back = model.reconstruct(pictures)
    shown = min(len(pictures), 16)
    blocks = [side[i : i + shown] for i in range(0, len(pictures), shown) for side in (pictures, back)]
    blocks = [np.pad(block, [(0, shown - len(block)), *[(0, 0)] * 3], constant_values=1) for block in blocks]
    with run_folder.room(output.parent), aside(output) as side:
        sheets.tiles(np.concatenate(blocks), shown).save(side, "PNG")
    error = float(np.square(pictures - back).mean())
    print(f"wrote {output}: {len(pictures)} pictures of {datasets.description}, held out, and what comes back of them")
    print(f"mean squared error of a pixel: {error:.4f}")
    return 0
