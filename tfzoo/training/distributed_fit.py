"""`fit`, `evaluate` and `predict` under a `tf.distribute` strategy: the same numbers as on one device.

Keras 3's trainer for TensorFlow falls short of that in six places (read and measured in 3.15):

1. Under `MultiWorkerMirroredStrategy` a call fails before its first step: to build the model, the trainer averages the
   first batch over the workers and takes away its batch axis (keras#20585). Here the model is built from the shapes
   that the data set declares, and no batch is spent on it.
2. It then fails on the logs, numbers without a batch axis, which it reduces along their first axis.
3. Every replica's loss counts 1/replicas, also in a last batch that leaves some replicas fewer examples than others,
   or none. Here it counts by its examples. A loss function that gives one number for the batch is not scaled at all.
4. Gradients are clipped and looked at for overflow (mixed_float16) before they are added up over the replicas, so
   either gives other weights than one device does. Here they are added up first.
5. Accumulating gradients fails: it changes variables in a branch that each replica takes on its own. Here all take it
   together.
6. An epoch always begins at its first step. Here the first one can begin where a killed run stopped.

What stays different: of a loss with a mask each replica takes its own mean, which counts by the replica's examples, not
by what the mask leaves of them.

The repairs replace functions of Keras while `repaired` lasts, and never become a part of a model. They are written
against one version of them: `expect` compares the signatures with those, and refuses another Keras by its number.
"""

import contextlib
import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import keras
import tensorflow as tf
from keras import ops, tree
from keras.src.backend.tensorflow import optimizer as tensorflow_optimizer
from keras.src.backend.tensorflow import trainer
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.layers.convolutional.base_separable_conv import BaseSeparableConv
from keras.src.layers.pooling.base_pooling import BasePooling
from keras.src.losses import loss as losses
from keras.src.optimizers import base_optimizer, loss_scale_optimizer

# What the repairs replace, with the parameters that they were written for.
REPLACED = {
    (trainer.TensorFlowTrainer, "_make_function"): "self, step_function",
    (trainer.TensorFlowTrainer, "_maybe_symbolic_build"): "self, iterator, data_batch",
    (trainer, "TFEpochIterator"): "distribute_strategy, args, kwargs",
    (trainer, "reduce_per_replica"): "values, strategy, reduction",
    (losses, "reduce_values"): "values, sample_weight, reduction",
    (losses, "scale_loss_for_distribution"): "value",
    (losses, "unscale_loss_for_distribution"): "value",
    (base_optimizer.BaseOptimizer, "apply"): "self, grads, trainable_variables",
    (base_optimizer.BaseOptimizer, "_backend_apply_gradients"): "self, grads, trainable_variables",
    (loss_scale_optimizer.LossScaleOptimizer, "apply"): "self, grads, trainable_variables",
    (tensorflow_optimizer.TFOptimizer, "_all_reduce_sum_gradients"): "self, grads_and_vars",
}
USED = {
    (keras.Model, "_symbolic_build"): "self, iterator, data_batch",
    (keras.Model, "_flatten_layers"): "self, include_self, recursive",
    (trainer.TFEpochIterator, "_enumerate_iterator"): "self",
    (base_optimizer.BaseOptimizer, "_get_variable_index"): "self, variable",
    (base_optimizer.BaseOptimizer, "_clip_gradients"): "self, grads",
    (tensorflow_optimizer.TFOptimizer, "_apply_weight_decay"): "self, variables",
    (tensorflow_optimizer.TFOptimizer, "_backend_update_step"): "self, grads, trainable_variables, learning_rate",
}
replica = threading.local()  # `.share`: the part of the global batch that the step being traced computes


def scale_loss(loss: tf.Tensor) -> tf.Tensor:
    """Scale a replica's mean loss so that the replicas' losses add up to the mean over the global batch.

    For a custom `train_step`: the optimizer adds the replicas' gradients up. `compile`'s losses and `add_loss` are
    scaled already.

    Args:
        loss: Mean over the replica's own examples; any shape.

    Returns:
        The loss times the replica's share of the global batch: one over the number of replicas where all have the
        same number of examples. On one device, the loss.
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return loss
    return tf.math.multiply_no_nan(loss, tf.cast(share(), loss.dtype))  # a replica without examples has a mean of NaN


def unscale_loss(loss: tf.Tensor) -> tf.Tensor:
    """Undo `scale_loss`; 0 where the replica has no examples."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return loss
    return tf.math.divide_no_nan(loss, tf.cast(share(), loss.dtype))


