"""Random numbers for a batch: on several devices those that one device would draw."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfzoo.training.distributed_fit import first_tensor


def draw(
    distribution: Callable, batch: Any, shape: tuple[int, ...], seed: keras.random.SeedGenerator, **options
) -> tf.Tensor:
    """Draw random numbers for a replica's examples: those that one device would draw for them.

    Args:
        distribution: A function of `keras.random`, such as `keras.random.normal`.
        batch: Tensors whose first axis counts the replica's examples.
        shape: Of one example's numbers.
        seed: Goes on with every call.
        **options: Further arguments of the distribution.

    Returns:
        Random numbers `(B, *shape)`, other ones at every call.
    """
    count = rows = examples(batch)
    first = 0
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        replica = tf.range(context.num_replicas_in_sync) == context.replica_id_in_sync_group
        counts = tf.where(replica, tf.cast(rows, tf.float32), 0.0)
        counts = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, counts), tf.int32)  # (replicas,)
        count = tf.reduce_sum(counts)
        first = tf.reduce_sum(counts[: context.replica_id_in_sync_group])
    numbers = distribution((count, *shape), seed=seed, **options)
    return numbers[first : first + rows]


def examples(batch: Any) -> tf.Tensor:
    """Count the examples of a batch."""
    return tf.shape(first_tensor(batch))[0]
