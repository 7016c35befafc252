"""What an export may do with the weights: keep them in 16 bits, or take BatchNormalization into them."""

from collections.abc import Iterable

import keras
import tensorflow as tf

from tfzoo.export.signatures import Signature

KINDS = ("float32", "bfloat16")


def folded(model: keras.Model) -> keras.Model:
    """Give a model in which each BatchNormalization behind a convolution or Dense layer is part of its weights.

    Args:
        model: A functional or Sequential model that the bridge can read; it is not changed.

    Returns:
        A new model of the same inputs; what nothing can take in stays.

    Raises:
        bridge.BridgeError: Lists what the bridge cannot read.
    """
    from bridge import fold, keras_reader, keras_writer, layout  # with all rules and torch, for this alone

    made = keras_writer.write(layout.convert(fold.fold(keras_reader.read(model)), "last"))
    made.name = model.name
    return made


def in_bfloat16(signature: Signature, networks: Iterable[keras.Model]) -> Signature:
    """Give a signature whose float32 weights are kept as bfloat16 and computed with as float32.

    A SavedModel of it has half the size. bfloat16 has the exponents of float32 and 8 bits of its mantissa.

    Args:
        signature: Its function calls the networks.
        networks: Whose weights are meant.
    """
    # pairs, as Keras compares variables by their values
    kept = [(v, tf.Variable(tf.cast(v.value, tf.bfloat16), trainable=False)) for n in networks for v in floats(n)]

    def function(**inputs):
        with keras.StatelessScope(state_mapping=[(v, tf.cast(value, v.dtype)) for v, value in kept]):
            return signature.function(**inputs)

    return Signature(function, signature.inputs, signature.examples)


def floats(network: keras.Model) -> list[keras.Variable]:
    """List the float32 weights of a network."""
    return [v for v in network.variables if keras.backend.standardize_dtype(v.dtype) == "float32"]
