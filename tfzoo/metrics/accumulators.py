"""What is kept of the rows of features that the replicas see: their moments, or the rows themselves.

Both are Keras metrics, so that they are a part of the metric that uses them and start again with it.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops


class Moments(keras.Metric):
    """The mean and the covariance of rows, from sums in float64.

    Args:
        width: Values in a row.
        name: As Keras has it.
    """

    def __init__(self, width: int, name: str):
        super().__init__(name=name, dtype="float64")
        self.count = self.add_variable((), "zeros", dtype="float64", name="count")
        self.total = self.add_variable((width,), "zeros", dtype="float64", name="total")
        self.products = self.add_variable((width, width), "zeros", dtype="float64", name="products")

    def update_state(self, rows):
        """Add rows `(N, width)`."""
        rows = ops.cast(rows, "float64")
        self.count.assign_add(ops.cast(ops.shape(rows)[0], "float64"))
        self.total.assign_add(ops.sum(rows, 0))
        self.products.assign_add(ops.matmul(ops.transpose(rows), rows))

    def result(self):
        """Give the number of rows."""
        return self.count + 0

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the mean `(width,)` and the unbiased covariance `(width, width)`; NaN for fewer than 2 rows."""
        count, total, products = (ops.convert_to_numpy(v) for v in (self.count, self.total, self.products))
        if count < 2:
            return np.full_like(total, np.nan), np.full_like(products, np.nan)
        mean = total / count
        return mean, (products - count * np.outer(mean, mean)) / (count - 1)


class Rows(keras.Metric):
    """The rows themselves. Each replica writes into places of its own of a table of zeros, so their sum is all rows.

    Replica r of R puts its k-th row into place r + k R. A replica that sees more rows than the others needs places that
    they leave empty: a last batch that is not divisible costs as many places as the batch has rows.

    Args:
        room: Places. Each replica keeps a table of `4 * room * width` bytes, and copies it at every update.
        width: Values in a row.
        name: As Keras has it.

    Raises:
        ValueError: There is no room.
    """

    def __init__(self, room: int, width: int, name: str):
        super().__init__(name=name)
        if room < 1:
            raise ValueError(f"rows are kept where there is room for them. Received: room={room}")
        self.room = room
        # The last place is for rows that do not fit; how many is seen by the count.
        self.table = self.add_variable((room + 1, width), "zeros", dtype="float32", name="table")
        self.filled = self.add_variable((room + 1,), "zeros", dtype="float32", name="filled")
        self.seen = self.add_variable((), "zeros", dtype="float64", name="seen")

    def update_state(self, rows):
        """Add rows `(N, width)`.

        Raises:
            RuntimeError: The call is in the scope of a strategy and not in its `run`, so it belongs to no replica.
        """
        context = tf.distribute.get_replica_context()
        if context is None:
            raise RuntimeError(
                f"{self.name} adds rows to a replica's own, and this call is of none. "
                "Call update_state in strategy.run, or outside of the scope"
            )
        count = ops.shape(rows)[0]
        order = ops.cast(self.seen, "int32") + ops.arange(count, dtype="int32")
        places = context.replica_id_in_sync_group + context.num_replicas_in_sync * order
        places = ops.minimum(places, self.room)[:, None]
        self.table.assign(tf.tensor_scatter_nd_update(self.table, places, ops.cast(rows, "float32")))
        self.filled.assign(tf.tensor_scatter_nd_update(self.filled, places, tf.ones((count,))))
        self.seen.assign_add(ops.cast(count, "float64"))

    def result(self):
        """Give the number of rows that were added."""
        return self.seen + 0

    def rows(self) -> np.ndarray:
        """Give the rows `(N, width)`, float64, in an order that depends on which replica saw which.

        Raises:
            ValueError: Not all had room.
        """
        seen = int(ops.convert_to_numpy(self.seen))
        kept = ops.convert_to_numpy(self.filled)[: self.room] > 0
        if kept.sum() != seen:
            raise ValueError(
                f"{self.name} had room for {kept.sum()} of {seen} rows. Received: room={self.room}. Give room for all, "
                "and on several replicas for a batch more: places of a replica that saw fewer stay empty"
            )
        return ops.convert_to_numpy(self.table)[: self.room][kept].astype("float64")
