"""From collections of examples to `tf.data`: what a training sees is a function of the seed, the epoch and the step.

Training is endless. Every epoch has an order of its own, `split.order`, and goes on into the next one within a batch.
Any step can be entered, with the very batches that an undisturbed run would have from there on, and each worker makes
the rows that are its own.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfzoo.data import Source, augmentation
from tfzoo.data.examples import Arrays
from tfzoo.data.in_python import numpy_function
from tfzoo.data.numbers import count, endless
from tfzoo.data.split import order

CHUNK = (
    256  # examples or batches whose places are looked up at once: a call of Python for each would take longer than all
)
SMALL = 2**14  # bytes of an example, up to which a batch is made at once: one by one, they take longer to hand on
AHEAD = 4  # batches that are made before they are asked for


@dataclass(frozen=True)
class Datasets:
    """What a model is trained and judged on.

    Attributes:
        training: Endless `tf.data.Dataset` of whole batches.
        validation: Finite, in order, the last batch as it comes.
        held_out: The same.
        description: One line for people.
        classes: The classes' names; None where there are none.
    """

    training: tf.data.Dataset
    validation: tf.data.Dataset
    held_out: tf.data.Dataset
    description: str
    classes: tuple[str, ...] | None = None

    @property
    def named(self) -> dict[str, tuple[str, ...]]:
        """The classes' names as an argument `classes`; none where there are none."""
        return {"classes": self.classes} if self.classes else {}


def datasets(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    augment: Callable | None = None,
    mix: Callable | None = None,
    prepare: Callable | None = None,
) -> Datasets:
    """Turn the parts of a source into what `fit` takes.

    Args:
        source: From `tfzoo.data.open`.
        batch_size: Examples in a batch of all workers.
        seed: Any integer from 0; decides the order and all augmentation.
        start: The batch that the training begins with.
        augment: For training, as in `training`.
        mix: For training, as in `training`.
        prepare: For validation and held out, as in `whole`.

    Returns:
        The three data sets.
    """
    return Datasets(
        training(source.training, batch_size=batch_size, seed=seed, start=start, augment=augment, mix=mix),
        whole(source.validation, batch_size=batch_size, prepare=prepare),
        whole(source.held_out, batch_size=batch_size, prepare=prepare),
        source.description,
        source.classes,
    )


def training(
    examples: Sequence,
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    augment: Callable | None = None,
    mix: Callable | None = None,
) -> tf.data.Dataset:
    """Stream batches without end; the same arguments give the same stream.

    Args:
        examples: A collection, as `tfzoo.data.examples` describes it.
        batch_size: Examples in a batch of all workers.
        seed: Any integer from 0.
        start: The batch to begin with.
        augment: From a key of `augmentation` and the parts of an example to what the model takes. The key is a function
            of the seed, the epoch and the example's number. Small examples of one shape go through
            `tf.vectorized_map`, where slices cannot be of differing sizes.
        mix: From a key and two augmented examples, each a tuple, to one. The second is any of the collection, drawn by
            the key.

    Returns:
        Tuples of tensors, the batch first.
    """
    batched = at_once(examples)
    load, each = loader(examples, batched), vectorized if batched else directly
    shape = (CHUNK, batch_size) if batched else (CHUNK,)

    def places(n):
        epochs, indices = np.divmod(n, len(examples))
        for epoch in () if hasattr(examples, "at") else np.unique(epochs):
            indices[epochs == epoch] = order(seed, int(epoch), len(examples))[indices[epochs == epoch]]
        return epochs, indices

    def place(n):
        found = numpy_function(places, [n], [tf.int64, tf.int64])
        return tuple(tf.reshape(numbers, shape) for numbers in found)

    def make(epoch, i):
        example = load(epoch, i)
        if augment is None and mix is None:
            return example
        key = augmentation.key(seed, epoch, i)
        example = each(augment, key, *example) if augment else example
        if mix is None:
            return example
        partner_key = augmentation.part(key, "partner")
        partner = load(epoch, augmentation.integers(key, "partner", len(examples)))
        partner = each(augment, partner_key, *partner) if augment else partner
        return each(mix, augmentation.part(key, "mix"), example, partner)

    numbers = endless(batch_size, start).batch(math.prod(shape)).map(place).unbatch()
    batches = made(numbers, make, examples) if batched else made(numbers, make, examples).batch(batch_size, True)
    return batches.prefetch(AHEAD)


