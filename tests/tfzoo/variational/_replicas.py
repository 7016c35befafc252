"""Train on one device and on two replicas with 6 and 5 examples; print how far the weights moved, and end apart.

It is a process of its own, as TensorFlow splits the processor into devices only before it starts.
"""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[3]))

import keras
import numpy as np
import tensorflow as tf

import tfzoo
from tfzoo.training.distributed_fit import repaired

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
X = np.random.default_rng(0).integers(0, 2, (11, 8, 8, 1)).astype("float32")


def trained(strategy, options):
    """Give the weights before and after three steps."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = tfzoo.build("vae", "tiny", **options)
        model.compile(keras.optimizers.SGD(0.01))
    before = model.get_weights()
    with repaired(model):
        model.fit(tf.data.Dataset.from_tensors(X).repeat(), steps_per_epoch=3, verbose=0)
    return before, model.get_weights()


def largest(some, others):
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))


found = {}
for name, options in {"free_bits": {"free_bits": 0.05}, "capacity": {"capacity": 1.0}}.items():
    before, one = trained(tf.distribute.get_strategy(), options)
    _, two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), options)
    found[name] = largest(before, one), largest(one, two)
print(json.dumps(found))
