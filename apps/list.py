"""List the families with their sizes, parameters, minutes and data; of one, parameters and shapes of every size."""

import math
from typing import Annotated

from typer import Argument


def run(
    name: Annotated[str | None, Argument(metavar="NAME", help="A family.", show_default="all of them")] = None,
) -> int:
    """Run the command."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    import tfzoo
    from bridge import _quiet
    from bridge.inspect import show_table

    _quiet.import_tensorflow()
    if name is None:
        table = Table("family", "sizes", "parameters", "minutes", "data", "what it is", box=box.SIMPLE)
        for family in tfzoo.names():
            table.add_row(*map(escape, overview(family)))
        table.caption = "parameters: of the first size; minutes: of the recipe with its own size, on two cores"
    else:
        table = Table("size", "parameters", "input", "output", box=box.SIMPLE)
        for size in tfzoo.sizes(name):
            model = tfzoo.build(name, size=size)
            # Those that are trained, as `PARAMETERS` has them and papers count: no statistics.
            parameters = sum(math.prod(v.shape) for v in model.trainable_variables)
            table.add_row(size, f"{parameters:,}", str(model.input_shape), str(model.output_shape))
    show_table(table)
    return 0


def overview(family: str) -> tuple[str, str, str, str, str, str]:
    """Say what a family is, from what its files state: no network is built.

    Args:
        family: One of `tfzoo.names()`.

    Returns:
        Its name, sizes, parameters of the first size, minutes of the recipe's training and its size, data, and its
        first line; a dash for what is not stated.
    """
    import tfzoo

    module, sizes = tfzoo.family(family), tfzoo.sizes(family)
    parameters = getattr(module, "PARAMETERS", {}).get(sizes[0])
    recipe = recipe_of(family)
    minutes = getattr(recipe, "MINUTES", {}).get("full")
    return (
        family,
        " ".join(sizes),
        "-" if parameters is None else f"{parameters:,}",
        "-" if minutes is None else f"{minutes:g} ({recipe.DEFAULTS['size']})",
        getattr(recipe, "DATA", "-"),
        (module.__doc__ or "-").partition("\n")[0],
    )


def recipe_of(family: str):
    """Give a family's recipe, None where it has none."""
    from apps import recipes

    try:
        return recipes.find(family)
    except ValueError:
        return None
