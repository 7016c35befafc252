"""Vision Transformer (Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929).

    image - patches (B, n, D) - [class token] - + positions - blocks - norm - token or average - head

    block:  x - norm - attention - + - norm - mlp (GELU) - +
             '-------------------- '  '--------------------'

Sizes, names and settings are those of google-research/vision_transformer and timm: LayerNorm's epsilon is 1e-6,
queries, keys and values are one Dense layer, there is no layer in front of the head. GELU is exact, as timm and
torchvision have it; google-research's own code takes the approximation by a tanh.
"""

import math

import keras
import numpy as np
from keras import layers, ops

from tfzoo.layers import arguments
from tfzoo.layers.classifier import signatures as signatures  # what an export serves
from tfzoo.layers.weight import weight

WIDTHS = {  # width, depth, heads
    "ti": (192, 12, 3),
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "h": (1280, 32, 16),
}
SIZES = {
    f"{letter}{patch}": {"patch": patch, "width": width, "depth": depth, "heads": heads}
    for letter, patches in {"b": (16, 32), "ti": (16,), "s": (16, 32), "l": (16, 32), "h": (14,)}.items()
    for patch in patches
    for width, depth, heads in [WIDTHS[letter]]
} | {"tiny": {"image_shape": (8, 8, 1), "classes": 10, "patch": 2, "width": 32, "depth": 2, "heads": 2}}
PARAMETERS = {
    "b16": 86_567_656,
    "b32": 88_224_232,
    "ti16": 5_717_416,
    "s16": 22_050_664,
    "s32": 22_878_952,
    "l16": 304_326_632,
    "l32": 306_535_400,
    "h14": 632_045_800,
    "tiny": 26_538,
}
NAMES = {
    "torchvision": {
        r"patch_embed_proj": "conv_proj",
        r"cls_token": "class_token",
        r"pos_embed": "encoder.pos_embedding",
        r"blocks_(\d+)_norm(\d)": r"encoder.layers.encoder_layer_\1.ln_\2",
        r"blocks_(\d+)_attn_qkv": {
            "kernel": r"encoder.layers.encoder_layer_\1.self_attention.in_proj_weight",
            "bias": r"encoder.layers.encoder_layer_\1.self_attention.in_proj_bias",
        },
        r"blocks_(\d+)_attn_proj": r"encoder.layers.encoder_layer_\1.self_attention.out_proj",
        r"blocks_(\d+)_mlp_fc1": r"encoder.layers.encoder_layer_\1.mlp.0",
        r"blocks_(\d+)_mlp_fc2": r"encoder.layers.encoder_layer_\1.mlp.3",
        r"norm": "encoder.ln",
        r"head": "heads.head",
    },
    "timm": {
        r"patch_embed_proj": "patch_embed.proj",
        r"blocks_(\d+)_norm(\d)": r"blocks.\1.norm\2",
        r"blocks_(\d+)_(attn|mlp)_(\w+)": r"blocks.\1.\2.\3",
    },
}
# The files of the weights that torchvision publishes are older than these names; it renames them as it loads them.
NAMES["torchvision's files"] = NAMES["torchvision"] | {
    rf"blocks_(\d+)_mlp_fc{n}": rf"encoder.layers.encoder_layer_\1.mlp.linear_{n}" for n in (1, 2)
}
POSITIONS = ("pos_embed", NAMES["torchvision"]["pos_embed"])  # what timm and we, and torchvision, call them


@arguments.plain
def vit(
    image_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    patch: int = 16,
    width: int = 768,
    depth: int = 12,
    heads: int = 12,
    mlp_ratio: float = 4.0,
    pool: str = "token",
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    include_top: bool = True,
) -> keras.Model:
    """Build a Vision Transformer.

    Args:
        image_shape: `(H, W, C)`; H and W are multiples of `patch`.
        classes: How many there are.
        patch: Pixels of a patch, on each side.
        width: Numbers that stand for a patch (the paper's D).
        depth: Blocks.
        heads: Of the attention; they share the width.
        mlp_ratio: Units of a block's hidden layer, to the width.
        pool: "token", what has become of the class token is what the head sees; "average", the mean over the patches,
            without a class token. The patches are normalised before they are averaged, as google-research's "gap" and
            timm's `*_gap_*` models (`fc_norm=False`) do; timm's other average-pool models normalise the average.
        dropout: Rate, in [0, 1), behind the positions, the attention and both layers of a block's perceptron.
        attention_dropout: Rate of the attention's weights.
        include_top: Whether logits are made; else all tokens, normalised, are what the model gives, `(B, n, width)`; a
            class token is the first.

    Returns:
        A model from float32 images `(B, H, W, C)` to logits `(B, classes)`. What block i pays attention to is what the
        layer `blocks_{i}_attn_weights` gives, `(B, heads, n, n)`; what it makes of it, `(B, n, width)`, `blocks_{i}`.

    Raises:
        ValueError: An argument is of another type or out of range.
    """
    arguments.refuse(
        arguments.positive(classes=classes, patch=patch, width=width, depth=depth, heads=heads),
        arguments.image_shape(
            image_shape,
            open_size=False,
            multiple=patch if arguments.is_positive(patch) else 1,
            why=f"vit cuts the image into patches of {patch}x{patch} pixels",
        ),
        arguments.factors(mlp_ratio=mlp_ratio),
        arguments.among(("token", "average"), pool=pool),
        arguments.rates(dropout=dropout, attention_dropout=attention_dropout),
        arguments.switches(include_top=include_top),
        [f"heads must divide the width. Received: heads={heads}, width={width}"]
        if arguments.is_positive(heads) and arguments.is_positive(width) and width % heads
        else [],
        [f"mlp_ratio must give at least one hidden unit. Received: mlp_ratio={mlp_ratio}, width={width}"]
        if not arguments.factors(mlp_ratio=mlp_ratio) and arguments.is_positive(width) and int(mlp_ratio * width) < 1
        else [],
    )
    image = keras.Input(image_shape, name="image")
    x = layers.Conv2D(width, patch, patch, name="patch_embed_proj")(image)  # (B, H/patch, W/patch, width)
    patches = x.shape[1] * x.shape[2]
    x = layers.Reshape((patches, width), name="patch_embed")(x)  # (B, n, width)
    if pool == "token":
        token = weight(x, (1, 1, width), "cls_token")
        x = layers.Concatenate(axis=1, name="tokens")([ops.ones_like(x[:, :1]) * token, x])  # (B, n + 1, width)
    start = keras.initializers.RandomNormal(stddev=0.02)
    x = x + weight(x, (1, x.shape[1], width), "pos_embed", start)
    x = drop(x, dropout, "pos_drop")
    for i in range(depth):
        x = block(x, heads, int(mlp_ratio * width), dropout, attention_dropout, f"blocks_{i}")
    x = layers.LayerNormalization(epsilon=1e-6, name="norm")(x)
    if include_top:
        x = x[:, 0] if pool == "token" else layers.GlobalAveragePooling1D(name="average")(x)  # (B, width)
        x = layers.Dense(classes, kernel_initializer="zeros", name="head")(x)
    return keras.Model(image, x, name="vit")


