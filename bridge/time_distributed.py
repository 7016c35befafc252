"""TimeDistributed in words that a trace can follow (`bridge.tracing`).

Keras calls the layer inside once for each step. That is the same as one call with the steps among the examples, but for
what a call changes in training: statistics of a batch, and a kernel that is divided anew. With such a layer inside each
step is a call here, too. A Dense takes the steps as they are.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import keras

from bridge.graph import Unsupported

STEPS = 64  # at most, of calls one after the other


def _call(layer, inputs, training=None, mask=None):
    inner = layer.layer
    options = {"training": training} if inner._call_has_training_arg else {}
    masked = inner._call_has_mask_arg and mask is not None
    changing, steps = next(filter(_changes, inner._flatten_layers()), None), inputs.shape[1]
    if changing and steps != 1:
        kind = type(changing).__name__
        frozen = f"freeze the {kind}, " if isinstance(changing, keras.layers.BatchNormalization) else ""
        if steps is None or steps > STEPS:
            raise Unsupported(
                f"a step of training changes its {kind} once for each of {steps or 'an open number of'} steps",
                f"give it an input of at most {STEPS} steps, {frozen}or normalise outside of it",
            )
        masks = [{"mask": mask[:, i]} if masked else {} for i in range(steps)]
        made = [inner(inputs[:, i], **options, **given) for i, given in enumerate(masks)]
        return keras.ops.stack(made, axis=1)
    if isinstance(inner, keras.layers.Dense):
        return inner(inputs, **options)
    batch, steps = keras.ops.shape(inputs)[:2]

    def among_examples(x):
        first, second, *others = keras.ops.shape(x)
        return keras.ops.reshape(x, (first * second, *others))

    if masked:
        options["mask"] = among_examples(mask)
    made = inner(among_examples(inputs), **options)
    return keras.ops.reshape(made, (batch, steps, *keras.ops.shape(made)[1:]))


def _changes(layer) -> bool:
    """Tell whether a call in training changes a layer, and goes by the examples of that call."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.trainable
    return isinstance(layer, keras.layers.SpectralNormalization)


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """Let TimeDistributed call the layer inside so, for as long."""
    with mock.patch.object(keras.layers.TimeDistributed, "call", _call):
        yield
