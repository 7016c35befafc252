"""ResNet (He et al., 2015, https://arxiv.org/abs/1512.03385), ResNeXt (Xie et al., 2016, 1611.05431), and both with
pre-activation (He et al., 2016, 1603.05027).

    image - stem (H/4, W/4) - layer1 (H/4, W/4) - layer2 (H/8, W/8) - layer3 (H/16, W/16) - layer4 (H/32, W/32) - fc

    basic: x - 3x3 - 3x3 - + - relu        bottleneck: x - 1x1 - 3x3 (groups) - 1x1 - + - relu
            '------------- '                           '----------------------------'

As torchvision has it: the 3x3 convolution of a bottleneck has the stride ("v1.5"), padding is the same on both sides.
The networks for CIFAR (section 4.2) have a 3x3 stem, three stages and shortcuts without parameters ("option A").
"""

import keras
from keras import layers

from tfzoo.layers import arguments
from tfzoo.layers.classifier import signatures as signatures  # what an export serves
from tfzoo.layers.convolution import convolve

CIFAR = {"image_shape": (32, 32, 3), "classes": 10, "stem": "cifar", "widths": (16, 32, 64), "shortcut": "A"}
DEEP = {"block": "bottleneck"}
SIZES = {
    "18": {"depths": (2, 2, 2, 2)},
    "34": {"depths": (3, 4, 6, 3)},
    "50": {"depths": (3, 4, 6, 3), **DEEP},
    "101": {"depths": (3, 4, 23, 3), **DEEP},
    "152": {"depths": (3, 8, 36, 3), **DEEP},
    "resnext50_32x4d": {"depths": (3, 4, 6, 3), "cardinality": 32, "group_width": 4, **DEEP},
    "resnext101_32x8d": {"depths": (3, 4, 23, 3), "cardinality": 32, "group_width": 8, **DEEP},
    "resnext101_64x4d": {"depths": (3, 4, 23, 3), "cardinality": 64, "group_width": 4, **DEEP},
    **{f"cifar{6 * n + 2}": {"depths": (n, n, n), **CIFAR} for n in (3, 5, 7, 9, 18)},
    "tiny": {**CIFAR, "image_shape": (16, 16, 1), "depths": (1, 1, 1), "widths": (8, 16, 32), "synchronized": True},
}
PARAMETERS = {
    "18": 11_689_512,
    "34": 21_797_672,
    "50": 25_557_032,
    "101": 44_549_160,
    "152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "cifar20": 269_722,
    "cifar32": 464_154,
    "cifar44": 658_586,
    "cifar56": 853_018,
    "cifar110": 1_727_962,
    "tiny": 19_074,
}
# What a state dict calls the layers; `bridge.naming` has what a table is. timm has kept torchvision's names.
NAMES = {
    "torchvision": {
        r"layer(\d)_(\d+)_downsample_(\d)": r"layer\1.\2.downsample.\3",
        r"layer(\d)_(\d+)_(\w+)": r"layer\1.\2.\3",
    }
}
NAMES["timm"] = NAMES["torchvision"]


@arguments.plain
def resnet(
    image_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    classes: int = 1000,
    depths: tuple[int, ...] = (2, 2, 2, 2),
    widths: tuple[int, ...] = (64, 128, 256, 512),
    block: str = "basic",
    cardinality: int = 1,
    group_width: int = 64,
    stem: str = "imagenet",
    shortcut: str = "B",
    preactivation: bool = False,
    include_top: bool = True,
    dropout: float = 0.0,
    synchronized: bool = False,
) -> keras.Model:
    """Build a residual network.

    Args:
        image_shape: `(H, W, C)`; H and W may be None for any size.
        classes: How many there are.
        depths: Blocks in each stage.
        widths: Of the stages: channels of their 3x3 convolutions.
        block: "basic", two 3x3 convolutions, or "bottleneck", a 3x3 one between 1x1 ones, which gives four times the
            width.
        cardinality: Groups of a bottleneck's 3x3 convolution (ResNeXt's C).
        group_width: Channels of each group where the stage's width is 64, and in proportion where it is more (ResNeXt's
            d). With one group of 64 it is ResNet's.
        stem: "imagenet", a 7x7 convolution and a maximum, both of stride 2; "cifar", a 3x3 convolution.
        shortcut: Where a block changes the shape: "B", a 1x1 convolution; "A", every second pixel and channels of zeros
            around its own.
        preactivation: Normalise and rectify before each convolution and not after it, as fb.resnet.torch does: the very
            first block gets what the stem has rectified already.
        include_top: Whether logits are made; else the last stage's features are what the model gives.
        dropout: Rate, in [0, 1), of the dropout in front of the logits.
        synchronized: Whether BatchNorm normalises by the batch of all devices, and not each device by its own part.

    Returns:
        A model from float32 images `(B, H, W, C)` to logits `(B, classes)`, or to features `(B, H/32, W/32, C')`
        (`H/4`, `W/4` of three stages behind the stem for CIFAR). What stage i gives is the output of the layer
        `layer{i}`.

    Raises:
        ValueError: An argument is of another type or out of range, or two of them do not go together.
    """
    arguments.refuse(
        arguments.image_shape(image_shape),
        arguments.positive(classes=classes, cardinality=cardinality, group_width=group_width),
        arguments.positives(depths=depths),
        arguments.positives(len(depths) if isinstance(depths, (tuple, list)) else None, widths=widths),
        arguments.among(("basic", "bottleneck"), block=block),
        arguments.among(("imagenet", "cifar"), stem=stem),
        arguments.among(("A", "B"), shortcut=shortcut),
        arguments.switches(preactivation=preactivation, include_top=include_top, synchronized=synchronized),
        arguments.rates(dropout=dropout),
        arguments.idle(resnet, "include_top=True", dropout=dropout) if include_top is False else [],
        misfits(widths, block, cardinality, group_width, stem, shortcut),
    )
    x = image = keras.Input(image_shape, name="image")
    if stem == "imagenet":
        x = norm(conv(x, 64, 7, 2, 1, "conv1"), "bn1", "relu")  # (B, H/2, W/2, 64)
        x = layers.ZeroPadding2D(1, name="maxpool_pad")(x)  # zeros, which are not above anything that is rectified
        x = layers.MaxPooling2D(3, 2, name="maxpool")(x)  # (B, H/4, W/4, 64)
    else:
        x = norm(conv(x, widths[0], 3, 1, 1, "conv1"), "bn1", "relu")  # (B, H, W, widths[0])
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        inside = width * group_width // 64 * cardinality
        for j in range(depth):
            stride = 2 if i > 1 and j == 0 else 1
            if block == "basic":
                convs = [(width, 3, stride, 1), (width, 3, 1, 1)]
            else:
                convs = [(inside, 1, 1, 1), (inside, 3, stride, cardinality), (4 * width, 1, 1, 1)]
            x = residual(x, convs, stride, shortcut, f"layer{i}_{j}", preactivation, rectified=i == 1 and j == 0)
        x = layers.Identity(name=f"layer{i}")(x)  # (B, H/2^(i+1), W/2^(i+1), C'), of stem "imagenet"
    if preactivation:
        x = norm(x, "bn_last", "relu_last")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avgpool")(x)  # (B, width)
        x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
        x = layers.Dense(classes, name="fc")(x)
    model = keras.Model(image, x, name="resnet")
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = synchronized
    return model