def share() -> float | tf.Tensor:
    """Give the part of the global batch that this replica computes, in [0, 1]."""
    return getattr(replica, "share", 1 / tf.distribute.get_strategy().num_replicas_in_sync)


@contextlib.contextmanager
def repaired(model: keras.Model, first_step: int = 0) -> Iterator[None]:
    """Repair Keras' `fit`, `evaluate` and `predict` while the block lasts.

    Args:
        model: The model to be called; made and compiled in its strategy's scope.
        first_step: Where the first epoch of `fit` begins: so many steps are left out, and the data set given to `fit`
            begins behind their batches and is endless, as Keras counts the steps left out as batches taken.

    Raises:
        RuntimeError: This Keras is not the one that the repairs were written for.
    """
    expect(REPLACED | USED)
    with contextlib.ExitStack() as stack:
        for (owner, name), repair in repairs(first_step).items():
            stack.enter_context(mock.patch.object(owner, name, repair))
        forget_functions(model)
        stack.callback(forget_functions, model)
        yield


def expect(functions: dict[tuple[Any, str], str]) -> None:
    """Raise a RuntimeError that names the versions if a function of Keras is gone or takes other parameters."""
    changed = []
    for (owner, name), parameters in functions.items():
        found = getattr(owner, name, None)
        now = "gone" if found is None else ", ".join(inspect.signature(found).parameters)
        if now != parameters:
            changed.append(f"{owner.__name__}.{name}: expected ({parameters}), found ({now})")
    if changed:
        raise RuntimeError(
            "training under tf.distribute repairs functions of Keras 3.15, and this Keras has others. "
            f"Found: keras {keras.__version__}, tensorflow {tf.__version__}:\n  " + "\n  ".join(changed) + "\n"
            "Install keras>=3.15,<3.16 and tensorflow>=2.21,<2.22, or look whether tfzoo has a newer version."
        )


def forget_functions(model: keras.Model) -> None:
    """Make the model trace its steps anew: they keep what they were traced with."""
    model.train_function = model.test_function = model.predict_function = None


def repairs(first_step: int) -> dict[tuple[Any, str], Callable]:
    """Give the functions that stand in for those of `REPLACED`."""
    make_function = trainer.TensorFlowTrainer._make_function
    reduce_per_replica, reduce_values = trainer.reduce_per_replica, losses.reduce_values
    scaled_inside = set()  # optimizers that are called by a LossScaleOptimizer, with gradients already added up

    class EpochIterator(trainer.TFEpochIterator):
        """Keras' own, but that `fit`'s first epoch begins at `first_step`."""

        def __init__(self, *args, **kwargs):
            nonlocal first_step
            super().__init__(*args, **kwargs)
            self.left_out, first_step = first_step, 0  # the first to be made is the training data's

        def _enumerate_iterator(self):
            left_out, self.left_out = self.left_out, 0
            return itertools.islice(super()._enumerate_iterator(), left_out, None)  # it numbers steps; takes no batch

    def build(self, iterator=None, data_batch=None):
        build_state(self, data_batch if iterator is None else element_spec(iterator))

    def reduce_logs(values, strategy, reduction):
        if reduction in ("auto", "mean") and trainer._collective_all_reduce_multi_worker(strategy):
            return tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)
        return reduce_per_replica(values, strategy, reduction)

    def reduce_loss(values, sample_weight=None, reduction="sum_over_batch_size"):
        loss = reduce_values(values, sample_weight, reduction)
        number = tuple(values.shape) == () and reduction in ("sum_over_batch_size", "mean", "mean_with_sample_weight")
        return scale_loss(loss) if number else loss

    def make(self, step_function):
        trained = step_function == self.train_step
        return make_function(self, with_share(step_function, separate_norms(self, trained) or convolutions(self)))

    def summed_first(apply):
        @functools.wraps(apply)
        def apply_summed(self, grads, trainable_variables=None):
            if isinstance(self, loss_scale_optimizer.LossScaleOptimizer):
                scaled_inside.add(self.inner_optimizer)
            grads = list(grads) if self in scaled_inside else summed(grads)
            return apply(self, grads, trainable_variables)

        return apply_summed

    return {
        (trainer.TensorFlowTrainer, "_make_function"): make,
        (trainer.TensorFlowTrainer, "_maybe_symbolic_build"): build,
        (trainer, "TFEpochIterator"): EpochIterator,
        (trainer, "reduce_per_replica"): reduce_logs,
        (losses, "reduce_values"): reduce_loss,
        (losses, "scale_loss_for_distribution"): scale_loss,
        (losses, "unscale_loss_for_distribution"): unscale_loss,
        (base_optimizer.BaseOptimizer, "apply"): summed_first(base_optimizer.BaseOptimizer.apply),
        (base_optimizer.BaseOptimizer, "_backend_apply_gradients"): accumulate(
            base_optimizer.BaseOptimizer._backend_apply_gradients
        ),
        (loss_scale_optimizer.LossScaleOptimizer, "apply"): summed_first(loss_scale_optimizer.LossScaleOptimizer.apply),
        (tensorflow_optimizer.TFOptimizer, "_all_reduce_sum_gradients"): lambda self, grads_and_vars: grads_and_vars,
    }


