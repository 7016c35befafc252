"""Vision Transformers on handwritten digits, or on your own pictures.

    tfzoo train vit --output RUN                    seven minutes on two cores: held-out top-1 >= .96
    tfzoo train vit --size s16 --data DIR --output RUN       your pictures: DIR/CLASS/*

On the same 360 held-out digits logistic regression reaches .967. A transformer knows nothing of neighbouring pixels
beforehand: of few pictures it learns less than a convolutional network does.
"""

import math

from apps.recipes import _classifier
from apps.recipes._classifier import VALUES, datasets, draw, evaluate, fit

DEFAULTS = {
    "size": "tiny",
    "data": "digits",
    "epochs": 50,
    "steps_per_epoch": 100,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "mix": "none",
    "values": VALUES,
}
# Of the smallest size, what learns the digits: enlarged from 8x8 to 16x16, as by half a pixel of theirs they are
# shifted to more places, a quarter of it to a patch.
SMALL = {"patch": 4, "width": 64, "depth": 4, "heads": 4, "dropout": 0.1}
# Patches of a picture, for the smallest size: each block keeps the heads' attention for the gradient, 1 GB of a batch.
MOST = 1024
MINUTES = {"full": 7}  # on two cores
DATA = "handwritten digits (embedded), or DIR with a folder for each class, keras:cifar10, tfds:NAME"
__all__ = ["DATA", "DEFAULTS", "MINUTES", "compile", "datasets", "draw", "evaluate", "fit", "settings"]


def settings(options: dict) -> dict:
    """Give the options that follow from the data and the patch, for the smallest size `SMALL`.

    Raises:
        ValueError: The data cannot be used, has more classes than were asked for, or pictures too large for that size.
    """
    from tfzoo.layers.arguments import is_positive
    from tfzoo.vit import SIZES

    chosen = SMALL if options["size"] == "tiny" else {}
    patch = (SIZES.get(options["size"], {}) | chosen | options["settings"]).get("patch")
    found = _classifier.settings(options, 16, 16, patch if is_positive(patch) else 1) | chosen
    shape = options["settings"].get("image_shape", found["image_shape"])
    right = isinstance(shape, tuple | list) and all(map(is_positive, (patch, *shape)))  # else the builder refuses it
    if chosen and right and (patches := math.prod(n // patch for n in shape[:2])) > MOST:
        raise ValueError(
            f"the smallest size is for small pictures: of at most {MOST} patches. Accepted: another size (--size s16), "
            "larger patches (--set patch=16), or smaller pictures (--set 'image_shape=(64, 64, 3)'). Received: "
            f"{patches} patches of {patch}x{patch} pixels, of pictures of {'x'.join(map(str, shape[:2]))}"
        )
    return found


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: cross entropy, AdamW (Loshchilov & Hutter, 2019)."""
    import keras

    _classifier.compile(model, optimizer(keras.optimizers.AdamW, weight_decay=0.05), jit_compile)
