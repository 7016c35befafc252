"""A trained tensor by itself: a class token, position embeddings."""

from keras import layers, ops


def weight(x, shape: tuple[int, ...], name: str, initializer="zeros"):
    """Give a weight as a tensor of this shape; a functional model trains the weights of layers alone.

    The layer that gives its own is EinsumDense, which multiplies it by a one. The one is made of `x`, any tensor that
    comes of the model's input, as Keras records what is computed from inputs alone.
    """
    one = ops.reshape(ops.ones_like(ops.sum(x)), (1, 1))
    letters = "cdefgh"[: len(shape)]
    held = layers.EinsumDense(f"ab,{letters}->a{letters}", shape, kernel_initializer=initializer, name=name)(one)
    return ops.squeeze(held, 0)
