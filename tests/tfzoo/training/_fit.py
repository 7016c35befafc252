"""Train every case on one device, on two mirrored replicas or as one of two workers: `_fit.py WAY RESULTS.npz`."""

import contextlib
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tfzoo.data.numbers import endless
from tfzoo.training.distributed_fit import repaired, scale_loss, unscale_loss
from tfzoo.training.two_optimizers import TwoOptimizers

BATCH = 8
EVEN, RAGGED, EMPTY = 40, 39, 33  # the last batch of 5 has 8 examples, 7, or 1: then a replica has none


class HalvesNormalized(layers.BatchNormalization):
    """BatchNormalization of each half of the batch on its own, as two replicas do that do not synchronize.

    Each replica keeps moving statistics of its own, and Keras saves the first one's.
    """

    def call(self, x, training=False):
        if not training:
            return super().call(x, training=False)
        halves = tf.split(x, 2)
        means, variances = zip(*(tf.nn.moments(half, 0) for half in halves), strict=True)
        for moving, found in ((self.moving_mean, means[0]), (self.moving_variance, variances[0])):
            moving.assign(moving * self.momentum + found * (1 - self.momentum))
        halves = [
            (half - mean) / tf.sqrt(variance + self.epsilon) * self.gamma + self.beta
            for half, mean, variance in zip(halves, means, variances, strict=True)
        ]
        return tf.concat(halves, 0)


class Seen(keras.Metric):
    """How often every example was seen, by its number; the counts are added up over the replicas."""

    def __init__(self, examples):
        super().__init__(name="seen")
        self.counts = self.add_variable((examples,), "zeros", name="counts")

    def update_state(self, numbers):
        self.counts.assign_add(tf.reduce_sum(tf.one_hot(numbers, self.counts.shape[0]), 0))

    def result(self):
        return ops.sum(self.counts)


class OwnStep(keras.Model):
    """A `train_step` of one's own, as scale_loss' docstring says, that counts the examples."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.error = keras.metrics.Mean(name="error")
        self.seen = Seen(EMPTY)

    @property
    def metrics(self):
        return [self.error, self.seen]

    def train_step(self, data):
        x, y, numbers = data
        with tf.GradientTape() as tape:
            loss = scale_loss(ops.mean(ops.square(self(x, training=True) - y)))
        self.error.update_state(unscale_loss(loss), sample_weight=ops.shape(x)[0])
        self.seen.update_state(numbers)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return self.get_metrics_result()


class Gan(TwoOptimizers):
    """Makes x of y and noise."""

    def make(self, y):
        return self.generator(ops.concatenate([y, self.draw(keras.random.normal, y, (2,))], -1), training=True)

    def critic_loss(self, batch):
        x, y = batch
        made = self.make(y)
        mix = self.draw(keras.random.uniform, y, (1,))
        mixed = mix * x + (1 - mix) * made
        with tf.GradientTape() as tape:
            tape.watch(mixed)
            score = self.critic(mixed, training=True)
        slope = tape.gradient(score, mixed)
        penalty = ops.square(ops.sqrt(ops.sum(ops.square(slope), -1) + 1e-12) - 1)
        return ops.mean(self.critic(made, training=True)[:, 0] - self.critic(x, training=True)[:, 0] + penalty)

    def generator_loss(self, batch):
        x, y = batch
        made = self.make(y)
        return ops.mean(ops.abs(made - x)) - ops.mean(self.critic(made, training=True))


def network(norm=None, bias=True, kind=keras.Model, inputs=3, outputs=2):
    x = image = keras.Input((inputs,))
    x = layers.Dense(5, use_bias=bias)(x)
    if norm is not None:
        x = norm(x)
    x = layers.Dense(outputs)(layers.Activation("tanh")(x))
    return kind(image, x)


def compiled(model, optimizer, scale=1.0):
    """Compile with the mean square error times a scale; OwnStep does not use it."""
    model.compile(optimizer, "mse", loss_weights=[scale], metrics=["mae"], weighted_metrics=["mse"])
    return model


def synchronized():
    return layers.BatchNormalization(momentum=0.7, synchronized=True)


def separate():
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return HalvesNormalized(momentum=0.7) if replicas == 1 else layers.BatchNormalization(momentum=0.7)


def sgd(**options):
    return keras.optimizers.SGD(0.05, momentum=0.5, **options)


def two_optimizers():
    norm = synchronized()
    model = Gan(network(norm, bias=False, inputs=4, outputs=3), network(outputs=1), critic_steps=2, seed=3)
    model.compile(keras.optimizers.Adam(0.01, beta_1=0.5), keras.optimizers.Adam(0.02, beta_1=0.5))
    return model


# What makes the model, in the strategy's scope, and the number of examples.
CASES = {
    "sgd": (lambda: compiled(network(), sgd()), EVEN),
    "ragged": (lambda: compiled(network(), sgd()), RAGGED),
    "replica_without_examples": (lambda: compiled(network(), sgd()), EMPTY),
    "synchronized": (lambda: compiled(network(synchronized()), sgd()), EMPTY),
    "adam_synchronized": (lambda: compiled(network(synchronized(), bias=False), keras.optimizers.Adam(0.01)), RAGGED),
    "not_synchronized": (lambda: compiled(network(separate()), sgd()), EVEN),
    "global_clipnorm": (lambda: compiled(network(), sgd(global_clipnorm=0.1)), RAGGED),
    "loss_scale": (
        lambda: compiled(network(), keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**127), scale=4.0),
        EMPTY,
    ),
    "accumulated": (
        lambda: compiled(network(), sgd(gradient_accumulation_steps=3, global_clipnorm=0.1, weight_decay=0.1)),
        EMPTY,
    ),
    "accumulated_adam": (
        lambda: compiled(network(), keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)),
        RAGGED,
    ),
    "accumulated_loss_scale": (
        lambda: compiled(
            network(),
            keras.optimizers.LossScaleOptimizer(
                keras.optimizers.Adam(0.01, gradient_accumulation_steps=3), initial_scale=2.0**127
            ),
            scale=4.0,
        ),
        EMPTY,
    ),
    "own_step": (lambda: compiled(network(kind=OwnStep), sgd()), EMPTY),
    "two_optimizers": (two_optimizers, EMPTY),
}


def data(case, examples):
    """Give the training data; the even case also declares the size of its batches."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(examples, 3)).astype("float32")
    y = np.sin(x @ rng.normal(size=(3, 2))).astype("float32")
    if case == "own_step":
        arrays = x, y, np.arange(examples)
    elif case == "two_optimizers":
        arrays = x, y
    else:
        arrays = x, y, rng.uniform(0.2, 2, examples).astype("float32")  # weights of the examples
    return tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH, drop_remainder=case == "sgd")


