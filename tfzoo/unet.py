"""U-Net (Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597).

    image - down0 (H, W, w0) ----------------------- up0 - logits (H, W, classes)
              '- down1 (H/2, W/2, w1) -------- up1 -'
                   '- bottom (H/4, W/4, w2) -'

Unlike the paper's, these convolutions pad, so the logits line up with the pixels.
"""

from numbers import Integral, Real

import keras
from keras import layers

SIZES = {
    "default": {"widths": (16, 32, 64, 128, 256)},
    "tiny": {"image_shape": (32, 32, 3), "widths": (4, 8, 16)},
    "paper": {"widths": (64, 128, 256, 512, 1024)},
}
PARAMETERS = {"default": 1_941_105, "tiny": 7_469, "paper": 31_031_745}


def unet(
    image_shape: tuple[int | None, int | None, int] = (128, 128, 3),
    classes: int = 1,
    widths: tuple[int, ...] = (16, 32, 64, 128, 256),
    batch_norm: bool = False,
    dropout: float = 0.0,
) -> keras.Model:
    """Build a U-Net that gives every pixel one logit per class.

    Args:
        image_shape: `(H, W, C)`; H and W are multiples of `2**(len(widths) - 1)`, or None for any such size.
        classes: Channels of the logits; 1 for a binary mask.
        widths: Channels at each size, from the full image down to the bottom.
        batch_norm: Normalise each 3x3 convolution before its ReLU (Ioffe & Szegedy, 2015). The convolutions
            keep their biases, as in the reference count, though the normalisation cancels them.
        dropout: Rate, in [0, 1), of the dropout behind the bottom's convolutions.

    Returns:
        A model from float32 images `(B, H, W, C)` to logits `(B, H, W, classes)`.

    Raises:
        ValueError: An argument is of another type or out of range, or H or W cannot be halved often enough.
    """
    check(image_shape, classes, widths, batch_norm, dropout)
    x = image = keras.Input(image_shape, name="image")
    skips = []
    for i, width in enumerate(widths[:-1]):
        x = convs(x, width, f"down{i}", batch_norm)  # (B, H/2^i, W/2^i, width)
        skips.append(x)
        x = layers.MaxPooling2D(name=f"down{i}_pool")(x)  # (B, H/2^(i+1), W/2^(i+1), width)
    x = convs(x, widths[-1], "bottom", batch_norm)
    if dropout:
        x = layers.Dropout(dropout, name="bottom_dropout")(x)
    for i, width in reversed(list(enumerate(widths[:-1]))):
        x = layers.Conv2DTranspose(width, 2, strides=2, name=f"up{i}_upsample")(x)  # (B, H/2^i, W/2^i, width)
        x = layers.Concatenate(name=f"up{i}_skip")([skips[i], x])  # (B, H/2^i, W/2^i, 2 width)
        x = convs(x, width, f"up{i}", batch_norm)  # (B, H/2^i, W/2^i, width)
    logits = layers.Conv2D(classes, 1, name="logits")(x)  # (B, H, W, classes)
    return keras.Model(image, logits, name="unet")


def signatures(networks: dict[str, keras.Model]):
    """Give what an export serves: `image` to `mask`, the probability of the foreground, or of each class."""
    import tensorflow as tf

    from tfzoo.export.signatures import DEFAULT, Signature

    model = networks["model"]
    activation = tf.sigmoid if model.output_shape[-1] == 1 else tf.nn.softmax
    image = tf.TensorSpec(model.input_shape, "float32", "image")
    return {DEFAULT: Signature(lambda image: {"mask": activation(model(image, training=False))}, (image,))}


def convs(x, width: int, name: str, batch_norm: bool):
    """Apply two 3x3 convolutions with ReLU: `(B, H, W, C)` to `(B, H, W, width)`."""
    for j in range(2):
        activation = None if batch_norm else "relu"
        conv = layers.Conv2D(
            width, 3, padding="same", activation=activation, kernel_initializer="he_normal", name=f"{name}_conv{j}"
        )
        x = conv(x)
        if batch_norm:
            x = layers.BatchNormalization(name=f"{name}_norm{j}")(x)
            x = layers.ReLU(name=f"{name}_relu{j}")(x)
    return x


def check(image_shape, classes, widths, batch_norm, dropout) -> None:
    """Raise one ValueError that names every argument of another type or out of range."""

    def positive(n):
        return isinstance(n, Integral) and not isinstance(n, bool) and n >= 1

    problems = []
    halvings = None
    if isinstance(widths, (tuple, list)) and widths and all(map(positive, widths)):
        halvings = len(widths) - 1
    else:
        problems.append(f"widths must be one or more positive channel counts. Received: widths={widths!r}")
    if (
        not isinstance(image_shape, (tuple, list))
        or len(image_shape) != 3
        or not positive(image_shape[2])
        or not all(n is None or positive(n) for n in image_shape[:2])
    ):
        problems.append(
            "image_shape must be three positive integers, of which the first two may be None: "
            f"(height, width, channels). Received: image_shape={image_shape!r}"
        )
    elif halvings and any(n is not None and n % 2**halvings for n in image_shape[:2]):
        problems.append(
            f"unet halves the image {halvings} times, so its height and width must be multiples of "
            f"{2**halvings} (or None for any such size). Received: image_shape={image_shape!r}"
        )
    if not positive(classes):
        problems.append(f"classes must be an integer, 1 (a binary mask) or more. Received: classes={classes!r}")
    if not isinstance(batch_norm, bool):
        problems.append(f"batch_norm must be True or False. Received: batch_norm={batch_norm!r}")
    if not isinstance(dropout, Real) or isinstance(dropout, bool) or not 0 <= dropout < 1:
        problems.append(f"dropout must be a number in [0, 1). Received: dropout={dropout!r}")
    if problems:
        raise ValueError("\n".join(problems))
