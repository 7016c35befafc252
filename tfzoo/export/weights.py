"""What an export may do with the weights: keep them in 16 bits, or take BatchNormalization into them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import keras
import tensorflow as tf

from bridge.models import functional
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
    if (made.input_shape, made.output_shape) != (model.input_shape, model.output_shape):
        raise ValueError(f"{model.name} has its channels first: what is folded comes back with its channels last")
    made.name, made.output_names = model.name, functional(model).output_names
    return made


def in_half(model: keras.Model) -> bool:
    """Say whether a layer computes with 16 bits."""
    return any(getattr(layer, "compute_dtype", None) in ("bfloat16", "float16") for layer in model.layers)


def in_bfloat16(served: Mapping[str, Signature], networks: Iterable[keras.Model]) -> dict[str, Signature]:
    """Give signatures whose float32 weights are kept as bfloat16 and computed with as float32.

    bfloat16 has the exponents of float32 and 8 bits of its mantissa. A weight is kept once, whoever reads it.

    Args:
        served: Signatures whose functions call the networks.
        networks: Whose weights are meant.
    """
    floats = {id(v.value): v for n in networks for v in n.variables if v.dtype == "float32"}
    kept: dict[int, tf.Variable] = {}

    def rounded(signature: Signature) -> Signature:
        traced = tf.function(signature.function, autograph=False)
        used = traced.get_concrete_function(**{x.name: x for x in signature.inputs}).graph.variables
        pairs = []
        for key in (id(v) for v in used if id(v) in floats):
            if key not in kept:
                kept[key] = tf.Variable(tf.cast(floats[key].value, tf.bfloat16), trainable=False)
            pairs.append((floats[key], kept[key]))

        def function(**inputs):
            with keras.StatelessScope(state_mapping=[(v, tf.cast(value, v.dtype)) for v, value in pairs]):
                return signature.function(**inputs)

        return replace(signature, function=function)

    return {name: rounded(signature) for name, signature in served.items()}
