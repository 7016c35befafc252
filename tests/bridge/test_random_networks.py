"""Random networks of everything that has a rule: whatever fits together is carried there and back, and proved."""

import keras
import numpy as np
import pytest

import bridge

layers = keras.layers
ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "softplus", "elu", "gelu", "leaky_relu", "mish", "softmax")


def block(rng, x, skips):
    """Apply one random layer to a tensor (B, H, W, C), or return None where it does not fit."""
    h, w, c = x.shape[1:]
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    kind = rng.integers(13)
    if kind <= 2:
        strides, dilation = pick((1, 1), (2, 1), (1, 2), (3, 1))
        groups = pick(1, 1, c)
        kernel, padding = (pick(1, 2, 3), pick(1, 3, 4)), pick("same", "valid")
        if padding == "valid" and min(h - dilation * (kernel[0] - 1), w - dilation * (kernel[1] - 1)) < 1:
            return None
        return layers.Conv2D(
            groups * int(pick(1, 2)) if groups > 1 else int(rng.integers(2, 7)),
            kernel,
            strides,
            padding,
            dilation_rate=dilation,
            groups=groups,
            use_bias=bool(rng.integers(2)),
            activation=pick(None, *ACTIVATIONS),
        )(x)
    if kind == 3:
        return (
            layers.Conv2DTranspose(int(rng.integers(2, 5)), pick(1, 2, 3, 4), pick(1, 2), pick("same", "valid"))(x)
            if h * w < 300
            else None
        )
    if kind == 4:
        return layers.BatchNormalization(
            axis=int(pick(-1, -1, 1)),
            epsilon=pick(1e-3, 1e-2),
            scale=bool(rng.integers(2)),
            center=bool(rng.integers(2)),
            trainable=bool(rng.integers(4)),
        )(x)
    if kind == 5:
        return layers.Activation(pick(*ACTIVATIONS))(x)
    if kind == 6:
        layer = pick(layers.MaxPooling2D, layers.AveragePooling2D)
        return layer(pick(2, 3), pick(None, 1, 2), pick("same", "valid"))(x) if min(h, w) > 3 else None
    if kind == 7:
        return layers.ZeroPadding2D(((0, 1), (2, 0)))(x)
    if kind == 8:
        return layers.Cropping2D(((1, 0), (0, 1)))(x) if min(h, w) > 3 else None
    if kind == 9:
        return pick(layers.Dropout, layers.SpatialDropout2D)(0.3)(x)
    if kind == 10:
        return layers.Permute((2, 1, 3))(x)
    same = [s for s in skips if s.shape[1:3] == x.shape[1:3]]
    if not same:
        return None
    other = same[rng.integers(len(same))]
    if kind == 11:
        return layers.Concatenate(axis=-1)([other, x])
    return layers.Add()([other, x]) if other.shape == x.shape else None


def network(seed: int) -> keras.Model:
    """Draw a network of some ten layers, ending in a picture, a vector or both."""
    keras.utils.clear_session()
    rng = np.random.default_rng(seed)
    x = image = keras.Input((int(rng.integers(7, 15)), int(rng.integers(7, 15)), int(rng.integers(1, 5))), name="image")
    skips = []
    while len(skips) < 9:
        y = block(rng, x, skips)
        if y is not None:
            x = y
            skips.append(x)
    ending = rng.integers(4)
    vector = layers.Flatten()(x) if ending % 2 else layers.GlobalAveragePooling2D()(x)
    vector = layers.Dense(5, activation="tanh")(layers.Dropout(0.2)(vector))
    return keras.Model(image, vector if ending < 2 else {"picture": x, "vector": vector}, name="random")


@pytest.mark.parametrize("seed", range(6))
def test_there_and_back(check, seed):
    model = network(seed)
    module, again = check.both_ways(model, limit=1e-6, back="float32")
    assert bridge.verify(again, module).passed, str(bridge.verify(again, module))
