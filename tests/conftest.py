"""Set before any framework is imported: the tests use the TensorFlow backend, on the CPU, without its start-up log.

Torch computes with one thread, and so does each operation of TensorFlow, as the tests run in two processes: where
several wait for one another on busy cores, a depthwise convolution in float64 takes a second instead of a millisecond.
"""

import datetime
import functools
import gc
import itertools
import os
import pathlib
import subprocess
import zlib
from collections import defaultdict

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import hypothesis

# The same examples on every run and no time limit: the first example of a test may compile a graph.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")

ROOT = pathlib.Path(__file__).parents[1]
WITH_ALL = ("requirements.txt", "setup.cfg", "pyproject.toml")
BRIDGE = ("bridge/", "tests/bridge/")  # what its tests depend on besides: it imports neither tfzoo nor apps
# Graphs and networks are many objects that live as long as a test: there is no need to look through them at every 700.
gc.set_threshold(20_000, 20, 5)


def pytest_addoption(parser):
    parser.addoption(
        "--every-case", action="store_true", help="run every test of the suite, with every combination of its options"
    )
    parser.addoption("--seeds", type=int, default=1, help="how many seeds the models are tested with")


def pytest_report_header(config):
    if everything(config) or changed() is None or touched(*WITH_ALL):
        return None
    if touched(*BRIDGE):
        return "bridge: of the rules that are as yesterday a third of the tests, by turns (--every-case runs all)"
    return "bridge: unchanged since yesterday, so a third of its tests, by turns (--every-case runs all)"


def pytest_collection_modifyitems(config, items):
    """Leave out of the suite combinations whose options meet elsewhere, and what has neither changed nor its turn.

    Begin with the tests that start processes: a long one at the end would leave the other worker idle.
    """
    if not everything(config):
        tests = defaultdict(list)
        for item in items:
            tests[item.nodeid.partition("[")[0]].append(item)
        kept = {id(item) for test, cases in tests.items() if its_turn(test) for item in pairwise(cases)}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = [item for item in items if id(item) in kept]
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/apps/", "tests/tfzoo/")))


def everything(config):
    """Tell whether all tests are wanted: of the suite on demand, of a file or a folder always."""
    whole = all(pathlib.Path(path) in (pathlib.Path("tests"), ROOT, ROOT / "tests") for path in config.args)
    return config.getoption("--every-case") or not whole


@functools.cache
def changed():
    """Give the files that are not as the main line had them a day ago; None where git does not know what it had."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    try:
        before = git("rev-list", "-1", "--first-parent", "--before=1.day", "HEAD")
        new = git("ls-files", "--others", "--exclude-standard")
        return {*git("diff", "--name-only", before[0]), *new} if before else None
    except (OSError, subprocess.CalledProcessError):
        return None


def touched(*beginnings):
    """Tell whether a file whose path begins so has changed."""
    return any(path.startswith(beginnings) for path in changed())


def its_turn(test):
    """Tell whether a test of the bridge is to run.

    While nothing of the bridge changes, each file of them does every third day; else all of them do but those of rules
    that have not changed themselves.
    """
    file = test.partition("::")[0]
    if not file.startswith("tests/bridge/") or changed() is None or touched(*WITH_ALL, file):
        return True
    of_rule = file.startswith("tests/bridge/rules/test_")
    if touched(*BRIDGE) and (not of_rule or touched(file.removeprefix("tests/").replace("/test_", "/"))):
        return True
    return (zlib.crc32(file.encode()) + datetime.date.today().toordinal()) % 3 == 0


def pairwise(cases):
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


def options(case):
    """Give what a case takes of each list of values, values that come together as one."""
    params = dict(case.callspec.params) if hasattr(case, "callspec") else {}
    together = [mark.args[0] for mark in case.iter_markers("parametrize")]
    together = [[name.strip() for name in names.split(",")] if isinstance(names, str) else names for names in together]
    together += [[name] for name in params if not any(name in names for names in together)]
    return [(tuple(names), *(id(params[name]) for name in names)) for names in together]
