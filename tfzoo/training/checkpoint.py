"""Exact resume: a run that was killed goes on as if nothing had happened.

Keras' BackupAndRestore reads back the epoch alone. Here everything that a step depends on is kept in one
`tf.train.Checkpoint`: the weights, every optimizer (its iterations are the schedule's place), the seeds of random
layers, the states of the metrics; its number is the place in the run. The data must be a function of that place. The
random numbers of `tf.random.*` have a state that TensorFlow does not show: only those of keras.random are resumed.
"""

import pathlib
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
from keras.src.random.seed_generator import global_seed_generator

from tfzoo.training.distributed_fit import all_reduce, averager
from tfzoo.training.strategy import is_chief


def kept(folder: pathlib.Path) -> list[int]:
    """List the complete checkpoints of a folder.

    Args:
        folder: What `Checkpoints` wrote into; need not be there.

    Returns:
        For each, the steps of the run that came before it; the newest is the last. If TensorFlow's own list is damaged
        or gone, as after a power failure, they are found by their files: `.index` is what is written last.
    """
    state = folder / "checkpoint"
    text = state.read_text(errors="replace") if state.exists() else ""
    listed = re.findall(r'^all_model_checkpoint_paths: "step-(\d+)"$', text, re.MULTILINE)
    found = (path.stem.removeprefix("step-") for path in folder.glob("step-*.index"))
    return [int(steps) for steps in listed] or sorted(int(steps) for steps in found)


class Checkpoints(keras.callbacks.Callback):
    """Keep the state of a run, and begin where it was kept.

    Put it last among the callbacks, so that what they write for an epoch is there before the checkpoint that says so.

    Args:
        folder: Where the checkpoints are; the last two stay.
        steps_per_epoch: As `fit` has it.
        every: Steps between two checkpoints; there is one at the end of each epoch besides.
        begin: One of `kept`, to begin from; 0 begins anew.
        others: More to be kept, such as averages: whatever has `.variables` when an epoch begins.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        steps_per_epoch: int,
        every: int = 100,
        begin: int = 0,
        others: tuple[Any, ...] = (),
    ):
        super().__init__()
        self.folder, self.steps_per_epoch, self.every, self.others = folder, steps_per_epoch, every, others
        self.begin, self.epoch, self.preempted, self.manager, self.elsewhere = begin, 0, False, None, None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Watch for SIGTERM, by which schedulers announce the end."""

        def preempt(*_):
            self.preempted = True

        if self.model.steps_per_execution != 1:
            raise ValueError(
                "A checkpoint is of a step, and Keras calls back after several. "
                f"Received: steps_per_execution={self.model.steps_per_execution}. Compile with steps_per_execution=1."
            )
        self.average = averager(self.model)
        self.before = signal.signal(signal.SIGTERM, preempt)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave SIGTERM as it was, and nothing behind."""
        signal.signal(signal.SIGTERM, self.before)
        if self.elsewhere:
            self.elsewhere.cleanup()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Restore, once; here, as `fit` resets the metrics just before."""
        self.epoch = epoch
        if self.begin:
            self.restore(self.begin)
            if self.begin % self.steps_per_epoch == 0:  # the states are those of the epoch before
                self.model.reset_metrics()
            self.begin = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Save every so many steps; at SIGTERM, too, and end."""
        preempted = self.agreed(self.preempted)
        steps = self.epoch * self.steps_per_epoch + batch + 1
        last = batch + 1 == self.steps_per_epoch
        if last:
            self.average()  # all replicas judge the same model, and callbacks before this one save it
        elif preempted or steps % self.every == 0:
            self.save(steps)  # the end of an epoch is saved in on_epoch_end: its validation would not be made up for
        if preempted and not last:
            self.end()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Save; the next epoch begins here. After SIGTERM in the validation, end."""
        self.save((epoch + 1) * self.steps_per_epoch)
        if self.agreed(self.preempted):
            self.end()

    def end(self) -> NoReturn:
        """Say so and exit with 143, on which a scheduler starts the same command again."""
        self.agreed(True)  # none leaves before the chief has saved: a scheduler may kill the others then
        self.on_train_end()
        there = kept(self.folder)
        print(
            f"stopped by SIGTERM. The same command goes on from {f'step {there[-1]}' if there else 'the beginning'} "
            f"({self.folder}).",
            file=sys.stderr,
        )
        raise SystemExit(128 + signal.SIGTERM)

    def agreed(self, flag: bool) -> bool:
        """Tell whether any worker's flag is set, so that all stop at the same step; a collective call."""
        strategy = self.model.distribute_strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return flag
        if not hasattr(self, "total"):

            def add(value):
                return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

            self.total = tf.function(lambda value: strategy.run(add, [value]))
        return float(strategy.experimental_local_results(self.total(tf.constant(float(flag))))[0]) > 0

    def checkpoint(self) -> tf.train.Checkpoint:
        """Give what is saved and restored: every variable, by its place in the model."""
        self.hold = holder(self.model)
        self.totals = [tf.Variable(tf.zeros(v.shape, v.dtype)) for v in self.model.metrics_variables]
        found = variables(self.model) + [variable for owner in self.others for variable in owner.variables]
        found = [variable.value if isinstance(variable, keras.Variable) else variable for variable in found]
        found += self.totals
        return tf.train.Checkpoint(variables={f"{i:05d}": variable for i, variable in enumerate(found)})

    def save(self, steps: int) -> None:
        """Save the state; the checkpoint before it stays until this one is whole.

        Args:
            steps: How many the run has taken.

        Raises:
            FloatingPointError: A weight, or what an optimizer keeps of it, is no longer a number: from there nothing
                can be learned.
        """
        self.average()
        bad = [v.path for v in variables(self.model) if not np.isfinite(keras.ops.convert_to_numpy(v)).all()]
        if bad:
            raise FloatingPointError(f"the weights are no longer finite at step {steps}: {', '.join(bad[:5])}")
        if self.manager is None:
            folder = self.folder
            if not is_chief(self.model.distribute_strategy):  # all workers save, and the chief's is kept
                self.elsewhere = tempfile.TemporaryDirectory()
                folder = self.elsewhere.name
            elif there := [f"step-{steps}" for steps in kept(folder)]:  # TensorFlow's list may be damaged
                times = {"all_model_checkpoint_timestamps": [1.0] * len(there), "last_preserved_timestamp": 0.0}
                tf.compat.v1.train.update_checkpoint_state(str(folder.absolute()), there[-1], there, **times)
            self.manager = tf.train.CheckpointManager(
                self.checkpoint(), str(folder), max_to_keep=2, checkpoint_name="step"
            )
        for variable, total in zip(self.totals, self.hold(None), strict=True):
            variable.assign(total)
        self.manager.save(checkpoint_number=steps)

    def restore(self, steps: int) -> None:
        """Put everything back as it was.

        Args:
            steps: One of `kept`.

        Raises:
            ValueError: The checkpoint is damaged, or is of another model.
        """
        path = self.folder / f"step-{steps}"
        checkpoint = self.checkpoint()
        try:
            checkpoint.restore(str(path)).assert_consumed()
            self.hold([tf.identity(total) for total in self.totals])
        except (tf.errors.OpError, AssertionError, IndexError, RuntimeError, ValueError) as error:
            older = [n for n in kept(self.folder) if n < steps]
            remedy = (
                f"The one before it may be whole: add --from-step {older[-1]}"
                if older
                else "There is none before it: begin anew in another --output"
            )
            raise ValueError(
                f"the checkpoint of step {steps} cannot be read back: {path} ({type(error).__name__}: "
                f"{str(error).splitlines()[0][:200]}). {remedy}."
            ) from error


