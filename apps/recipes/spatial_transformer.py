"""A spatial transformer in front of a small network, on digits turned, moved and cluttered, or on your own pictures.

    tfzoo train spatial_transformer --output RUN    ten minutes on two cores: held-out top-1 >= .92
    tfzoo train spatial_transformer --set transform=None --output PLAIN     the same network without it
    tfzoo train spatial_transformer --data DIR --output RUN                 your pictures: DIR/CLASS/*

The pictures of 60x60 are new in every epoch; `tfzoo evaluate` draws held-out ones, and below each what the transformer
makes of it.
"""

import functools

from apps.recipes import _classifier
from apps.recipes._classifier import evaluate, fit

VALUES = (0.0, 1.0)  # black is 0, as what the transformer finds beyond the picture is
DEFAULTS = {
    "size": "default",
    "data": "cluttered_digits",
    "epochs": 40,
    "steps_per_epoch": 100,
    "batch_size": 256,  # of few pictures the gradient of theta is mostly noise
    "learning_rate": 2e-3,
    "mix": "none",
    "values": VALUES,
    "warm_up": 0.1,
    "clip": 1.0,
}
# For cluttered digits. A classifier as small as this cannot know a digit at every angle: the transformer has to turn
# it. A larger one learns all angles, and is then indifferent to them.
WIDTHS = {"widths": (4,), "units": 16}
FRONT = {
    "output_size": (24, 24),
    "localisation_widths": (8, 16, 16),
    "localisation_units": 64,
    "identity_penalty": 5e-3,  # of twice as much the seeds differ more; of none theta leaves the picture
}
EPSILON = 1e-4  # Adam's: of the first gradients, as small as they are without direction, steps stay small, too
datasets = functools.partial(_classifier.datasets, values=VALUES)
MINUTES = {"full": 10}  # on two cores
DATA = (
    "handwritten digits, turned and moved among pieces of others (embedded), or DIR with a folder for each class, "
    "keras:cifar10, tfds:NAME"
)
__all__ = ["DATA", "DEFAULTS", "MINUTES", "compile", "datasets", "draw", "evaluate", "fit", "settings"]


def settings(options: dict) -> dict:
    """Give the options that follow from the data, for cluttered digits `WIDTHS` and `FRONT`; raises a ValueError."""
    found = _classifier.settings(options)
    if options["data"] != "cluttered_digits" or options["size"] != "default":
        return found
    plain = options["settings"].get("transform", "affine") is None
    return found | WIDTHS | ({} if plain else FRONT)


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: cross entropy, Adam."""
    import keras

    _classifier.compile(model, optimizer(keras.optimizers.Adam, epsilon=EPSILON), jit_compile)


def draw(model, dataset, path, columns: int = 10, classes: tuple[str, ...] | None = None, values=VALUES) -> None:
    """Draw what `_classifier.draw` does, and below it pictures, below each what the transformer makes of it.

    Args:
        model: From images to logits `(B, classes)`; one without a transformer has nothing below.
        dataset: Batches of images and class numbers; the first pictures are drawn.
        path: Where the PNG is written.
        columns: How many pictures.
        classes: As `_classifier.draw` has them.
        values: The same.
    """
    import numpy as np
    from PIL import Image

    _classifier.draw(model, dataset, path, classes=classes, values=values)
    if "rectified" not in {operation.name for operation in model.operations}:
        return
    images = next(dataset.unbatch().batch(columns).as_numpy_iterator())[0]
    with Image.open(path) as opened:
        page = opened.convert("RGB")
    below = Image.fromarray(rectified(model, images, values))
    below = below.resize((page.width, round(below.height * page.width / below.width)), Image.Resampling.NEAREST)
    Image.fromarray(np.concatenate([page, below])).save(path, "PNG")


def rectified(model, images, values):
    """Give images `(B, H, W, C)` side by side, and below each what the transformer makes of it, as uint8 RGB."""
    import keras
    import numpy as np
    from PIL import Image

    from tfzoo.data.black_and_white import shown

    made = np.asarray(keras.Model(model.input, model.get_layer("rectified").output)(images))
    rows = []
    for some in (images, made):
        height, width = images.shape[1:3]
        pixels = [np.uint8(255 * shown(x, values)) for x in some]
        drawn = [Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).resize((width, height)) for x in pixels]
        rows.append(np.concatenate([np.pad(np.asarray(x.convert("RGB")), ((2, 2), (2, 2), (0, 0))) for x in drawn], 1))
    return np.concatenate(rows)