def resize(
    name: str, value: np.ndarray, shape: tuple[int, ...], image_shape: tuple[int, int, int], patch: int
) -> np.ndarray:
    """Bring position embeddings of another image size to a model's, as timm's `resample_abs_pos_embed` does.

    The grid of patches is resampled with a bicubic filter, widened where the grid shrinks (antialiasing), between the
    middles of the patches. The class token's embedding stays as it is.

    Args:
        name: Of an entry of a state dict.
        value: What it holds; of position embeddings `(1, n, D)`. Their grid is taken to be square, and where n is no
            square to have the proportions of the model's.
        shape: What the model holds there.
        image_shape: `(H, W, C)` of the model's images, in pixels.
        patch: Pixels of the model's patches, on each side.

    Returns:
        The embeddings in the shape wanted and the dtype given; or `value` itself, if it is something else, has that
        shape already, or is no such grid. Whoever loads it then says that its shape is another.
    """
    rows, columns = image_shape[0] // patch, image_shape[1] // patch
    before = shape[1] - rows * columns if len(shape) == 3 else -1  # 1 with a class token
    if name not in POSITIONS or before not in (0, 1) or value.shape == tuple(shape):
        return value
    if value.ndim != 3 or value.shape[::2] != tuple(shape[::2]) or value.shape[1] <= before:
        return value
    patches, common = value.shape[1] - before, math.gcd(rows, columns)
    for high, wide in ((1, 1), (rows // common, columns // common)):
        times = math.isqrt(patches // (high * wide))
        if high * wide * times**2 == patches:
            grid = value[:, before:].reshape(1, high * times, wide * times, -1)
            grid = ops.image.resize(grid, (rows, columns), "bicubic", antialias=True, data_format="channels_last")
            grid = ops.convert_to_numpy(grid).reshape(1, rows * columns, -1)
            return np.concatenate([value[:, :before], grid.astype(value.dtype)], axis=1)
    return value


def block(x, heads: int, hidden: int, dropout: float, attention_dropout: float, name: str):
    """Attention and a multilayer perceptron, each behind a normalisation and beside a shortcut: `(B, n, D)`."""
    width = x.shape[-1]
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    y = drop(attention(y, heads, attention_dropout, f"{name}_attn"), dropout, f"{name}_attn_drop")
    x = layers.Add(name=f"{name}_attn_add")([x, y])
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    y = layers.Dense(hidden, activation="gelu", name=f"{name}_mlp_fc1")(y)
    y = layers.Dense(width, name=f"{name}_mlp_fc2")(drop(y, dropout, f"{name}_mlp_drop1"))
    return layers.Add(name=name)([x, drop(y, dropout, f"{name}_mlp_drop2")])


def attention(x, heads: int, dropout: float, name: str):
    """Let every token look at all (Vaswani et al., 2017, section 3.2): `(B, n, D)` to `(B, n, D)`."""
    _, tokens, width = x.shape
    size = width // heads
    x = layers.Dense(3 * width, name=f"{name}_qkv")(x)
    x = layers.Reshape((tokens, 3, heads, size), name=f"{name}_heads")(x)
    x = layers.Permute((2, 3, 1, 4), name=f"{name}_split")(x)  # (B, 3, heads, n, size)
    # Not x[:, i]: TensorFlow fills three tensors with zeros and adds them up to have the gradient of that.
    query, key, value = ops.unstack(x, 3, axis=1)  # (B, heads, n, size)
    scores = ops.matmul(query * size**-0.5, ops.swapaxes(key, 2, 3))
    shares = layers.Softmax(name=f"{name}_weights")(scores)  # (B, heads, n, n)
    x = ops.matmul(drop(shares, dropout, f"{name}_weights_drop"), value)
    x = layers.Reshape((tokens, width), name=f"{name}_joined")(ops.swapaxes(x, 1, 2))
    return layers.Dense(width, name=f"{name}_proj")(x)


def drop(x, rate: float, name: str):
    """Dropout, where there is any."""
    return layers.Dropout(rate, name=name)(x) if rate else x


def resize_for(model, name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Bring what a state dict has to the shape that a model wants, if it is position embeddings; see `resize`."""
    return resize(name, value, shape, model.input_shape[1:], model.get_layer("patch_embed_proj").strides[0])
