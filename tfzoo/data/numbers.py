"""The numbers of a training set's examples, from which each worker makes its own part of every batch and no other."""

import tensorflow as tf

from tfzoo.training.strategy import place


def endless(batch_size: int, start: int = 0) -> tf.data.Dataset:
    """Count the examples, for `map` to make and `batch(batch_size)` to put together.

    In the scope of a strategy over several workers, a worker's numbers are those of its rows of every batch. Each still
    puts `batch_size` of them together: `fit` cuts such a batch into the parts of as many steps.

    Args:
        batch_size: Examples in a batch of all workers; a multiple of the devices.
        start: The batch to begin with.

    Returns:
        int64 scalars, practically without end.
    """
    worker, workers = place(tf.distribute.get_strategy())
    own = batch_size // workers
    numbers = count(start * own, 2**62)
    if workers == 1:
        return numbers
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return numbers.map(lambda n: n // own * batch_size + worker * own + n % own).with_options(options)


def count(start: int, stop: int) -> tf.data.Dataset:
    """Count from `start` to before `stop`, for a pipeline that says itself how much it does at once.

    TensorFlow would tune that in a thread, which sleeps longer and longer, at last for a minute; an iterator that is
    dropped half-way waits for it, and Python with it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.range(start, stop).with_options(options)
