"""A codebook that follows what is quantised by it: moving averages (van den Oord et al., 2017, appendix A.1).

    N_k <- d N_k + (1 - d) n_k      n_k of a batch's vectors have the code k,
    m_k <- d m_k + (1 - d) s_k      and s_k is their sum
    e_k  = m_k / N_k

N and m begin at 0, so after t batches they are too small by 1 - d^t; divided by that, they are averages from the first
batch on (Kingma & Ba, 2015, do so). A code whose average count falls below a share of what each would have if all were
used alike is dead, and begins again at a vector of the batch; so the first batch places those that it does not use.
A batch is the whole of it: replicas add up what they count, and a code begins again at the same vector on all of them.

Of a codebook that is learned by the loss only N is kept, and what it says of dead codes.
"""

import keras
import tensorflow as tf
from keras import ops

from tfzoo.quantisation.codebook import vectors
from tfzoo.training.distributed_fit import summed

DEAD = 0.03  # of the mean count
APART = 0.01  # of the vectors' size: between two codes that begin again at the same vector


class Averages(keras.layers.Layer):
    """The averages of a quantiser's codebook.

    Args:
        codes: Vectors of the codebook.
        dimensions: Of each.
        decay: d, in [0, 1).
        dead: The share of the mean count below which a code begins again; 0 for never.
        learned: Whether an optimizer moves the codebook, so that it does not follow.
    """

    def __init__(self, codes: int, dimensions: int, decay: float, dead: float = DEAD, learned: bool = False):
        super().__init__(name="averages", dtype=keras.backend.floatx())
        self.decay, self.dead = decay, dead
        self.counts = self.add_weight((codes,), "zeros", trainable=False, name="counts")
        self.sums = None if learned else self.add_weight((codes, dimensions), "zeros", trainable=False, name="sums")
        self.seen = self.add_weight((), "zeros", trainable=False, name="seen")  # 1 - d^t
        self.seed_generator = keras.random.SeedGenerator()
        self.built = True

    def follow(self, quantiser: keras.Model, z: tf.Tensor, codes: tf.Tensor) -> None:
        """Take in a batch that was quantised, and move the codebook.

        Args:
            quantiser: Of `tfzoo.quantisation.codebook`.
            z: What was quantised `(B, ..., D)`; on several replicas each one's own.
            codes: Of it `(B, ...)`.
        """
        book, d = vectors(quantiser), self.decay
        rows = ops.reshape(ops.stop_gradient(z), (-1, z.shape[-1]))
        one_hot = ops.one_hot(ops.reshape(codes, (-1,)), book.shape[0], dtype=rows.dtype)
        batch = [] if self.sums is None else [ops.matmul(ops.transpose(one_hot), rows)]
        count, anywhere, *total = summed([ops.sum(one_hot, 0), self.anywhere(rows), *batch])
        noise = keras.random.normal(anywhere.shape, seed=self.seed_generator, dtype=anywhere.dtype)
        anywhere += APART * ops.sqrt(ops.mean(ops.square(anywhere))) * noise  # much of a picture may be the same vector
        counts = d * self.counts + (1 - d) * count
        mean = ops.mean(counts)
        dead = counts < self.dead * mean
        found = book
        if self.sums is not None:
            sums = d * self.sums + (1 - d) * total[0]
            found = ops.where(counts[:, None] > 0, sums / ops.maximum(counts, 1e-30)[:, None], book)
            set_all([self.sums], [ops.where(dead[:, None], anywhere * mean, sums)])
        counts = ops.where(dead, mean, counts)  # as if it were used like the others, or it would be dead at once
        found = ops.where(dead[:, None], anywhere, found)
        set_all([self.counts, self.seen, book], [counts, d * self.seen + (1 - d), found])

    def average_counts(self) -> tf.Tensor:
        """Give how often each code is used in a batch, on average `(K,)`; after the first batch."""
        return self.counts / self.seen

    def anywhere(self, rows: tf.Tensor) -> tf.Tensor:
        """Give for each code a vector of the batch `(K, D)`; of another replica's 0, for the sum over all of them."""
        own = tf.shape(rows)[0]
        first, total = 0, own
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            replica = tf.range(context.num_replicas_in_sync) == context.replica_id_in_sync_group
            (each,) = summed([tf.where(replica, tf.cast(own, tf.float32), 0.0)])  # (replicas,)
            each = tf.cast(each, tf.int32)
            first, total = tf.reduce_sum(each[: context.replica_id_in_sync_group]), tf.reduce_sum(each)
        numbers = keras.random.uniform(self.counts.shape, seed=self.seed_generator, dtype="float32")
        place = tf.minimum(tf.cast(numbers * tf.cast(total, tf.float32), tf.int32), total - 1) - first
        here = (place >= 0) & (place < own)
        return tf.where(here[:, None], tf.gather(rows, tf.clip_by_value(place, 0, own - 1)), 0)


def set_all(variables: list[keras.Variable], values: list[tf.Tensor]) -> None:
    """Give variables values that all replicas have computed alike."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return

    def together(strategy, *values):
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(variable.value, lambda variable, value: variable.assign(value), args=(value,))

    context.merge_call(together, args=tuple(values))
