"""List the families and their sizes; of one family, the parameters and shapes of every size."""

from typing import Annotated

from typer import Argument


def run(
    name: Annotated[str | None, Argument(metavar="NAME", help="A family.", show_default="all of them")] = None,
) -> int:
    """Run the command."""
    import importlib

    from rich import box
    from rich.table import Table

    import tfzoo
    from bridge import _quiet
    from bridge.inspect import show_table

    _quiet.import_tensorflow()
    if name is None:
        table = Table("family", "sizes", "what it is", box=box.SIMPLE)
        for family in tfzoo.names():
            summary = importlib.import_module(f"tfzoo.{family}").__doc__.partition("\n")[0]
            table.add_row(family, " ".join(tfzoo.sizes(family)), summary)
    else:
        table = Table("size", "parameters", "input", "output", box=box.SIMPLE)
        for size in tfzoo.sizes(name):
            model = tfzoo.build(name, size=size)
            table.add_row(size, f"{model.count_params():,}", str(model.input_shape), str(model.output_shape))
    show_table(table)
    return 0
