"""Set before any framework is imported: the tests use the TensorFlow backend, on the CPU, without its start-up log.

Torch computes with one thread, as the tests run in two processes: where several wait for one another on busy cores, a
depthwise convolution in float64 takes a second instead of a millisecond.
"""

import gc
import os

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


def pytest_collection_modifyitems(items):
    """Begin with the tests that start processes: a long one at the end would leave the other worker idle."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/apps/", "tests/tfzoo/")))
