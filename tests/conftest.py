"""Set before any framework is imported: the tests use the TensorFlow backend, on the CPU, without its start-up log."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"

import hypothesis

# The same examples on every run and no time limit: the first example of a test may compile a graph.
hypothesis.settings.register_profile("tests", derandomize=True, deadline=None)
hypothesis.settings.load_profile("tests")
