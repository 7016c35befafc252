"""The exponential moving average of a model's weights (Polyak & Juditsky, 1992, https://doi.org/10.1137/0330046).

    average += (1 - d) (weight - average),    d = min(decay, (1 + t) / (10 + t)),    t = iterations of the optimizer

so that the first averages, still near the random start, are soon forgotten; d is that of TensorFlow's
`tf.train.ExponentialMovingAverage` with `num_updates`.

Keras' own, an optimizer's `use_ema` with `SwapEMAWeights`, is not used: it exchanges weights and averages by adding and
subtracting them, so that they come back rounded, and the optimizer's `finalize_variable_values`, with which `fit` ends,
is made for a model of one optimizer. With gradient accumulation it averages at every batch.
"""

import contextlib
from collections.abc import Callable, Iterator
from numbers import Real

import keras
import tensorflow as tf
from keras import ops

from tfzoo.training.checkpoint import optimizers


class ExponentialMovingAverage(keras.callbacks.Callback):
    """Keep the moving average of the weights that are trained, and let the validations of `fit` judge the averages.

    All networks of the model are averaged, with one update after each batch in which an optimizer's `iterations` went
    on: not where gradients are only accumulated, nor where an overflow (mixed_float16) left the weights as they were.
    Of several optimizers, t is the iterations of the one that is furthest. Averages are kept in their weights' type.

    Statistics of BatchNormalization are not averaged: the averages are judged and saved with the model's own.

    Averages and weights change places while a validation runs; `swapped` lets others, who save the model, do the same.
    A validation that breaks off within `fit` leaves them exchanged until the next `fit` or `evaluate` with this
    callback, the end of a `swapped` around it, or `restore`: call that in a `finally` around `fit`.

    Args:
        decay: How much of an average stays at an update, in [0, 1); 0.999 averages over about 1000 updates.

    Attributes:
        weights: The Keras variables that are averaged, `model.trainable_variables`.
        variables: Their averages in the same order, TensorFlow variables of the model's strategy. They are made when
            a built model is set, or at the beginning of its `fit`, as copies of the weights. A checkpoint keeps them
            with `tf.train.Checkpoint(averages=callback.variables)`, and `Checkpoints` if it is one of its `others`.

    Raises:
        ValueError: decay is not in [0, 1).
    """

    def __init__(self, decay: float):
        super().__init__()
        if not (isinstance(decay, Real) and 0 <= decay < 1):
            raise ValueError(
                "The decay of a moving average is the share of it that stays at an update, in [0, 1); "
                f"0.999 is usual. Received: decay={decay!r}"
            )
        self.decay = float(decay)
        self.weights = []
        self.variables = []
        self.blocks = 0  # how many `swapped` last
        self.testing = False  # whether a validation lasts

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Exchange averages and weights while the block lasts, bit for bit; within another such block, do nothing."""
        before = self.blocks, self.testing
        try:
            self.blocks += 1
            self._place()
            yield
        finally:
            self.blocks, self.testing = before  # a validation that broke off within the block is over, too
            self._place()

    def restore(self) -> None:
        """Put the weights back where a validation broke off; without one, do nothing."""
        self.testing = False
        self._place()

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        if model is not None:
            self._make_variables()

    def on_train_begin(self, logs=None):
        self.restore()
        self._make_variables()
        if not self.variables:
            raise ValueError(
                "A moving average needs weights to average, and the model has none that are trained. Build the model "
                "before `fit`, or leave the average out. "
                f"Received: {self.model.name!r} of {len(self.model.weights)} weights"
            )
        if self.model.steps_per_execution != 1:
            raise ValueError(
                "A moving average is updated after every step, and Keras calls back after several. "
                f"Received: steps_per_execution={self.model.steps_per_execution}. Compile with steps_per_execution=1."
            )
        self._mark = self._function(self._mark_seen)  # anew: `compile` may have changed the optimizers
        self._update = self._function(self._update_all)

    def on_epoch_begin(self, epoch, logs=None):
        self._first = True

    def on_train_batch_begin(self, batch, logs=None):
        if self._first:  # only here have all callbacks begun, and the one that restores a checkpoint has done so
            self._mark()
            self._first = False

    def on_train_batch_end(self, batch, logs=None):
        self._update()

    def on_test_begin(self, logs=None):
        self.testing = True
        self._place()

    def on_test_end(self, logs=None):
        self.testing = False
        self._place()

    def _make_variables(self) -> None:
        """Make the averages that are not there yet: all, or those of weights whose layer was made trainable since."""
        weights = self.model.trainable_variables
        if [*map(id, weights)] == [*map(id, self.weights)]:
            return
        known = {id(weight): average for weight, average in zip(self.weights, self.variables, strict=True)}
        with self.model.distribute_strategy.scope():
            self.variables = [
                known[id(weight)]
                if id(weight) in known
                else tf.Variable(tf.convert_to_tensor(weight.value), trainable=False, name=f"average_{i}")
                for i, weight in enumerate(weights)
            ]
            self._seen = tf.Variable(self._iterations(), trainable=False, name="seen")  # t at the latest update
            # Kept beside what it describes and changed in the same call, so that no interrupt comes between the two.
            self._exchanged = tf.Variable(0, trainable=False, dtype=tf.int64, name="exchanged")
        self.weights = weights
        self._exchange = self._function(self._exchange_all)

    def _function(self, update: Callable[[], None]) -> Callable[[], None]:
        """Compile an update of the variables of all replicas, to be called outside of them."""
        compiled = tf.function(update)

        def call():
            with self.model.distribute_strategy.scope():
                compiled()

        return call

    def _place(self) -> None:
        """Have the averages in the model if somebody asks for them, else the weights."""
        if self.variables and (self.blocks > 0 or self.testing) != bool(self._exchanged.numpy()):
            self._exchange()

    def _iterations(self) -> tf.Tensor:
        """Give t: the iterations of the model's optimizer, the furthest of several; int64."""
        found = [tf.cast(ops.convert_to_tensor(optimizer.iterations), tf.int64) for optimizer in optimizers(self.model)]
        return tf.reduce_max(tf.stack([tf.zeros((), tf.int64), *found]))

    def _mark_seen(self) -> None:
        self._each(self._seen, lambda seen, t: seen.assign(t), self._iterations())

    def _update_all(self) -> None:
        t = self._iterations()
        rate = tf.maximum(tf.constant(1 - self.decay, tf.float64), 9 / (10 + tf.cast(t, tf.float64)))  # 1 - d
        rate = tf.where(t > self._seen, rate, 0)

        def update(average, weight, rate):
            change = tf.math.multiply_no_nan(weight - average, tf.cast(rate, average.dtype))
            average.assign_add(change)

        for average, weight in zip(self.variables, self.weights, strict=True):
            self._each(average, update, weight.value, rate)
        self._each(self._seen, lambda seen, t: seen.assign(t), t)

    def _exchange_all(self) -> None:
        def exchange(average, weight):
            kept = average.read_value()
            average.assign(weight.read_value())
            weight.assign(kept)

        for average, weight in zip(self.variables, self.weights, strict=True):
            self._each(average, exchange, weight.value)
        self._each(self._exchanged, lambda exchanged: exchanged.assign(1 - exchanged))

    def _each(self, variable: tf.Variable, function: Callable, *args) -> None:
        """Call a function with each replica's copy of a variable and of the other arguments."""
        self.model.distribute_strategy.extended.update(variable, function, args=args, group=False)
