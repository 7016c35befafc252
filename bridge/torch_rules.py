"""Keras optimizers that go by torch's rules, for a training that has begun with one of torch's own classes.

They are Keras' classes but for the step itself. What torch has in the gradient, weight decay, is there, too.
"""

import keras
import tensorflow as tf
from keras import ops

from bridge import optimizers


class TorchRule:
    """What torch's rules have in common.

    Args:
        coupled: Weight decay is a part of the gradient.
    """

    def __init__(self, *arguments, coupled: bool = False, **settings):
        super().__init__(*arguments, **settings)
        self.coupled = coupled

    def get_config(self):
        return {**super().get_config(), "coupled": self.coupled}

    def _apply_weight_decay(self, variables):
        if not self.coupled:
            super()._apply_weight_decay(variables)

    def update_step(self, gradient, variable, learning_rate):
        """As Keras calls it."""
        dtype = variable.dtype
        if isinstance(gradient, tf.IndexedSlices):  # of an embedding's rows; torch adds up what is of the same row
            gradient = tf.convert_to_tensor(gradient)
        gradient = ops.cast(gradient, dtype)
        if self.coupled and self.weight_decay and self._use_weight_decay(variable):
            gradient = gradient + ops.cast(self.weight_decay, dtype) * variable
        self.move(gradient, variable, ops.cast(learning_rate, dtype), self._get_variable_index(variable))

    def averaged(self, average, value, share: float):
        """Move an average by a share towards a value."""
        self.assign(average, average * (1 - share) + value * share)
        return average

    def correction(self, beta: float, dtype):
        """1 - beta^t, which torch computes in float64."""
        step = ops.cast(self.iterations + 1, "float64")
        return ops.cast(1 - ops.power(ops.convert_to_tensor(beta, "float64"), step), dtype)


@keras.saving.register_keras_serializable(package="bridge")
class SGD(TorchRule, keras.optimizers.SGD):
    """`torch.optim.SGD`: u = m u + g, w -= lr u; Nesterov's w -= lr (g + m u)."""

    def move(self, gradient, variable, rate, i):
        if self.momentum:
            velocity = self.momentums[i]
            self.assign(velocity, velocity * self.momentum + gradient)
            gradient = gradient + velocity * self.momentum if self.nesterov else velocity
        self.assign_sub(variable, gradient * rate)


