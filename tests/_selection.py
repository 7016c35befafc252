"""What of the suite a run leaves out: of what has not changed since yesterday some, by turns, and pairs of options."""

import datetime
import functools
import itertools
import pathlib
import re
import subprocess
import zlib

ROOT = pathlib.Path(__file__).parents[1]
BRIDGE = ("bridge/", "tests/bridge/")  # what its tests depend on besides: it imports neither tfzoo nor apps
MODELS = ("tfzoo/", "apps/", "bridge/", "tests/tfzoo/", "tests/apps/")  # what those of a family depend on
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

    While nothing of the bridge changes, each file of its tests has every third day; else those of rules that have not
    changed themselves. So have the tests of a family, while what has changed besides is of other families.
    """
    file = test.partition("::")[0]
    if all_may_have_broken() or touched(file):
        return True
    if file.startswith("tests/bridge/"):
        of_rule = file.startswith("tests/bridge/rules/test_")
        needed = (touched(*BRIDGE) and not of_rule) or touched(file.removeprefix("tests/").replace("/test_", "/"))
    elif family := OF_A_FAMILY.fullmatch(file):
        others = {path for path in changed() if (of := OF_A_FAMILY.fullmatch(path)) and of[3] != family[3]}
        needed = any(path.startswith(MODELS) for path in changed() - others)
    else:
        needed = True
    return needed or (zlib.crc32(file.encode()) + datetime.date.today().toordinal()) % 3 == 0


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
