"""A script ends, though an iterator of its is left half-way and examples are being made."""

import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from tfzoo.data import in_python

ROOT = pathlib.Path(__file__).parents[3]
OPEN = {
    "an embedded set": """
import tfzoo.data
from tfzoo.data import pipeline
source = tfzoo.data.open("cluttered_digits", "classes", seed=0)
iterator = iter(pipeline.training(source.training, batch_size=256, seed=0))
""",
    "pictures that take long": """
import time
import numpy as np
from tfzoo.data import pipeline
from tfzoo.data.examples import Read
def read(item):
    time.sleep(1)
    return (np.zeros(9),)
iterator = iter(pipeline.training(Read(range(9), read), batch_size=4, seed=0))
""",
}


@pytest.mark.parametrize("opened", OPEN.values(), ids=OPEN)
def test_a_script_ends(opened, tmp_path):
    # of a file, as the end of a text given by -c seldom meets a call
    used = "import time\nfor _ in range(STEPS):\n    print(next(iterator)[0].shape, time.time(), flush=True)"
    (tmp_path / "script.py").write_text(opened + used.replace("STEPS", "6" if "cluttered" in opened else "1"))
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], env=where, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.startswith("("), done.stderr
    assert time.time() - float(done.stdout.split()[-1]) < 6  # four batches ahead take eight seconds
    assert "Traceback" not in done.stderr


def test_what_python_gives():
    def double(n):
        assert in_python.calls
        return 2 * n

    made = tf.data.Dataset.range(3).map(lambda n: in_python.numpy_function(double, [n], [tf.int64]))
    assert np.ravel([row[0] for row in made.as_numpy_iterator()]).tolist() == [0, 2, 4]
    assert not in_python.calls


def test_a_call_that_fails_is_over():
    def fail(n):
        raise ValueError("no such picture")

    made = tf.data.Dataset.range(3).map(lambda n: in_python.numpy_function(fail, [n], [tf.int64]))
    with pytest.raises(tf.errors.OpError, match="no such picture"):
        next(iter(made))
    assert not in_python.calls