@keras.saving.register_keras_serializable(package="bridge")
class Adam(TorchRule, keras.optimizers.Adam):
    """`torch.optim.Adam`: w -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)."""

    def move(self, gradient, variable, rate, i):
        momentum = self.averaged(self._momentums[i], gradient, 1 - self.beta_1)
        velocity = self.averaged(self._velocities[i], ops.square(gradient), 1 - self.beta_2)
        if self.amsgrad:
            self.assign(self._velocity_hats[i], ops.maximum(self._velocity_hats[i], velocity))
            velocity = self._velocity_hats[i]
        one, two = (self.correction(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        self.assign_sub(variable, rate / one * momentum / (ops.sqrt(velocity) / ops.sqrt(two) + self.epsilon))


@keras.saving.register_keras_serializable(package="bridge")
class AdamW(Adam):
    """`torch.optim.AdamW`: Adam, and w -= lr decay w before."""


@keras.saving.register_keras_serializable(package="bridge")
class RMSprop(TorchRule, keras.optimizers.RMSprop):
    """`torch.optim.RMSprop`: u = m u + g / (sqrt(v) + eps), w -= lr u."""

    def move(self, gradient, variable, rate, i):
        velocity = self.averaged(self._velocities[i], ops.square(gradient), 1 - self.rho)
        if self.centered:
            velocity = velocity - ops.square(self.averaged(self._average_gradients[i], gradient, 1 - self.rho))
        step = gradient / (ops.sqrt(velocity) + self.epsilon)
        if self.momentum > 0:
            self.assign(self._momentums[i], self._momentums[i] * self.momentum + step)
            step = self._momentums[i]
        self.assign_sub(variable, step * rate)


@keras.saving.register_keras_serializable(package="bridge")
class Adagrad(TorchRule, keras.optimizers.Adagrad):
    """`torch.optim.Adagrad`: w -= lr g / (sqrt(v) + eps)."""

    def move(self, gradient, variable, rate, i):
        accumulator = self._accumulators[i]
        self.assign_add(accumulator, ops.square(gradient))
        self.assign_sub(variable, gradient / (ops.sqrt(accumulator) + self.epsilon) * rate)


@keras.saving.register_keras_serializable(package="bridge")
class Adamax(TorchRule, keras.optimizers.Adamax):
    """`torch.optim.Adamax`: u = max(b2 u, |g| + eps), w -= lr / (1 - b1^t) m / u."""

    def move(self, gradient, variable, rate, i):
        momentum = self.averaged(self._m[i], gradient, 1 - self.beta_1)
        self.assign(self._u[i], ops.maximum(self._u[i] * self.beta_2, ops.abs(gradient) + self.epsilon))
        self.assign_sub(variable, rate / self.correction(self.beta_1, variable.dtype) * momentum / self._u[i])


@keras.saving.register_keras_serializable(package="bridge")
class Nadam(TorchRule, keras.optimizers.Nadam):
    """`torch.optim.NAdam`, whose momentum grows more slowly than in Keras.

    Args:
        momentum_decay: psi of 0.96^(t psi); in Keras it is 1.
    """

    def __init__(self, *arguments, momentum_decay: float = 0.004, **settings):
        super().__init__(*arguments, **settings)
        self.momentum_decay = momentum_decay

    def get_config(self):
        return {**super().get_config(), "momentum_decay": self.momentum_decay}

    def share(self, step):
        """The momentum of a step, in float64 as torch computes it."""
        return self.beta_1 * (1 - 0.5 * ops.power(ops.convert_to_tensor(0.96, "float64"), step * self.momentum_decay))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        now = self.share(ops.cast(self.iterations + 1, "float64"))
        self.assign(self._u_product, self._u_product * ops.cast(now, self._u_product.dtype))
        super(keras.optimizers.Nadam, self)._backend_update_step(grads, trainable_variables, learning_rate)

    def move(self, gradient, variable, rate, i):
        dtype, step = variable.dtype, ops.cast(self.iterations + 1, "float64")
        now, then = self.share(step), self.share(step + 1)
        product = ops.cast(self._u_product, "float64")
        momentum = self.averaged(self._momentums[i], gradient, 1 - self.beta_1)
        velocity = self.averaged(self._velocities[i], ops.square(gradient), 1 - self.beta_2)
        root = ops.sqrt(velocity / self.correction(self.beta_2, dtype)) + self.epsilon
        ahead = ops.cast((1 - now) / (1 - product), dtype) * gradient
        ahead = ahead + ops.cast(then / (1 - product * then), dtype) * momentum
        self.assign_sub(variable, rate * ahead / root)


@keras.saving.register_keras_serializable(package="bridge")
class Table(keras.optimizers.schedules.LearningRateSchedule):
    """The rates of the first steps, one by one; behind them the last.

    Args:
        rates: By step.
    """

    def __init__(self, rates: list[float]):
        super().__init__()
        self.rates = list(rates)

    def __call__(self, step):
        return ops.take(ops.convert_to_tensor(self.rates), ops.minimum(step, len(self.rates) - 1))

    def get_config(self):
        return {"rates": self.rates}


def is_known(schedule) -> bool:
    """Tell whether `bridge.optimizers` has a schedule."""
    name = type(schedule).__name__
    return type(schedule) in (Table, getattr(keras.optimizers.schedules, name, None)) and name in optimizers.SCHEDULES


def written_down(schedule, steps: int) -> Table:
    """Write down the rates of any schedule for the first steps."""

    def rate(step):
        return tf.cast(schedule(step), tf.float64)

    rates = tf.function(lambda: tf.map_fn(rate, tf.range(steps, dtype=tf.int64), fn_output_signature=tf.float64))()
    return Table(rates.numpy().tolist())


CLASSES = {cls.__name__: cls for cls in (SGD, Adam, AdamW, RMSprop, Adagrad, Adamax, Nadam)}
