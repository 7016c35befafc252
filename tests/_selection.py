"""What of the suite a run leaves out: of what has not changed since yesterday some, by turns, and pairs of options."""

import ast
import datetime
import functools
import itertools
import pathlib
import re
import subprocess
import zlib

import bridge

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("tfzoo", "apps", "bridge", "tests")
OF_MODELS = (
    "tfzoo.layers",
    "tfzoo.flows",
    "tfzoo.quantisation",
    "tfzoo.training.draws",
    "tfzoo.variational",
    "apps.recipes",
)
BY_NAME = {  # what imports modules by their names, and which
    "bridge/__init__.py": [f"bridge/{name}.py" for name in bridge._HOMES.values()],
    "bridge/rules/__init__.py": ["bridge/rules/*.py"],
    "apps/__main__.py": ["apps/*.py"],
    "apps/train.py": ["apps/recipes/_*.py"],
}
FAMILIES = tuple(path.stem for path in (ROOT / "apps/recipes").glob("[!_]*.py"))
OF_A_FAMILY = re.compile(rf"(tfzoo|apps/recipes|tests/tfzoo|tests/apps/recipes)/(test_)?({'|'.join(FAMILIES)})\.py")


def everything(config) -> bool:
    """Tell whether all tests are wanted: of the suite on demand, of a file or a folder always."""
    whole = all(pathlib.Path(path) in (pathlib.Path("tests"), ROOT, ROOT / "tests") for path in config.args)
    return config.getoption("--every-case") or not whole


