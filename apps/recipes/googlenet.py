"""GoogLeNet with its auxiliary heads, on handwritten digits or on your own pictures.

    tfzoo train googlenet --output RUN              two minutes on two cores: held-out top-1 >= .98
    tfzoo train googlenet --size torchvision --data DIR --output RUN      your pictures: DIR/CLASS/*

On the same 360 held-out digits, enlarged from 8x8 to 32x32, logistic regression reaches .967.
"""

from apps.recipes import _classifier
from apps.recipes._classifier import VALUES, draw, evaluate, fit

DEFAULTS = {
    "size": "tiny",
    "data": "digits",
    "epochs": 25,
    "steps_per_epoch": 100,
    "batch_size": 32,
    "learning_rate": 0.05,
    "mix": "none",
    "values": VALUES,
}
# Of the smallest size, what learns the digits: the paper's variant needs pictures of 80x80, this one normalises.
SMALL = {"variant": "torchvision", "dropout": 0.2, "auxiliary_dropout": 0.7}
MINUTES = {"full": 2}  # on two cores
DATA = "handwritten digits (embedded), or DIR with a folder for each class, keras:cifar10, tfds:NAME"
HEADS = ("logits", "aux1", "aux2")
__all__ = ["DATA", "DEFAULTS", "MINUTES", "compile", "datasets", "draw", "evaluate", "fit", "settings"]


def settings(options: dict) -> dict:
    """Give the builder's options that follow from the data, the auxiliary heads, and for the smallest size `SMALL`.

    Raises:
        ValueError: The data cannot be used, has more classes than were asked for, or the auxiliary heads are left out.
    """
    from tfzoo.googlenet import SIZES, SMALLEST

    if not options["settings"].get("auxiliary", True):
        raise ValueError("the recipe of googlenet trains the auxiliary heads, too. Leave --set auxiliary=False out.")
    chosen = SMALL if options["size"] == "tiny" else {}
    variant = ({"variant": "paper"} | SIZES.get(options["size"], {}) | chosen | options["settings"])["variant"]
    kind = "torchvision" if variant == "torchvision" else "paper"
    sizes = SMALLEST[f"{kind} with auxiliary heads"], {"torchvision": 32, "paper": 80}[kind]
    return {**_classifier.settings(options, *sizes), "auxiliary": True, **chosen}


def datasets(data: str, image_shape: tuple[int, int, int], **how):
    """Open the pictures, as `_classifier.datasets` does; the labels are there once for each head."""
    import dataclasses

    found = _classifier.datasets(data, image_shape, **how)
    parts = {name: getattr(found, name).map(for_every_head) for name in ("training", "validation", "held_out")}
    return dataclasses.replace(found, **parts)


def for_every_head(image, label):
    """Give the labels to each head."""
    return image, dict.fromkeys(HEADS, label)


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: cross entropy, that of the auxiliary heads by 0.3 (section 5), SGD with momentum.

    Raises:
        ValueError: The model is no classifier of pictures.
    """
    import keras

    from tfzoo.googlenet import LOSS_WEIGHT
    from tfzoo.layers.classifier import image_shape

    image_shape(model)
    model.compile(
        optimizer=optimizer(keras.optimizers.SGD, momentum=0.9, nesterov=True, weight_decay=1e-4),
        loss=dict.fromkeys(HEADS, _classifier.cross_entropy),
        loss_weights={name: 1.0 if name == "logits" else LOSS_WEIGHT for name in HEADS},
        metrics={"logits": _classifier.tops(model.output["logits"].shape[-1])},
        jit_compile=jit_compile,
    )
