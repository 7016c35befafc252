"""TimeDistributed in words that a trace can follow (`bridge.tracing`).

Keras calls the layer inside once for each step. That is the same as one call with the steps among the examples, but for
statistics of a batch; a Dense takes the steps as they are.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import keras

from bridge.graph import Unsupported


def _call(layer, inputs, training=None, mask=None):
    inner = layer.layer
    if any(isinstance(x, keras.layers.BatchNormalization) for x in inner._flatten_layers()):
        raise Unsupported("its BatchNorm has statistics of its own for each step", "normalise outside of it")
    options = {"training": training} if inner._call_has_training_arg else {}
    if isinstance(inner, keras.layers.Dense):
        return inner(inputs, **options)
    batch, steps = keras.ops.shape(inputs)[:2]

    def among_examples(x):
        first, second, *others = keras.ops.shape(x)
        return keras.ops.reshape(x, (first * second, *others))

    if inner._call_has_mask_arg and mask is not None:
        options["mask"] = among_examples(mask)
    made = inner(among_examples(inputs), **options)
    return keras.ops.reshape(made, (batch, steps, *keras.ops.shape(made)[1:]))


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """Let TimeDistributed call the layer inside once, for as long."""
    with mock.patch.object(keras.layers.TimeDistributed, "call", _call):
        yield
