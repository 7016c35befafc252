"""Set before any framework is imported: the tests use the TensorFlow backend, on the CPU, without its start-up log.

Torch computes with one thread, and so does each operation of TensorFlow, as the tests run in two processes: where
several wait for one another on busy cores, a depthwise convolution in float64 takes a second instead of a millisecond.
"""

import gc
import os
from collections import defaultdict

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import hypothesis

from tests import _selection

# The same examples on every run and no time limit: the first example of a test may compile a graph.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")

# Graphs and networks are many objects that live as long as a test: there is no need to look through them at every 700.
gc.set_threshold(20_000, 20, 5)


def pytest_addoption(parser):
    parser.addoption(
        "--every-case", action="store_true", help="run every test of the suite, with every combination of its options"
    )
    parser.addoption("--seeds", type=int, default=1, help="how many seeds the models are tested with")


def pytest_report_header(config):
    if _selection.everything(config) or _selection.all_may_have_broken():
        return None
    return "of what is as it was yesterday a third of the tests, by turns (--every-case runs all): see CONTRIBUTING.md"


def pytest_collection_modifyitems(config, items):
    """Leave out of the suite combinations whose options meet elsewhere, and what has neither changed nor its turn.

    Begin with the tests that start processes: a long one at the end would leave the other worker idle.
    """
    if not _selection.everything(config):
        tests = defaultdict(list)
        for item in items:
            tests[item.nodeid.partition("[")[0]].append(item)
        chosen = [cases for test, cases in tests.items() if _selection.its_turn(test)]
        kept = {id(case) for cases in chosen for case in _selection.pairwise(cases)}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = [item for item in items if id(item) in kept]
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/apps/", "tests/tfzoo/")))
