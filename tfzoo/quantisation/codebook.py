"""The quantiser: a vector becomes the nearest one of a codebook (van den Oord et al., 2017, equations 1 and 2).

    code = argmin_k |z - e_k|^2      quantised = e_code

|z|^2 is the same for every code and left out. What is quantised has no gradient by z: `straight_through` copies the
decoder's. As a network it is plain Keras, so it is saved, exported and carried to PyTorch like any other.
"""

import keras
from keras import layers, ops

CODEBOOK = "codebook"  # the layer that holds it


def quantiser(size: tuple[int, int], codes: int, dimensions: int, trainable: bool) -> keras.Model:
    """Build the network.

    Args:
        size: Rows and columns of vectors, `(h, w)`.
        codes: Vectors of the codebook.
        dimensions: Of each.
        trainable: Whether an optimizer changes the codebook.

    Returns:
        A network from `(B, h, w, D)` to `codes` int32 `(B, h, w)` and `quantised` `(B, h, w, D)`.
    """
    floats = keras.backend.floatx()  # in half precision two codes would often be equally far away
    z = keras.Input((*size, dimensions), name="latents", dtype=floats)
    one = ops.reshape(ops.ones_like(ops.sum(z)), (1, 1))
    start = keras.initializers.RandomUniform(-1 / codes, 1 / codes)
    held = layers.EinsumDense(
        "ab,cd->acd", (codes, dimensions), kernel_initializer=start, name=CODEBOOK, dtype=floats, trainable=trainable
    )(one)
    vectors = ops.squeeze(held, 0)  # (K, D)
    near = 2 * ops.matmul(z, ops.transpose(vectors)) - ops.sum(ops.square(vectors), -1)  # (B, h, w, K)
    found = ops.squeeze(ops.top_k(near, 1)[1], -1)  # ops.argmax is made of bits, which ONNX does not know
    return keras.Model(z, {"codes": found, "quantised": ops.take(vectors, found, axis=0)}, name="quantiser")


def vectors(network: keras.Model) -> keras.Variable:
    """Give the codebook of a quantiser, a variable `(K, D)`."""
    return network.get_layer(CODEBOOK).kernel


def straight_through(z, quantised):
    """Give `quantised` `(B, ..., D)` with the gradient that comes back for z: z + sg(e - z)."""
    return z + ops.stop_gradient(quantised - z)
