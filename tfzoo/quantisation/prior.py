"""A prior over codes: the gated PixelCNN (van den Oord et al., 2016, https://arxiv.org/abs/1606.05328).

    log p(codes) = sum over positions of log p(code | those above, and to the left in the same row)

    v   all rows above:           2x3 convolution - gate
    h   the row, to the left:     1x2 convolution + 1x1 of what v's gave - gate - 1x1 + h
    gate(a, b) = tanh(a) sigmoid(b)

Nothing is masked: codes come in shifted, down by a row for v and right by a column for h, and each convolution is
padded above and to the left alone, which the paper says is the same (section 2.2). So there is no blind spot, and no
weight is computed with that would be multiplied by 0.
"""

import keras
import tensorflow as tf
from keras import layers, ops


def pixel_cnn(size: tuple[int, int], codes: int, units: int, depth: int, dropout: float = 0.0) -> keras.Model:
    """Build the network.

    Args:
        size: Rows and columns of codes, `(h, w)`.
        codes: How many there are.
        units: Channels.
        depth: Gated layers; each lets a position see a row and two columns further.
        dropout: Share of the first and the last channels left out in training.

    Returns:
        A network from codes int32 `(B, h, w)` to logits `(B, h, w, K)`.
    """
    given = keras.Input(size, name="codes", dtype="int32")
    x = layers.Embedding(codes, units, name="embedding")(given)  # (B, h, w, C)
    x = layers.Dropout(dropout, name="embedding_dropout")(x) if dropout else x
    v = layers.Cropping2D(((0, 1), (0, 0)), name="v_crop")(layers.ZeroPadding2D(((1, 0), (0, 0)), name="v_shift")(x))
    h = layers.Cropping2D(((0, 0), (0, 1)), name="h_crop")(layers.ZeroPadding2D(((0, 0), (1, 0)), name="h_shift")(x))
    for i in range(depth):
        above = layers.ZeroPadding2D(((1, 0), (1, 1)), name=f"v{i}_pad")(v)
        above = layers.Conv2D(2 * units, (2, 3), name=f"v{i}_conv")(above)
        left = layers.ZeroPadding2D(((0, 0), (1, 0)), name=f"h{i}_pad")(h)
        left = layers.Conv2D(2 * units, (1, 2), name=f"h{i}_conv")(left)
        left = left + layers.Conv2D(2 * units, 1, name=f"v{i}_to_h{i}")(above)
        v = gate(above)
        h = h + layers.Conv2D(units, 1, name=f"h{i}_out")(gate(left))
    h = layers.Conv2D(units, 1, activation="relu", name="mixed")(layers.ReLU(name="relu")(h))
    h = layers.Dropout(dropout, name="dropout")(h) if dropout else h
    return keras.Model(given, layers.Conv2D(codes, 1, name="logits")(h), name="prior")


def gate(x):
    """Let the second half of the channels `(B, h, w, 2C)` weigh the first: `(B, h, w, C)`."""
    a, b = ops.split(x, 2, -1)  # the gradient of two slices takes a fifth of the whole model's step
    return ops.tanh(a) * ops.sigmoid(b)


def nats(logits, codes):
    """Give -log p of each code `(B, h, w)`, in nats."""
    return keras.losses.sparse_categorical_crossentropy(codes, logits, from_logits=True)


@tf.function(reduce_retracing=True)
def ancestral(prior: keras.Model, numbers: tf.Tensor) -> tf.Tensor:
    """Draw codes one after the other, each by those before it, in one loop of the graph.

    Args:
        prior: From codes to logits.
        numbers: Uniform in [0, 1) `(B, h, w)`, one for each code: it is the first whose cumulative probability is
            above the number.

    Returns:
        Codes int32 `(B, h, w)`.
    """
    height, width = prior.input_shape[1:]
    flat = tf.reshape(numbers, (-1, height * width))

    def step(i, codes):
        logits = prior(tf.reshape(codes, (-1, height, width)), training=False)
        logits = tf.cast(tf.reshape(logits, (-1, height * width, logits.shape[-1]))[:, i], tf.float32)
        below = tf.cumsum(tf.nn.softmax(logits), -1)[:, :-1] <= flat[:, i, None]
        code = tf.reduce_sum(tf.cast(below, tf.int32), -1)
        return i + 1, tf.where(tf.range(height * width) == i, code[:, None], codes)

    start = tf.zeros(tf.shape(flat), tf.int32)
    _, codes = tf.while_loop(lambda i, codes: i < height * width, step, (0, start))
    return tf.reshape(codes, (-1, height, width))


@tf.function(reduce_retracing=True)
def uniform(seeds: tf.Tensor, places: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """Give the numbers that `ancestral` is given, in [0, 1), without a state: a served model gives the same.

    Args:
        seeds: Of each example `(B,)`.
        places: Which one of those of its seed an example is `(B,)`.
        shape: Of an example's numbers.

    Returns:
        float32 `(B, *shape)`; those of an example do not depend on the others.
    """

    def draw(pair):
        return tf.random.stateless_uniform(shape, pair, alg="philox")  # on every kind of device

    pairs = tf.stack([tf.cast(seeds, tf.int64), tf.cast(places, tf.int64)], -1)
    return tf.map_fn(draw, pairs, fn_output_signature=tf.float32)


def certain(prior: keras.Model, numbers: tf.Tensor) -> tf.Tensor:
    """Tell how far the numbers `(B, h, w)` are from any that would give another code: the least of each `(B,)`."""
    logits = tf.cast(prior(ancestral(prior, numbers), training=False), tf.float32)
    apart = tf.abs(tf.cumsum(tf.nn.softmax(logits), -1)[..., :-1] - numbers[..., None])
    return tf.reduce_min(apart, (1, 2, 3))
