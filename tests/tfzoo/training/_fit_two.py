"""Train a model with two optimizers in a folder, from its newest checkpoint: `_fit_two.py FOLDER [STEP]`.

Writes `end.npz`, or says so behind that step and waits to be killed.
"""

import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfzoo.data.numbers import count
from tfzoo.training.checkpoint import Checkpoints, kept
from tfzoo.training.distributed_fit import repaired
from tfzoo.training.two_optimizers import TwoOptimizers

EPOCHS, STEPS = 3, 5


class Gan(TwoOptimizers):
    """Makes x of noise."""

    def make(self, x):
        return self.generator(self.draw(keras.random.normal, x, (2,)), training=True)

    def critic_loss(self, x):
        return ops.mean(ops.softplus(self.critic(self.make(x), training=True)) + ops.softplus(-self.critic(x)))

    def generator_loss(self, x):
        return ops.mean(ops.softplus(-self.critic(self.make(x), training=True)))


class Wait(keras.callbacks.Callback):
    """Wait behind a step, before its checkpoint."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_epoch_begin(self, epoch, logs=None):
        self.before = epoch * STEPS

    def on_train_batch_end(self, batch, logs=None):
        if self.before + batch + 1 == self.step:
            print("waiting", flush=True)
            time.sleep(600)


def network(inputs, outputs):
    body = [layers.Dense(6, activation="tanh"), layers.BatchNormalization(), layers.Dropout(0.3)]
    return keras.Sequential([keras.Input((inputs,)), *body, layers.Dense(outputs)])


def batch(step):
    return np.random.default_rng([1, int(step)]).normal(2, 1, (8, 3)).astype("float32")


def main(folder, wait=0):
    begin = (kept(folder) or [0])[-1]
    keras.utils.set_random_seed(begin)  # what is not in the checkpoint differs
    model = Gan(network(2, 3), network(3, 1), critic_steps=2, seed=begin)
    adams = [keras.optimizers.Adam(rate, beta_1=0.5) for rate in (0.01, 0.02)]
    model.compile(*adams, jit_compile=False)
    data = count(begin, 2**62).map(lambda step: tf.ensure_shape(tf.numpy_function(batch, [step], tf.float32), (8, 3)))
    with repaired(model, first_step=begin % STEPS):
        history = model.fit(
            data,
            initial_epoch=begin // STEPS,
            epochs=EPOCHS,
            steps_per_epoch=STEPS,
            callbacks=[Wait(int(wait)), Checkpoints(folder, steps_per_epoch=STEPS, every=2, begin=begin)],
            shuffle=False,
            verbose=0,
        ).history
    parts = {
        "generator": model.generator.variables,
        "critic": model.critic.variables,
        "draw": [model.seed_generator.state],
        "generator_optimizer": model.generator_optimizer.variables,
        "critic_optimizer": model.critic_optimizer.variables,
    }
    end = {f"{name}/{i}": ops.convert_to_numpy(v) for name, part in parts.items() for i, v in enumerate(part)}
    np.savez(folder / "end.npz", **end, **{name: values[-1] for name, values in history.items()})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
