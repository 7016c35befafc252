"""GoogLeNet, Inception v1 (Szegedy et al., 2014, https://arxiv.org/abs/1409.4842).

    image - conv1 7x7/2 - max/2 - conv2 1x1 - conv3 3x3 - max/2 - 3a 3b - max/2 - 4a 4b 4c 4d 4e - max/2 - 5a 5b - fc
                                                                               '- aux1      '- aux2

    inception:  x -+- 1x1 ----------.
                   +- 1x1 - 3x3 ----+- concatenate
                   +- 1x1 - 5x5 ----+
                   '- max - 1x1 ----'

The 1x1 convolutions in front of the large ones make them affordable. `variant="torchvision"` is what torchvision has
weights of: BatchNorm behind every convolution, a 3x3 where the paper has its 5x5, a last maximum over 2x2, and means
over any size for the auxiliary heads.
"""

import keras
from keras import layers, ops

from tfzoo.layers import arguments
from tfzoo.layers.classifier import signatures as signatures  # what an export serves
from tfzoo.layers.convolution import convolve

SIZES = {
    "paper": {"variant": "paper"},
    "torchvision": {"variant": "torchvision"},
    "tiny": {
        "variant": "paper",
        "image_shape": (80, 80, 1),
        "classes": 10,
        "width": 0.125,
        "auxiliary": True,
        "dropout": 0.0,  # so that runs can be compared that draw otherwise: compiled ones, and on two devices
        "auxiliary_dropout": 0.0,
    },
}
PARAMETERS = {"paper": 6_998_552, "torchvision": 6_624_904, "tiny": 104_712}
NAMES = {
    "torchvision": {
        r"(conv\d)_(conv|bn)": r"\1.\2",
        r"(inception\w\w)_(branch1)_(conv|bn)": r"\1.\2.\3",
        r"(inception\w\w)_(branch\d)_(\d)_(conv|bn)": r"\1.\2.\3.\4",
        r"(aux\d)_conv_(conv|bn)": r"\1.conv.\2",
        r"(aux\d)_(fc\d)": r"\1.\2",
    }
}
# Channels of the branches: 1x1; 1x1 and 3x3; 1x1 and 5x5; 1x1 behind the maximum (table 1).
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY = {"4a": "aux1", "4d": "aux2"}
LOSS_WEIGHT = 0.3  # of each auxiliary head's loss (section 5)
# Pixels of which four halvings leave one; five, as the paper's last maximum is over three pixels too; and four the five
# that the windows of its auxiliary heads are wide.
SMALLEST = {
    "torchvision": 15,
    "torchvision with auxiliary heads": 31,  # of fewer, Keras cannot take four means each way in a graph
    "paper": 31,
    "paper with auxiliary heads": 79,
}


