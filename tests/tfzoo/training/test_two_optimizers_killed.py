"""Two optimizers, killed by SIGKILL twice: the run ends as one that was not, bit for bit."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np

from tfzoo.training.checkpoint import kept

ROOT = pathlib.Path(__file__).parents[3]


def process(*arguments):
    command = [sys.executable, str(pathlib.Path(__file__).with_name("_fit_two.py")), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_optimizers_killed_twice(tmp_path):
    whole = process(tmp_path / "whole")
    # In the first epoch and at the end of the second; the step's own checkpoint is not there yet.
    for step, last in ((3, 2), (10, 8)):
        running = process(tmp_path / "killed", step)
        try:
            assert running.stdout.readline() == "waiting\n", running.communicate()[1]
        finally:
            running.kill()
        assert running.wait() == -signal.SIGKILL and kept(tmp_path / "killed")[-1] == last
    running = process(tmp_path / "killed")
    for each in (running, whole):
        _, said = each.communicate()
        assert each.returncode == 0, said
    found, expected = (np.load(tmp_path / name / "end.npz") for name in ("killed", "whole"))
    assert found.files == expected.files and {"critic_loss", "critic_optimizer/0", "draw/0"} < set(found.files)
    assert (expected["generator_optimizer/0"], expected["critic_optimizer/0"]) == (15, 30)
    for name in expected.files:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