def whole(examples: Sequence, *, batch_size: int, prepare: Callable | None = None) -> tf.data.Dataset:
    """Give every example once, in order.

    Args:
        examples: A collection.
        batch_size: Examples in a batch; the last may have fewer.
        prepare: From the parts of an example to what the model takes.

    Returns:
        Tuples of tensors, the batch first.

    Raises:
        ValueError: In the scope of a strategy over several CPUs, there are fewer examples than devices.
    """
    batched = at_once(examples)
    load, each = loader(examples, batched, again=False), vectorized if batched else directly
    batch_size = for_every_device(len(examples), batch_size)

    def make(i):
        example = load(tf.zeros_like(i), i)
        return each(prepare, *example) if prepare else example

    numbers = count(0, len(examples))
    batches = (
        made(numbers.batch(batch_size), make, examples) if batched else made(numbers, make, examples).batch(batch_size)
    )
    return batches.prefetch(AHEAD)


def for_every_device(count: int, batch_size: int) -> int:
    """Give the largest batch size, up to one, that leaves no CPU of the strategy without an example.

    On a CPU TensorFlow cannot compute a convolution of no picture (`tfzoo.training.distributed_fit`); on a GPU it can.
    """
    strategy = tf.distribute.get_strategy()
    devices = strategy.num_replicas_in_sync
    if devices == 1 or "CPU" not in str(strategy.extended.worker_devices):
        return batch_size
    sizes = [size for size in range(batch_size, devices - 1, -1) if not 0 < count % size < devices]
    if not sizes:
        raise ValueError(
            f"{devices} devices cannot share {count} examples to judge by. Give more, or train on fewer devices."
        )
    return sizes[0]


def at_once(examples: Sequence) -> bool:
    """Say whether a batch of the examples is made at once, as they are small and of one shape."""
    return getattr(examples, "fixed", False) and sum(part.nbytes for part in examples[0]) <= SMALL


def vectorized(function: Callable, *batches: Any) -> Any:
    """Apply to every row of some batches, all at once."""
    return tf.vectorized_map(lambda rows: function(*rows), batches, warn=False)


def directly(function: Callable, *example: Any) -> Any:
    """Apply to an example."""
    return function(*example)


def made(numbers: tf.data.Dataset, make: Callable, examples: Sequence) -> tf.data.Dataset:
    """Make an example or a batch of each number or row of them, several at once but in order."""
    parallel = getattr(examples, "parallel", max(2, (os.cpu_count() or 1) // 2))
    return numbers.map(make, num_parallel_calls=parallel, deterministic=True) if parallel > 1 else numbers.map(make)


def loader(examples: Sequence, batched: bool, again: bool = True) -> Callable[[Any, Any], tuple[tf.Tensor, ...]]:
    """Give a function from an epoch and a number, int64, to the tensors of an example.

    Args:
        examples: A collection.
        batched: Whether the epoch and the number are those of several examples, `(B,)`; they are scalars where not.
        again: Whether those that can be new in every epoch are.
    """
    if isinstance(examples, Arrays):
        with tf.device("CPU:0"):  # where tf.data works
            tensors = [tf.constant(array) for array in examples.arrays]
        return lambda epoch, i: tuple(tf.gather(tensor, i) for tensor in tensors)
    first = examples[0]
    at = examples.at if again and hasattr(examples, "at") else lambda epoch, i: examples[i]

    def make(epoch, i):
        if not batched:
            return at(int(epoch), int(i))
        if hasattr(examples, "several"):
            return list(examples.several((epoch if again else 0 * epoch).tolist(), i.tolist()))
        rows = [at(*place) for place in zip(epoch.tolist(), i.tolist(), strict=True)]
        return [np.stack(parts) for parts in zip(*rows, strict=True)]

    def load(epoch, i):
        tensors = numpy_function(make, [epoch, i], [part.dtype for part in first])
        shapes = (part.shape if getattr(examples, "fixed", False) else open_shape(part) for part in first)
        return tuple(tf.ensure_shape(tensor, (*i.shape, *shape)) for tensor, shape in zip(tensors, shapes, strict=True))

    return load


def open_shape(part: np.ndarray) -> tuple[int | None, ...]:
    """Give the shape that all parts like this have: of pictures `(None, None, C)`."""
    return (None, None, part.shape[-1]) if part.ndim == 3 else (None,) * part.ndim