@arguments.plain
def googlenet(
    image_shape: tuple[int, int, int] = (224, 224, 3),
    classes: int = 1000,
    variant: str = "paper",
    auxiliary: bool = False,
    width: float = 1.0,
    dropout: float | None = None,
    auxiliary_dropout: float = 0.7,
    transform_input: bool = False,
    include_top: bool = True,
    synchronized: bool = False,
) -> keras.Model:
    """Build a GoogLeNet.

    Args:
        image_shape: `(H, W, C)`. With auxiliary heads H and W are numbers, 224 in the paper; else they may be None.
            `SMALLEST` has how many pixels there must be.
        classes: How many there are.
        variant: "paper" or "torchvision".
        auxiliary: Whether the two heads on inner features are there, which give the lower layers a gradient.
        width: Factor of all channels, the auxiliary heads' too.
        dropout: Rate in front of the logits; None for the variant's, 0.4 in the paper and 0.2 in torchvision.
        auxiliary_dropout: The same of the auxiliary heads; 0 and the default may be given without them, too.
        transform_input: Whether pictures normalised by ImageNet's mean and deviation, as torchvision's weights get
            them, are brought to those of [-1, 1], which the weights came from.
        include_top: Whether logits are made; else the last inception's features are what the model gives.
        synchronized: Whether BatchNorm, which torchvision's variant has, normalises by the batch of all devices, and
            not each device by its own part.

    Returns:
        A model from float32 images `(B, H, W, C)` to logits `(B, classes)`, or to features `(B, H/32, W/32, C')`. With
        auxiliary heads it gives a dictionary, `logits` or `features`, `aux1` and `aux2`; their losses count
        `LOSS_WEIGHT` each. What an inception gives is the output of the layer `inception3a` and so on.

    Raises:
        ValueError: An argument is of another type or out of range, or of no effect, or the image is too small.
    """
    problems = arguments.image_shape(image_shape, open_size=not auxiliary)
    kind = ("paper" if variant == "paper" else "torchvision") + (" with auxiliary heads" if auxiliary is True else "")
    if not problems and any(n is not None and n < SMALLEST[kind] for n in image_shape[:2]):
        problems.append(
            f"googlenet ({kind}) needs {SMALLEST[kind]} pixels or more on each side. Received: {image_shape=}"
        )
    if not problems and transform_input and image_shape[2] != 3:
        problems.append(f"transform_input is for three channels. Received: {image_shape=}")
    arguments.refuse(
        problems,
        arguments.positive(classes=classes),
        arguments.among(("paper", "torchvision"), variant=variant),
        arguments.switches(
            auxiliary=auxiliary,
            transform_input=transform_input,
            include_top=include_top,
            synchronized=synchronized,
        ),
        arguments.rates(auxiliary_dropout=auxiliary_dropout, **({} if dropout is None else {"dropout": dropout})),
        arguments.factors(width=width),
        arguments.idle(googlenet, "include_top=True", dropout=dropout) if include_top is False else [],
        arguments.idle(googlenet, "auxiliary=True", auxiliary_dropout=auxiliary_dropout) if auxiliary is False else [],
        arguments.idle(googlenet, "variant='torchvision'", synchronized=synchronized) if variant == "paper" else [],
    )
    new = variant == "torchvision"

    def narrow(channels: int) -> int:
        return max(round(width * channels), 1)

    def conv(x, filters: int, size: int, name: str, stride: int = 1):
        """Convolve and rectify, with as much padding on either side."""
        options = {"use_bias": not new, "kernel_initializer": "he_normal"}
        x = convolve(x, narrow(filters), size, stride, f"{name}_conv", f"{name}_pad", **options)
        if new:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, synchronized=synchronized, name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def classify(x, name: str):
        """Make logits, which begin alike: random ones may have losses that half precision cannot scale."""
        return layers.Dense(classes, kernel_initializer="zeros", name=name)(x)

    def inception(x, name: str):
        """Four branches beside one another: `(B, H, W, C)` to `(B, H, W, C')`."""
        one, reduce3, three, reduce5, five, pooled = INCEPTIONS[name]
        name = f"inception{name}"
        first = conv(x, one, 1, f"{name}_branch1")
        second = conv(conv(x, reduce3, 1, f"{name}_branch2_0"), three, 3, f"{name}_branch2_1")
        third = conv(conv(x, reduce5, 1, f"{name}_branch3_0"), five, 3 if new else 5, f"{name}_branch3_1")
        fourth = layers.MaxPooling2D(3, 1, "same", name=f"{name}_branch4_0")(x)
        fourth = conv(fourth, pooled, 1, f"{name}_branch4_1")
        return layers.Concatenate(name=name)([first, second, third, fourth])

    x = image = keras.Input(image_shape, name="image")
    if transform_input:
        statistics = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))  # ImageNet's, in [0, 1]
        channels = [x[..., i : i + 1] * (s / 0.5) + (m - 0.5) / 0.5 for i, (m, s) in enumerate(statistics)]
        x = layers.Concatenate(name="transform_input")(channels)
    x = halve(conv(x, 64, 7, "conv1", stride=2), 3, "maxpool1")  # (B, H/4, W/4, 64)
    x = x if new else respond(x)
    x = conv(conv(x, 64, 1, "conv2"), 192, 3, "conv3")
    x = x if new else respond(x)
    x = halve(x, 3, "maxpool2")  # (B, H/8, W/8, 192)
    heads = {}
    for name in INCEPTIONS:
        x = inception(x, name)
        if auxiliary and name in AUXILIARY:
            head = AUXILIARY[name]
            y = conv(means(x, new, f"{head}_pool"), 128, 1, f"{head}_conv")  # (B, 4, 4, 128)
            y = layers.Flatten(name=f"{head}_flatten")(y)
            y = layers.Dense(narrow(1024), activation="relu", name=f"{head}_fc1")(y)
            y = layers.Dropout(auxiliary_dropout, name=f"{head}_dropout")(y)
            heads[head] = classify(y, f"{head}_fc2")
        if name in ("3b", "4e"):
            x = halve(x, 2 if new and name == "4e" else 3, f"maxpool{3 if name == '3b' else 4}")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)
        x = layers.Dropout((0.2 if new else 0.4) if dropout is None else dropout, name="dropout")(x)
        x = classify(x, "fc")
    outputs = {"logits" if include_top else "features": x, **heads} if auxiliary else x
    return keras.Model(image, outputs, name="googlenet")


def halve(x, size: int, name: str):
    """Take the maximum over windows with stride 2; one that begins inside ends one pixel outside, if it must.

    What is outside counts as zero, which is not above anything that is rectified.
    """
    return layers.MaxPooling2D(size, 2, name=name)(layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x))


def means(x, new: bool, name: str):
    """Take the means that an auxiliary head looks at: `(B, H, W, C)` to `(B, 4, 4, C)` of a 14x14 picture.

    The paper's are over 5x5 with stride 3; torchvision's are four each way, of any size.
    """
    if not new:
        return layers.AveragePooling2D(5, 3, name=name)(x)
    return layers.AdaptiveAveragePooling2D(4, name=name)(x)


def respond(x, size: int = 5, alpha: float = 1e-4, beta: float = 0.75):
    """Normalise a pixel's channels by their neighbours (Krizhevsky et al., 2012, section 3.3; Caffe's settings)."""
    side = size // 2
    squares = ops.pad(ops.square(x), ((0, 0), (0, 0), (0, 0), (side, side)))
    near = sum(squares[..., i : i + x.shape[-1]] for i in range(size))
    return x / (1 + alpha / size * near) ** beta
