"""The moving average: recomputed in NumPy, exchanged bit for bit, the same on two devices, judged by validations."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.training.ema import ExponentialMovingAverage

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [3.0]], "float32") + 1


def linear(batch_norm=False, **options):
    """A compiled model with weights that are the same each time, in the float type of `keras.config.floatx()`."""
    keras.utils.set_random_seed(0)
    norm = [keras.layers.BatchNormalization(momentum=0.5)] if batch_norm else []
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), *norm, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05, **options), "mse")
    return model


def values(variables):
    return [np.array(variable.numpy()) for variable in variables]


def equal(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


class Record(keras.callbacks.Callback):
    """Weights and iterations after each batch, and the weights before the first."""

    def on_train_begin(self, logs=None):
        self.start, self.steps = values(self.model.trainable_variables), []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append((int(self.model.optimizer.iterations), values(self.model.trainable_variables)))


def recomputed(record, decay):
    averages, seen = [value.astype("float64") for value in record.start], 0
    for t, weights in record.steps:
        if t == seen:
            continue
        d = min(decay, (1 + t) / (10 + t))
        averages, seen = [a + (1 - d) * (w - a) for a, w in zip(averages, weights, strict=True)], t
    return averages


@pytest.fixture
def float64():
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize(
    ("decay", "accumulated"),
    [(0.0, None), (0.3, None), (0.9999, None), (0.9999, 4)],  # 0.3: below the formula's share from the third update on
)
def test_averages_are_the_formulas(float64, decay, accumulated):
    model = linear(gradient_accumulation_steps=accumulated)
    average, record = ExponentialMovingAverage(decay), Record()
    model.fit(X, Y, batch_size=4, epochs=3, verbose=0, callbacks=[record, average])
    assert record.steps[-1][0] == (18 // accumulated if accumulated else 18)
    for found, expected in zip(values(average.variables), recomputed(record, decay), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_decay_is_that_of_tensorflow():
    """`tf.train.ExponentialMovingAverage` with `num_updates`, in a graph as it needs one."""
    model = linear()
    average, record = ExponentialMovingAverage(0.9), Record()
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[record, average])
    kernel = tf.Variable(record.start[0])
    for t, weights in record.steps:
        if t == 1:
            theirs = tf.train.ExponentialMovingAverage(0.9)
            theirs.apply([kernel])  # starts at the weight as it is now
        kernel.assign(weights[0])
        theirs._num_updates = t
        theirs.apply([kernel])
    np.testing.assert_allclose(average.variables[0].numpy(), theirs.average(kernel).numpy(), rtol=1e-5)


def test_two_fits_are_one():
    one, two = linear(), linear()
    once, twice = ExponentialMovingAverage(0.9), ExponentialMovingAverage(0.9)
    one.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[once])
    for _ in range(2):
        two.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[twice])
    equal(values(once.variables), values(twice.variables))


def trained(batch_norm=False):
    model, average = linear(batch_norm), ExponentialMovingAverage(0.9)
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[average])
    return model, average, values(model.trainable_variables), values(average.variables)


def test_swap_is_bit_exact():
    model, average, weights, averages = trained(batch_norm=True)
    others = values(model.non_trainable_variables)
    with average.swapped():
        equal(values(model.trainable_variables), averages)
        equal(values(average.variables), weights)
        equal(values(model.non_trainable_variables), others)  # the statistics of the normalisation
        with average.swapped():
            equal(values(model.trainable_variables), averages)
            model.evaluate(X, Y, verbose=0, callbacks=[average])
            equal(values(model.trainable_variables), averages)
        equal(values(model.trainable_variables), averages)
    equal(values(model.trainable_variables), weights)
    equal(values(average.variables), averages)


class BreakOff(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def test_an_interrupted_swap_restores():
    model, average, weights, averages = trained()
    with pytest.raises(KeyboardInterrupt), average.swapped():
        equal(values(model.trainable_variables), averages)
        model.evaluate(X, Y, verbose=0, callbacks=[average, BreakOff()])
    equal(values(model.trainable_variables), weights)
    equal(values(average.variables), averages)


@pytest.mark.parametrize("remedy", ["restore", "evaluate", "fit"])
def test_an_interrupted_validation_is_made_good(remedy):
    model, average, weights, averages = trained()
    with pytest.raises(KeyboardInterrupt):
        model.evaluate(X, Y, verbose=0, callbacks=[average, BreakOff()])
    equal(values(model.trainable_variables), averages)
    if remedy == "restore":
        average.restore()
    elif remedy == "evaluate":
        model.evaluate(X, Y, verbose=0, callbacks=[average])
    else:
        model.fit(X, Y, epochs=0, verbose=0, callbacks=[average])
    equal(values(model.trainable_variables), weights)
    equal(values(average.variables), averages)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_validation_judges_the_averages(batch_norm):
    model, average = linear(batch_norm), ExponentialMovingAverage(0.9)
    val = X[:8], Y[:8]
    history = model.fit(X, Y, batch_size=4, validation_data=val, verbose=0, callbacks=[average]).history
    live = model.evaluate(*val, batch_size=4, verbose=0)
    for weight, value in zip(model.trainable_variables, average.variables, strict=True):
        weight.assign(value)
    assert history["val_loss"] == [model.evaluate(*val, batch_size=4, verbose=0)]
    assert history["val_loss"] != [live]


def test_training_goes_the_same_way_with_it():
    with_it, without = linear(True), linear(True)
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "validation_data": (X, Y), "verbose": 0}
    with_it.fit(X, Y, callbacks=[ExponentialMovingAverage(0.9)], **options)
    without.fit(X, Y, **options)
    equal(values(with_it.variables), values(without.variables))


def test_a_layer_that_thaws_joins_in():
    model, average = linear(), ExponentialMovingAverage(0.9)
    model.layers[0].trainable = False
    model.fit(X, Y, verbose=0, callbacks=[average])
    (_, last), kept = average.variables, average.variables[-1]
    assert last is kept
    model.layers[0].trainable = True
    model.fit(X, Y, epochs=0, verbose=0, callbacks=[average])
    assert len(average.variables) == 4 and average.variables[-1] is kept
    equal(values(average.variables[:2]), values(model.layers[0].trainable_variables))


class Pair(keras.Model):
    """Two networks, each with its optimizer; the second is updated twice in a step, the first every other step."""

    def __init__(self):
        super().__init__()
        self.first = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        self.second = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        self.built = True

    def compile(self):
        super().compile(optimizer=None)
        self.first_optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        self.second_optimizer = keras.optimizers.SGD(0.1)
        self.first_optimizer.build(self.first.trainable_variables)
        self.second_optimizer.build(self.second.trainable_variables)

    def train_step(self, data):
        for network, optimizer, times in (
            (self.first, self.first_optimizer, 1),
            (self.second, self.second_optimizer, 2),
        ):
            for _ in range(times):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((network(data[0]) - data[1]) ** 2)
                variables = network.trainable_variables
                optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


def test_two_networks_with_two_optimizers():
    keras.utils.set_random_seed(0)
    model = Pair()
    model.compile()
    average, record = ExponentialMovingAverage(0.99), Record()
    record.on_train_batch_end = lambda batch, logs=None: record.steps.append(
        (int(model.second_optimizer.iterations), values(model.trainable_variables))
    )
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[record, average])
    assert len(average.variables) == 4 and [t for t, _ in record.steps] == [2, 4, 6, 8, 10, 12]
    for found, expected in zip(values(average.variables), recomputed(record, 0.99), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_step_that_overflowed_is_left_out():
    model = linear()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05)), "mse")
    average = ExponentialMovingAverage(0.9)
    model.fit(X, np.full_like(Y, np.inf), batch_size=4, verbose=0, callbacks=[average])
    assert int(model.optimizer.iterations) == 0
    equal(values(average.variables), values(model.trainable_variables))


def test_a_checkpoint_keeps_them(tmp_path):
    _, average, _, averages = trained()
    path = tf.train.Checkpoint(averages=average.variables).save(str(tmp_path / "averages"))
    again = ExponentialMovingAverage(0.9)
    again.set_model(linear())
    tf.train.Checkpoint(averages=again.variables).restore(path).assert_existing_objects_matched()
    equal(values(again.variables), averages)


def test_decay_is_a_share():
    with pytest.raises(ValueError, match=r"in \[0, 1\); 0.999 is usual. Received: decay=1"):
        ExponentialMovingAverage(1)


def test_several_steps_at_once_are_refused():
    model = linear()
    model.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(ValueError, match="Received: steps_per_execution=2. Compile with steps_per_execution=1"):
        model.fit(X, Y, verbose=0, callbacks=[ExponentialMovingAverage(0.9)])


def test_a_model_without_weights_is_refused():
    model = linear()
    model.trainable = False
    with pytest.raises(ValueError, match="has none that are trained.*Received: 'sequential.*' of 4 weights"):
        model.fit(X, Y, verbose=0, callbacks=[ExponentialMovingAverage(0.9)])


DEVICES = """
import json, os, sys
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")
import keras, numpy as np, tensorflow as tf
from tfzoo.training.distributed_fit import repaired
from tfzoo.training.ema import ExponentialMovingAverage

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
x = np.random.default_rng(0).normal(size=(22, 3))
y = x.sum(1, keepdims=True)
keras.config.set_floatx("float64")
found = {}
for name, strategy in {
    "one": tf.distribute.OneDeviceStrategy("/cpu:0"), "two": tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
}.items():
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.05), "mse")
    average = ExponentialMovingAverage(0.9)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    with repaired(model):
        history = model.fit(data, epochs=2, validation_data=data, verbose=0, callbacks=[average]).history
    copies = [[copy.numpy() for copy in strategy.experimental_local_results(v)] for v in average.variables]
    before = [w.numpy() for w in model.trainable_variables]
    with average.swapped():
        for weight, values in zip(model.trainable_variables, copies):
            for copy, value in zip(strategy.experimental_local_results(weight.value), values):
                np.testing.assert_array_equal(copy.numpy(), value)
    for weight, value in zip(model.trainable_variables, before):
        for copy in strategy.experimental_local_results(weight.value):
            np.testing.assert_array_equal(copy.numpy(), value)
    found[name] = {"val_loss": history["val_loss"], "copies": [[c.tolist() for c in v] for v in copies]}
print(json.dumps(found))
"""


def test_two_devices_are_one():
    run = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    np.testing.assert_allclose(found["two"]["val_loss"], found["one"]["val_loss"], rtol=1e-6)
    for one, two in zip(found["one"]["copies"], found["two"]["copies"], strict=True):
        assert (len(one), len(two)) == (1, 2)
        np.testing.assert_allclose(two, one * 2, rtol=1e-6, atol=1e-9)
