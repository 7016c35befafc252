"""Draw new examples of what a run has learned, side by side."""

import pathlib
from typing import Annotated

from typer import Argument, Option


def run(
    target: Annotated[pathlib.Path, Argument(metavar="RUN", help="A run folder of a model that can sample.")],
    count: Annotated[int, Option("-n", "--count", min=1, max=10_000, help="How many.")] = 64,
    seed: Annotated[int, Option(min=0, help="Decides which; the first ones do not depend on how many there are.")] = 0,
    output: Annotated[
        pathlib.Path | None, Option(help="A PNG; replaced if it is there.", show_default="RUN/samples/sample.png")
    ] = None,
) -> int:
    """Run the command."""
    from bridge import _quiet

    _quiet.import_tensorflow()
    from apps import run_folder, sheets
    from bridge.files import aside

    output = output or target / "samples" / "sample.png"
    run_folder.check(output.parent)
    model = run_folder.able(target, "sample")
    with run_folder.room(output.parent), aside(output) as side:
        sheets.tiles(model.sample(count, seed)).save(side, "PNG")
    print(f"wrote {output}: {count} samples by seed {seed}")
    return 0