def misfits(widths, block, cardinality, group_width, stem: str, shortcut: str) -> list[str]:
    """Say which arguments do not go together; those that are out of range by themselves are said to be so elsewhere."""
    problems = []
    if block == "basic" and (cardinality, group_width) != (1, 64):
        problems.append(
            "cardinality and group_width are those of a bottleneck: give block='bottleneck'. "
            f"Received: {block=}, {cardinality=}, {group_width=}"
        )
    if arguments.positives(widths=widths) or arguments.positive(group_width=group_width):
        return problems
    if block == "bottleneck" and min(widths) * group_width < 64:
        problems.append(
            "a group has width * group_width / 64 channels, which must be 1 or more for each of the widths. "
            f"Received: {widths=}, {group_width=}"
        )
    made = [width * (4 if block == "bottleneck" else 1) for width in widths]
    channels = [64 if stem == "imagenet" else widths[0], *made]
    if shortcut == "A" and channels != sorted(channels):
        problems.append(
            "shortcut 'A' adds channels and takes none away: from the stem on their number must not fall. "
            f"Received: {widths=}, which with {stem=} and {block=} gives {channels}"
        )
    return problems


def residual(x, convs: list[tuple], stride: int, shortcut: str, name: str, preactivation: bool, rectified: bool):
    """Add a stack of convolutions to its input: `(B, H, W, C)` to `(B, ceil(H / stride), ceil(W / stride), C')`.

    Args:
        x: What comes in.
        convs: Filters, kernel size, stride and groups of each.
        stride: Of all of them together.
        shortcut: "A" or "B", as `resnet` has it.
        name: What the layers' names begin with.
        preactivation: Whether normalisation and ReLU come before each convolution.
        rectified: Whether they have been before the first one already.
    """
    y, width = x, convs[-1][0]
    changes = stride != 1 or x.shape[-1] != width
    for k, (filters, size, step, groups) in enumerate(convs, 1):
        if preactivation and not (k == 1 and rectified):
            y = norm(y, f"{name}_bn{k}", f"{name}_relu{k}")
        if k == 1:
            short = project(y if preactivation else x, width, stride, shortcut, name, preactivation) if changes else x
        y = conv(y, filters, size, step, groups, f"{name}_conv{k}")
        if not preactivation:
            y = norm(y, f"{name}_bn{k}", f"{name}_relu{k}" if k < len(convs) else None)
    y = layers.Add(name=f"{name}_add")([y, short])
    return y if preactivation else layers.ReLU(name=f"{name}_out")(y)


def project(x, width: int, stride: int, shortcut: str, name: str, bare: bool):
    """Bring a block's input to the shape of its output; `bare` leaves out the normalisation."""
    if shortcut == "B":
        x = conv(x, width, 1, stride, 1, f"{name}_downsample_0")
        return x if bare else norm(x, f"{name}_downsample_1")
    x = layers.MaxPooling2D(1, stride, name=f"{name}_downsample")(x) if stride > 1 else x  # every second pixel
    more = width - x.shape[-1]
    return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2))) if more else x


def conv(x, filters: int, size: int, stride: int, groups: int, name: str):
    """Convolve, with as much padding on either side, and no bias: what follows has one."""
    start = keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal")  # as in torchvision
    options = {"groups": groups, "use_bias": False, "kernel_initializer": start}
    return convolve(x, filters, size, stride, name, f"{name}_pad", **options)


def norm(x, name: str, activation: str | None = None):
    """Normalise by the batch (torch's settings), and rectify if that has a name."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
    return layers.ReLU(name=activation)(x) if activation else x
