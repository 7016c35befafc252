"""Set before any framework is imported: the tests use the TensorFlow backend, on the CPU, without its start-up log.

Torch computes with one thread, as the tests run in two processes: where several wait for one another on busy cores, a
depthwise convolution in float64 takes a second instead of a millisecond.
"""

import gc
import itertools
import os
from collections import defaultdict

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis

# The same examples on every run and no time limit: the first example of a test may compile a graph.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")

# Graphs and networks are many objects that live as long as a test: there is no need to look through them at every 700.
gc.set_threshold(20_000, 20, 5)


def pytest_addoption(parser):
    parser.addoption(
        "--every-case", action="store_true", help="run every combination of three options or more, and every model"
    )
    parser.addoption("--seeds", type=int, default=1, help="how many seeds the models are tested with")


def pytest_collection_modifyitems(config, items):
    """Leave out combinations whose options meet elsewhere, and begin with the tests that start processes.

    A long one at the end would leave the other worker idle.
    """
    if not config.getoption("--every-case"):
        tests = defaultdict(list)
        for item in items:
            tests[item.nodeid.partition("[")[0]].append(item)
        kept = {id(item) for cases in tests.values() for item in pairwise(cases)}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = [item for item in items if id(item) in kept]
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/apps/", "tests/tfzoo/")))


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
