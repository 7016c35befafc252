"""How many codes are used, as Keras metrics: the perplexity of a code, exp of its entropy in nats; K at the most."""

import keras
from keras import ops


def perplexity(counts):
    """Give the perplexity of codes that were counted `(K,)`: 1 if all are the same, K if each is used alike."""
    share = counts / ops.maximum(ops.sum(counts), 1)
    return ops.exp(-ops.sum(share * ops.log(ops.maximum(share, 1e-10))))


class Perplexity(keras.metrics.Metric):
    """The perplexity of all codes since the metric was reset; replicas add up what they count.

    Args:
        codes: How many there are.
        name: The metric's.
    """

    def __init__(self, codes: int, name: str = "perplexity"):
        super().__init__(name=name)
        self.codes = codes
        self.counts = self.add_variable((codes,), "zeros", name="counts")

    def update_state(self, codes, sample_weight=None) -> None:
        """Count codes, of any shape."""
        self.counts.assign_add(count(codes, self.codes))

    def result(self):
        """Give the perplexity."""
        return perplexity(self.counts)


def count(codes, most: int):
    """Count codes of any shape `(most,)`."""
    return ops.sum(ops.one_hot(ops.reshape(codes, (-1,)), most, dtype="float32"), 0)
