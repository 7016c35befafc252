"""The tables of `bridge inspect` and `bridge rules`, as plain data, and how a table is shown."""

import sys

from bridge import rules
from bridge.graph import Graph, Obstacle


def layers(graph: Graph, obstacles: list[Obstacle]) -> list[tuple[str, str, str, str, str]]:
    """List every node of a graph and everything that would be refused.

    Returns:
        Rows of name, operator, rule file, output shape, weights.
    """
    rows = []
    for node in graph.nodes:
        weights = ", ".join(f"{r} {tuple(graph.parameters[n].value.shape)}" for r, n in node.parameters.items())
        shape = str(node.outputs[0].shape).replace("None", "?")
        rows.append(
            (node.name or "+", node.operator, rules.for_operator(node.operator).__name__.split(".")[-1], shape, weights)
        )
    return rows + [(o.path, o.kind, "REFUSED", o.reason, o.remedy) for o in obstacles]


def supported() -> list[tuple[str, str, str, str]]:
    """List the rules.

    Returns:
        Rows of rule file, what it is, Keras names, torch names.
    """
    return [
        (
            name,
            (rule.__doc__ or "").strip().split("\n")[0].split(":")[0].rstrip("."),
            " ".join(rule.KERAS),
            " ".join(t for t in rule.TORCH if t not in getattr(rule, "HELPERS", {})),
        )
        for name, rule in rules.families().items()
    ]


def show_table(table) -> None:
    """Print a `rich` table: as wide as the terminal, or as a file wants it, whatever COLUMNS says."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)