def separate_norms(model: keras.Model, trained: bool) -> str:
    """Say which layers take statistics of a replica's own examples, and so cannot do without any; "" if none do."""
    kind = keras.layers.BatchNormalization
    found = [layer for layer in model._flatten_layers() if isinstance(layer, kind)]
    names = [layer.name for layer in found if trained and layer.trainable and not layer.synchronized]
    if not names:
        return ""
    return (
        f"{', '.join(names)} takes its statistics of them. Make all batches whole (drop_remainder=True) and no smaller "
        "than the devices, or use BatchNormalization(synchronized=True)"
    )


def convolutions(model: keras.Model) -> str:
    """Say which layers TensorFlow computes wrongly without examples; "" if none.

    On a CPU, oneDNN's Conv2D of no picture gives the shape of its input, and the gradient of its MaxPool ends the
    process (measured in TensorFlow 2.21).
    """
    kinds = (BaseConv, BaseDepthwiseConv, BaseSeparableConv, BasePooling)
    names = [layer.name for layer in model._flatten_layers() if isinstance(layer, kinds)]
    strategy = model.distribute_strategy
    if not names or strategy.num_replicas_in_sync == 1 or "CPU" not in str(strategy.extended.worker_devices):
        return ""
    return (
        f"{names[0]} and the like are wrong without any in TensorFlow on a CPU. Choose a batch size of which no batch "
        "is left with fewer examples than there are devices"
    )


def with_share(step: Callable, cannot: str) -> Callable:
    """Let a replica's step know its share of the global batch; where batches may be ragged, the replicas add up.

    Args:
        step: Of a batch.
        cannot: Why a replica without examples is an error; "" where it is none.
    """

    def shared(data):
        context = tf.distribute.get_replica_context()
        rows = first_tensor(data)
        if context.num_replicas_in_sync == 1 or rows.shape[0] is not None:
            return step(data)
        own = tf.cast(tf.shape(rows)[0], tf.float32)
        if cannot:
            check = tf.debugging.assert_positive(own, f"a device got no example of a batch, and {cannot}")
            with tf.control_dependencies([check]):
                data = tree.map_structure(
                    lambda x: x if x is None else tf.identity(x), data
                )  # else what cannot be done is done first
        replica.share = own / context.all_reduce(tf.distribute.ReduceOp.SUM, own)
        try:
            return step(data)
        finally:
            del replica.share

    return shared


def first_tensor(batch: Any) -> tf.Tensor:
    """Give a tensor of a batch, whose first axis counts the examples."""
    return next(tensor for tensor in tree.flatten(batch) if tensor is not None)


