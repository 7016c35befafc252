"""Train a family's tiny model on one device and on two mirrored replicas; print how far apart the weights end.

    python _mirrored.py NAME SEED

It is a process of its own, as TensorFlow splits the processor into devices only before it starts.
"""

import json
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).parents[2]), str(pathlib.Path(__file__).parent)]

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from conftest import Family  # noqa: E402

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)


def trained(family, strategy):
    """Give the weights before and after three steps of plain gradient descent, which hides no difference."""
    with strategy.scope():
        model = family.build()
        data = family.data(model).training
        family.compile(model, "SGD", 0.05)
    before = model.get_weights()
    family.fit(model, data, 3)
    return before, model.get_weights()


def largest(some, others):
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


family = Family(sys.argv[1], int(sys.argv[2]))
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
before, one = trained(family, tf.distribute.get_strategy())
_, two = trained(family, mirrored)
record = {"replicas": mirrored.num_replicas_in_sync, "moved": largest(before, one), "apart": largest(one, two)}
print(json.dumps(record))