def holder(model: keras.Model) -> Callable:
    """Make a function after which the first replica holds all that the metrics have counted, and the others nothing.

    TensorFlow would give each replica an equal part of a total that it restores, whole numbers rounded down.

    Args:
        model: Its metrics have their variables.

    Returns:
        A function of the totals, or of None for the sums of what the replicas hold; gives the totals.
    """
    strategy = model.distribute_strategy
    states = [variable.value for variable in model.metrics_variables]

    def at_first(totals):
        if totals is None:
            totals = all_reduce(tf.distribute.ReduceOp.SUM, [tf.identity(state) for state in states])
        first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
        for state, total in zip(states, totals, strict=True):
            state.assign(tf.where(first, total, tf.zeros_like(total)))
        return totals

    @tf.function
    def hold(totals):
        return [strategy.experimental_local_results(total)[0] for total in strategy.run(at_first, [totals])]

    return hold if states else lambda totals: []


def variables(model: keras.Model) -> list[keras.Variable]:
    """List everything of a model that a step reads or changes, but for the states of the metrics.

    Args:
        model: Built and compiled.

    Returns:
        Weights, seeds, the optimizers' variables and the seed of random layers without one.

    Raises:
        ValueError: An optimizer has no variables yet, so that they could not be restored.
    """
    there = optimizers(model)
    there += [o.inner_optimizer for o in there if isinstance(o, keras.optimizers.LossScaleOptimizer)]
    unbuilt = [optimizer.name for optimizer in there if not optimizer.built]
    if unbuilt:
        raise ValueError(
            f"these optimizers have no variables yet: {', '.join(unbuilt)}. Call `optimizer.build(variables)` in the "
            "model's `compile`, so that their state can be kept."
        )
    found = [*model.variables, *(v for o in there for v in o.variables)]
    found.append(global_seed_generator().state)
    return list({id(variable): variable for variable in found}.values())


def optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """List the optimizers that are attributes of a model, also in lists and dictionaries, or of its networks.

    Of a network's own only those with variables: a network that was compiled once need not use its optimizer.
    """
    networks = [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, keras.Model)]
    found = attributes(model) + [
        optimizer for network in networks for optimizer in attributes(network) if optimizer.built
    ]
    return list({id(optimizer): optimizer for optimizer in found}.values())


def attributes(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """List the optimizers that are attributes of a model itself, or in a list or dictionary that is one."""
    found = []
    for value in vars(model).values():
        values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
        found += [each for each in values if isinstance(each, keras.optimizers.Optimizer)]
    return found