def summed(gradients: list) -> list:
    """Add gradients up over the replicas; None stays None."""
    context = tf.distribute.get_replica_context()
    there = [gradient for gradient in gradients if gradient is not None]
    if context is None or context.num_replicas_in_sync == 1 or not there:
        return list(gradients)
    total = iter(all_reduce(tf.distribute.ReduceOp.SUM, there))
    return [None if gradient is None else next(total) for gradient in gradients]


def all_reduce(how: tf.distribute.ReduceOp, values: list) -> list:
    """Reduce values over the replicas, those of one type together: TensorFlow packs them into one."""
    context, results = tf.distribute.get_replica_context(), {}
    for dtype in dict.fromkeys(value.dtype for value in values):
        places = [i for i, value in enumerate(values) if value.dtype == dtype]
        results |= zip(places, context.all_reduce(how, [values[i] for i in places]), strict=True)
    return [results[i] for i in range(len(values))]


def accumulate(apply_gradients: Callable) -> Callable:
    """Let the replicas accumulate gradients that are already added up, and take the optimizer's step together."""

    @functools.wraps(apply_gradients)
    def apply(self, grads, trainable_variables):
        steps = self.gradient_accumulation_steps
        if not steps or tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return apply_gradients(self, grads, trainable_variables)
        if self.use_ema:
            raise ValueError(
                "an optimizer that accumulates gradients on several devices keeps no averages. Received: use_ema=True. "
                "Leave it out, and give `fit` a tfzoo.training.ema.ExponentialMovingAverage."
            )
        accumulators = [self._accumulated_gradients[self._get_variable_index(v)].value for v in trainable_variables]

        def step(grads):
            grads = self._clip_gradients([grad / steps for grad in grads])
            self._apply_weight_decay(trainable_variables)
            self._backend_update_step(grads, trainable_variables, self.learning_rate)

        def together(strategy, grads):
            def change(function):
                for variable, grad in zip(accumulators, grads, strict=True):
                    strategy.extended.update(variable, function, args=(grad,))

            def take_step():
                values = strategy.extended.call_for_each_replica(lambda: [tf.identity(v) for v in accumulators])
                strategy.extended.call_for_each_replica(step, args=(values,))
                change(lambda variable, grad: variable.assign(tf.zeros_like(variable)))

            change(lambda variable, grad: variable.assign_add(grad))
            ops.cond((self._iterations + 1) % steps == 0, take_step, lambda: None)

        tf.distribute.get_replica_context().merge_call(together, args=(grads,))

    return apply


def averager(model: keras.Model) -> Callable[[], None]:
    """Make a function that gives every replica the mean of what the replicas hold of weights that no optimizer changes.

    Keras lets each replica keep its own statistics of a BatchNormalization that is not synchronised, and would judge a
    model by other statistics on every device, and save those of the first.

    Args:
        model: Built; on one device it stays as it is.
    """
    strategy = model.distribute_strategy
    own = list({id(v): v.value for v in model.non_trainable_variables if "float" in v.dtype}.values())
    if strategy.num_replicas_in_sync == 1 or not own:
        return lambda: None

    def mean():
        return all_reduce(tf.distribute.ReduceOp.MEAN, [tf.identity(variable) for variable in own])

    @tf.function
    def means():
        return strategy.run(mean)

    def average():
        for variable, value in zip(own, means(), strict=True):
            strategy.extended.update(variable, lambda variable, value: variable.assign(value), args=(value,))

    return average


def element_spec(iterator: trainer.TFEpochIterator) -> Any:
    """Give the shapes and types of a replica's batch, without taking one."""
    return tree.map_structure(
        lambda spec: getattr(spec, "_value_specs", [spec])[0], iterator._distributed_dataset.element_spec
    )


def build_state(model: keras.Model, batch: Any) -> None:
    """Make the variables of a model's layers, losses and metrics, and of its optimizer.

    Args:
        model: A compiled model.
        batch: What a step is given: tensors or their specifications.
    """
    built = all(layer.built for layer in model._flatten_layers(include_self=False))
    own_step = model._compile_loss is None and model._compile_metrics is None  # it calls the networks as it likes
    with model.distribute_strategy.scope():
        if type(model).call is not keras.Model.call and not (own_step and built):
            model._symbolic_build(data_batch=batch)
        elif built and model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
