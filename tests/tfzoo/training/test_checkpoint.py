import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.data.numbers import count
from tfzoo.training.checkpoint import Checkpoints, kept, optimizers, variables
from tfzoo.training.distributed_fit import repaired

STEPS = 6  # in an epoch


class Stop(keras.callbacks.Callback):
    """Break off behind a step."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise InterruptedError


def model(seed=0):
    """A model with everything that has a state: statistics, random layers with and without a seed, slots, metrics."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((5,))
    x = keras.layers.Dense(7, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.4)(x)
    x = keras.layers.GaussianNoise(0.1)(x)
    made = keras.Model(image, keras.layers.Dense(1)(x))
    rate = keras.optimizers.schedules.CosineDecay(0.05, 3 * STEPS)
    made.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), "mse", metrics=["mae"])
    return made


def data(start):
    def batch(n):
        rng = np.random.default_rng([3, int(n)])
        return rng.normal(size=(4, 5)).astype(np.float32), rng.normal(size=(4, 1)).astype(np.float32)

    def load(n):
        x, y = tf.numpy_function(batch, [n], [tf.float32, tf.float32])
        return tf.ensure_shape(x, (4, 5)), tf.ensure_shape(y, (4, 1))

    return count(start, 2**62).map(load)


def fit(made, folder, begin=0, callbacks=(), every=2):
    keep = Checkpoints(folder, steps_per_epoch=STEPS, every=every, begin=begin)
    with repaired(made, first_step=begin % STEPS):
        return made.fit(
            data(begin),
            initial_epoch=begin // STEPS,
            epochs=3,
            steps_per_epoch=STEPS,
            callbacks=[*callbacks, keep],
            shuffle=False,
            verbose=0,
        ).history


def state(made):
    return [keras.ops.convert_to_numpy(variable) for variable in variables(made)]


@pytest.mark.parametrize(
    ("broken", "last"), [((0, 3), 2), ((0, 5), 4), ((1, 0), 6), ((2, 5), 16)], ids=["early", "end", "begin", "last"]
)
def test_a_run_that_broke_off_goes_on_as_if_nothing_had_happened(broken, last, tmp_path):
    whole = model()
    logs = fit(whole, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        fit(model(), tmp_path / "broken", callbacks=[Stop(*broken)])
    assert kept(tmp_path / "broken")[-1] == last
    again = model(seed=1)  # everything comes from the checkpoint
    rest = fit(again, tmp_path / "broken", begin=last)
    for a, b in zip(state(whole), state(again), strict=True):
        np.testing.assert_array_equal(a, b)
    for name, values in rest.items():  # the broken epoch's means are of all its steps
        np.testing.assert_array_equal(values, logs[name][last // STEPS :])


def test_the_test_can_fail(tmp_path, monkeypatch):
    """What Keras' own callback leaves out, left out here."""
    from tfzoo.training import checkpoint

    whole = model()
    fit(whole, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        fit(model(), tmp_path / "broken", callbacks=[Stop(1, 3)])
    monkeypatch.setattr(checkpoint.Checkpoints, "restore", lambda self, steps: None)
    again = model()
    fit(again, tmp_path / "broken", begin=8)
    assert any((a != b).any() for a, b in zip(state(whole), state(again), strict=True))


def test_two_checkpoints_stay(tmp_path):
    fit(model(), tmp_path)
    assert kept(tmp_path) == [16, 18]
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["step-16.index", "step-18.index"]
    assert kept(tmp_path / "none") == []


@pytest.mark.parametrize("how", ["cut short", "a bit flipped", "gone", "of another model"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_offered(how, tmp_path):
    fit(model(), tmp_path)
    path = next(tmp_path.glob("step-18.data-*"))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 1
    made = model()
    if how == "gone":
        path.unlink()
    elif how == "of another model":
        made = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        made.compile("adam", "mse")
    else:
        path.write_bytes({"cut short": whole[:-300], "a bit flipped": flipped}[how])
    with pytest.raises(ValueError, match=r"checkpoint of step 18 cannot be read back: .*step-18.*--from-step 16"):
        keep = Checkpoints(tmp_path, steps_per_epoch=STEPS, begin=18)
        made.optimizer.build(made.trainable_variables)
        keep.set_model(made)
        keep.on_epoch_begin(3)


def test_a_save_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    made = model()

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    class Full(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                monkeypatch.setattr(tf.train.Checkpoint, "_write", full, raising=False)
                monkeypatch.setattr(tf.train.Checkpoint, "write", full)

    with pytest.raises(tf.errors.OpError):
        fit(made, tmp_path, callbacks=[Full()])
    assert kept(tmp_path) == [4, 6]


@pytest.mark.parametrize("where", ["kernel", "velocity"])
def test_weights_that_are_no_numbers_are_not_saved(where, tmp_path):
    made = model()
    fit(made, tmp_path)
    bad = made.layers[1].kernel if where == "kernel" else made.optimizer._velocities[0]
    bad.assign(np.full((5, 7), np.nan))
    with pytest.raises(FloatingPointError, match=f"no longer finite at step 2: .*{where}"):
        fit(made, tmp_path / "again")
    assert kept(tmp_path / "again") == []


class OwnStep(keras.Model):
    """Networks that only the model's own `train_step` calls, as it likes; some models have no `call` at all."""

    def __init__(self):
        super().__init__()
        self.network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(self.network(x) - y))
        self.optimizer.apply(tape.gradient(loss, self.network.trainable_variables), self.network.trainable_variables)
        return {"loss": loss}


class WithTime(OwnStep):
    """As a denoiser is called."""

    def call(self, x, t):
        return self.network(x) * t


@pytest.mark.parametrize("kind", [OwnStep, WithTime])
def test_a_model_of_networks_goes_on(kind, tmp_path):
    def made(seed):
        keras.utils.set_random_seed(seed)
        model = kind()
        model.compile(keras.optimizers.Adam(0.05))
        return model

    whole = made(0)
    fit(whole, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        fit(made(0), tmp_path / "broken", callbacks=[Stop(1, 3)])
    again = made(1)
    fit(again, tmp_path / "broken", begin=8)
    assert again.optimizer.iterations == 18
    for a, b in zip(state(whole), state(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_optimizers_are_found_where_they_are():
    first, second, third = (keras.optimizers.SGD(name=name) for name in ("first", "second", "third"))
    made = OwnStep()
    made.compile(first)
    made.more = [second]
    made.network.compile(third)
    assert [optimizer.name for optimizer in optimizers(made)] == ["first", "second"]
    third.build(made.network.trainable_variables)
    assert [optimizer.name for optimizer in optimizers(made)] == ["first", "second", "third"]


def test_steps_that_are_not_seen_are_refused(tmp_path):
    made = model()
    made.compile("sgd", "mse", steps_per_execution=2)
    with pytest.raises(ValueError, match=r"Received: steps_per_execution=2\. Compile with"):
        fit(made, tmp_path)


def test_an_optimizer_without_variables_is_refused():
    made = model()
    made.critic_optimizer = keras.optimizers.SGD(0.1, name="critic")
    made.optimizer.build(made.trainable_variables)
    with pytest.raises(ValueError, match=r"no variables yet: critic\. Call `optimizer\.build"):
        variables(made)


def test_sigterm_saves_and_exits_with_143(tmp_path, capsys):
    class Terminate(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        fit(model(), tmp_path, callbacks=[Terminate()], every=100)
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert (
        kept(tmp_path) == [3]
        and "stopped by SIGTERM. The same command goes on from step 3 (" in capsys.readouterr().err
    )