def git(*arguments: str) -> str:
    """Ask git about the project."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@functools.cache
def yesterday() -> str | None:
    """Give the commit that the main line had a day ago; None where git knows of none."""
    try:
        return git("rev-list", "-1", "--first-parent", "--before=1.day", "HEAD").strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def changed() -> frozenset[str] | None:
    """Give the files that are not as they were yesterday; None if that is not known."""
    if not yesterday():
        return None
    new = git("ls-files", "--others", "--exclude-standard")
    return frozenset((git("diff", "--name-only", yesterday()) + new).splitlines())


def touched(*beginnings: str) -> bool:
    """Tell whether a file whose path begins so has changed."""
    return any(path.startswith(beginnings) for path in changed())


@functools.cache
def all_may_have_broken() -> bool:
    """Tell whether a package is not of the version that it had, or pytest's settings are others, or nothing is known.

    A package that has come to the others changes none of them.
    """
    if changed() is None or touched("pyproject.toml"):
        return True
    if not touched("requirements.txt"):
        return False
    try:
        return not pins(git("show", f"{yesterday()}:requirements.txt")) <= pins((ROOT / "requirements.txt").read_text())
    except subprocess.CalledProcessError:
        return True


def pins(requirements: str) -> set[str]:
    """Give the lines that name a package and its version."""
    return {line for line in requirements.splitlines() if "==" in line}


def its_turn(test: str) -> bool:
    """Tell whether a test is to run.

    Each file has every third day, and every day on which something has changed that it is made of. Tests that are about
    the project as a whole, in tests/ itself and in tests/conformance, are run every day.
    """
    file = test.partition("::")[0]
    if all_may_have_broken() or pathlib.Path(file).parent in (pathlib.Path("tests"), pathlib.Path("tests/conformance")):
        return True
    turn = (zlib.crc32(file.encode()) + datetime.date.today().toordinal()) % 3 == 0
    return turn or not changed().isdisjoint(made_of(file))


@functools.cache
def made_of(file: str) -> frozenset[str]:
    """Give the files that a file of tests depends on: what it tests, the fixtures, families, and all that these import.

    A family is imported by its name: those are meant that a test names itself. What the rules of the operators have in
    common has tests of its own.
    """
    tested = file.removeprefix("tests/").replace("/test_", "/")
    if file.startswith("tests/bridge/rules/"):
        return frozenset({file, tested})
    start = {file, tested, *(str(folder / "conftest.py") for folder in pathlib.Path(file).parents[:-2])}
    named = {word for node in ast.walk(tree(file)) for word in words(node) if word in FAMILIES}
    if family := OF_A_FAMILY.fullmatch(file):
        named.add(family[3])
    start |= {path for name in named for path in (f"tfzoo/{name}.py", f"apps/recipes/{name}.py")}
    return frozenset(reached({path for path in start if (ROOT / path).is_file()}, PACKAGES))


def reached(left: set[str], packages: tuple[str, ...]) -> set[str]:
    """Give files and what they import of some packages, and these, and so on."""
    folders, found = tuple(package.replace(".", "/") for package in packages), set()
    while left:
        path = left.pop()
        found.add(path)
        left |= {other for other in imported(path) if other.startswith(folders)} - found
    return found


@functools.cache
def imported(path: str) -> frozenset[str]:
    """Give the files of the project that one imports anywhere in it, or starts: `-m apps`, a script beside it."""
    names, beside = set(), pathlib.Path(path).parent
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        names |= {f"{word}.__main__" for option, word in itertools.pairwise(words(node)) if option == "-m"}
        names |= {word.removesuffix(".py") for word in words(node) if word.endswith(".py")}
    files = {f"{name.replace('.', '/')}{end}" for name in names for end in (".py", "/__init__.py")}
    files |= {str(beside / file) for file in files}
    files |= {str(file.relative_to(ROOT)) for pattern in BY_NAME.get(path, ()) for file in ROOT.glob(pattern)}
    return frozenset(file for file in files if (ROOT / file).is_file())


def files(name: str) -> set[str]:
    """Give the files that make a family: its own, its recipe, and what of models, recipes and data these are made of.

    What the recipes themselves import of the data, all of them do.
    """
    from apps import recipes

    own = {f"tfzoo/{name}.py", f"apps/recipes/{name}.py"}
    source = f"tfzoo/data/sources/{recipes.find(name).DEFAULTS['data']}.py"
    return reached(own, OF_MODELS) | reached({source}, ("tfzoo.data",))


def chosen(there: frozenset[str] | None, names: list[str]) -> list[str]:
    """Give the families of some that have changed, and one of the others, every day the next; all if nothing is known.

    What all families share, such as how they are trained, has tests of its own and is seen in that one.

    Args:
        there: The files that have changed.
        names: The families.
    """
    if there is None:
        return names
    others = [name for name in names if not files(name) & there]
    turn = others[datetime.date.today().toordinal() % len(others)] if others else None
    return [name for name in names if name == turn or name not in others]


@functools.cache
def tree(path: str) -> ast.Module:
    """Read a file of the project."""
    return ast.parse((ROOT / path).read_text())


def words(node: ast.AST) -> list[str]:
    """Give the strings that a part of a file is made of."""
    constants = [each.value for each in ast.iter_child_nodes(node) if isinstance(each, ast.Constant)]
    return [value for value in constants if isinstance(value, str)]


def pairwise(cases: list) -> list:
    """Give cases of one test in which any two values of two options meet, if they do in any of its cases.

    What goes wrong nearly always takes one option or two of them (Kuhn et al., 2004, "Software fault interactions").
    """
    met = {id(case): set(itertools.combinations(options(case), 2)) for case in cases}
    if len(options(cases[0])) < 3:
        return cases
    left, kept = set().union(*met.values()), []
    while left:
        kept.append(max(cases, key=lambda case: len(met[id(case)] & left)))
        left -= met[id(kept[-1])]
    return kept


def options(case) -> list[tuple]:
    """Give what a case takes of each list of values, values that come together as one."""
    params = dict(case.callspec.params) if hasattr(case, "callspec") else {}
    together = [mark.args[0] for mark in case.iter_markers("parametrize")]
    together = [[name.strip() for name in names.split(",")] if isinstance(names, str) else names for names in together]
    together += [[name] for name in params if not any(name in names for names in together)]
    return [(tuple(names), *(id(params[name]) for name in names)) for names in together]
