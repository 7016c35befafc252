"""A file that nobody tests, and an import that points the wrong way, fail here."""

import ast
import json
import pathlib
import re

import pytest

from apps import recipes
from apps.__main__ import NOT_COMMANDS

ROOT = pathlib.Path(__file__).parents[2]
FRAMEWORKS = {"tensorflow", "keras", "torch"}
SOURCES = sorted(
    path.relative_to(ROOT) for package in ("apps", "tfzoo", "bridge") for path in (ROOT / package).rglob("*.py")
)
TESTED = [path for path in SOURCES if not path.name.startswith("_")]
FAMILIES = [path for path in TESTED if path.parent == pathlib.Path("tfzoo")]
COMMANDS = [path for path in SOURCES if path.parent == pathlib.Path("apps") and path.stem not in NOT_COMMANDS]
RULES = [path for path in SOURCES if path.parent == pathlib.Path("bridge/rules")]


def imports(path: pathlib.Path, anywhere: bool) -> set[str]:
    """Give the packages that a file imports, anywhere or only when it is imported itself."""
    tree = ast.parse((ROOT / path).read_text())
    nodes = ast.walk(tree) if anywhere else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize("path", TESTED, ids=str)
def test_every_file_has_a_test(path):
    assert (ROOT / "tests" / path.parent / f"test_{path.name}").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_one_way(path):
    banned = {"apps": set(), "tfzoo": {"apps", "torch"}, "bridge": {"apps", "tfzoo"}}[path.parts[0]]
    assert not imports(path, anywhere=True) & banned


@pytest.mark.parametrize("path", [*COMMANDS, *RULES, pathlib.Path("bridge/graph.py")], ids=str)
def test_no_framework_is_imported_before_it_is_needed(path):
    assert not imports(path, anywhere=False) & FRAMEWORKS


@pytest.mark.parametrize("path", FAMILIES, ids=str)
def test_every_family_has_a_recipe_and_a_page(path):
    assert (ROOT / "apps" / "recipes" / path.name).is_file()
    assert (ROOT / "docs" / f"{path.stem}.md").is_file()


@pytest.mark.parametrize("path", FAMILIES, ids=str)
def test_every_recipe_states_command_minutes_data_and_result(path):
    recipe = recipes.find(path.stem)
    assert f"tfzoo train {path.stem}" in recipe.__doc__ and ">=" in recipe.__doc__
    assert recipe.MINUTES and all(minutes > 0 for minutes in recipe.MINUTES.values())
    stated = {float(goal) for goal in re.findall(r">= (-?\d*\.\d+)", recipe.__doc__)}
    measured = {}  # the newest of each run, as a record may be of some alone
    for record in sorted((ROOT / "benchmarks" / "results").glob(f"*-acceptance-{path.stem}.json")):
        measured |= json.loads(record.read_text())["results"]
    measured = measured.values()
    assert stated == {run["goal"] for run in measured if run["goal"]}  # what `make acceptance` asks for
    (found,) = [found for found in measured if found["command"] == f"tfzoo train {path.stem}"]
    quickest = min(run["minutes"] for run in found["runs"])
    assert quickest / 2 < recipe.MINUTES["full"] < max(2 * quickest, 1.5)  # other machines, other work
    assert recipe.DATA and {"size", "data", "epochs", "steps_per_epoch"} <= recipe.DEFAULTS.keys()
