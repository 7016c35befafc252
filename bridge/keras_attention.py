"""The attention of Keras in words that a trace can follow (`bridge.tracing`).

What Keras says of shapes while a layer is traced is made whole here, as else no one knows the sizes of a causal mask:
EinsumDense, of which MultiHeadAttention and GroupQueryAttention are made, keeps sizes of its input and says None of
them; keras.ops.dot_product_attention says the query's shape of its result, whose last size is that of the values.

Attention and AdditiveAttention drop some of their scores in training by a function of the backend. A Dropout, which has
the name "dropout" inside the layer, does so here.
"""

import contextlib
import weakref
from collections.abc import Iterator
from unittest import mock

import keras
from keras.src.layers.attention.attention import Attention
from keras.src.ops.nn import DotProductAttention

LAYERS = weakref.WeakKeyDictionary()  # Attention -> its Dropout, one for all traces: a twin knows it by its identity


def kept_sizes(equation: str, given: tuple, made: tuple) -> tuple:
    """The shape that EinsumDense makes, with the sizes that it keeps of its input."""
    if "..." in equation:
        return made
    x, _, out = equation.replace(" ", "").replace("->", ",").split(",")
    sizes = dict(zip(x, given, strict=True))
    return tuple(sizes.get(c) if n is None else n for c, n in zip(out, made, strict=True))


@contextlib.contextmanager
def followed() -> Iterator[None]:
    """Let Keras say the shapes, and call a Dropout, for as long."""
    of_einsum, of_scores = keras.layers.EinsumDense.compute_output_shape, Attention._apply_scores

    def einsum(layer, input_shape):
        return kept_sizes(layer.equation, input_shape, of_einsum(layer, input_shape))

    def attention(operation, query, key, value, bias=None, mask=None, scale=None):
        dtype = keras.backend.result_type(query.dtype, key.dtype, value.dtype)
        return keras.KerasTensor((*query.shape[:-1], value.shape[-1]), dtype)

    def scores(layer, scores, value, scores_mask=None, training=False):
        if not layer.dropout:
            return of_scores(layer, scores, value, scores_mask, training)
        _, weights = of_scores(layer, scores, value, scores_mask, False)
        if layer not in LAYERS:
            LAYERS[layer] = keras.layers.Dropout(layer.dropout, dtype=layer.dtype_policy, name="dropout")
        weights = LAYERS[layer](weights, training=training)
        return keras.ops.matmul(weights, value), weights

    with (
        mock.patch.object(keras.layers.EinsumDense, "compute_output_shape", einsum),
        mock.patch.object(DotProductAttention, "compute_output_spec", attention),
        mock.patch.object(Attention, "_apply_scores", scores),
    ):
        yield