class Record(keras.callbacks.Callback):
    """Keep the logs of every step, and how often every example was seen."""

    def __init__(self):
        super().__init__()
        self.steps, self.seen = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append([batch, *logs.values()])

    def on_epoch_end(self, epoch, logs=None):
        if hasattr(self.model, "seen"):
            self.seen.append(ops.convert_to_numpy(self.model.seen.counts))


def train(case, strategy, repair=repaired):
    """Train for ten steps, two epochs, and give all that should not depend on the replicas."""
    make, examples = CASES[case]
    with strategy.scope():
        model = make()
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if "seed" not in weight.path:
            value = rng.normal(0, 0.5, weight.shape)
            weight.assign(abs(value) + 0.5 if weight.name in ("gamma", "moving_variance") else value)
    several = isinstance(model, Gan)
    whole = case in ("sgd", "replica_without_examples", "synchronized", "not_synchronized")  # all that fit can do
    optimizers = [model.generator_optimizer, model.critic_optimizer] if several else [model.optimizer]
    record = Record()
    inputs = data(case, examples).map(lambda x, *_: x)
    options = {"validation_data": data("ragged", BATCH + 1)} if whole else {}
    with repair(model):
        fitted = model.fit(data(case, examples), epochs=2, shuffle=False, verbose=0, callbacks=[record], **options)
        predictions = model.predict(inputs, verbose=0) if whole else None
        judged = model.evaluate(data("ragged", BATCH + 1), verbose=0, return_dict=True) if whole else {}
    results = {f"history/{name}": values for name, values in fitted.history.items()}
    results |= {f"history/val_again_{name}": value for name, value in judged.items()}
    results |= {f"weight/{i}/{weight.name}": ops.convert_to_numpy(weight) for i, weight in enumerate(model.weights)}
    for j, optimizer in enumerate(optimizers):
        results |= {f"optimizer{j}/{i}": ops.convert_to_numpy(value) for i, value in enumerate(optimizer.variables)}
    if whole:
        results["predictions"] = predictions
    if record.seen:
        results["seen"] = record.seen
    results["steps"] = record.steps
    return {f"{case}:{name}": value for name, value in results.items()}


def rows(strategy):
    """Give the numbers that this process gets in five steps, from the fourth on, and those that it made for them."""
    made = []

    def make(n):
        made.append(int(n))
        return n

    with strategy.scope():
        numbers = endless(BATCH, start=3)
    numbers = numbers.map(lambda n: tf.ensure_shape(tf.numpy_function(make, [n], tf.int64), ())).batch(BATCH)
    steps = iter(strategy.experimental_distribute_dataset(numbers))
    found = [np.concatenate(strategy.experimental_local_results(next(steps))) for _ in range(5)]
    return {"rows": found, "made": made}


def refused(strategy, norm=None, call="fit", **options):
    """Give the message with which several replicas refuse to train a model with such a layer or optimizer."""
    with strategy.scope():
        model = compiled(network(norm), sgd(**options))
    try:
        with repaired(model):
            getattr(model, call)(data("", EMPTY), verbose=0)
    except (tf.errors.InvalidArgumentError, ValueError) as error:
        return str(error)


def convolution(x):
    """A convolution and a maximum of five values, as of a picture."""
    x = layers.Conv2D(2, (1, 3), padding="same", name="convolution")(layers.Reshape((1, 5, 1))(x))
    return layers.Flatten()(layers.MaxPooling2D((1, 2))(x))


def main(way, path):
    if way == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif way == "one":
        strategy = tf.distribute.get_strategy()
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    results = {}
    for case in CASES:
        results |= train(case, strategy)
    results |= rows(strategy)
    if way == "mirrored":
        unrepaired = train("ragged", strategy, repair=contextlib.nullcontext)
        results |= {f"unrepaired {name}": value for name, value in unrepaired.items()}
        results["refused: norm"] = refused(strategy, lambda x: layers.BatchNormalization(name="separate")(x))
        for call in ("fit", "evaluate"):
            results[f"refused: convolution in {call}"] = refused(strategy, convolution, call)
        results["refused: averages"] = refused(strategy, use_ema=True, gradient_accumulation_steps=2)
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
