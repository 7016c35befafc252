"""A spatial transformer in front of a small network, on digits turned, moved and cluttered, or on your own pictures.

    tfzoo train spatial_transformer --output RUN    about a quarter of an hour on two cores
    tfzoo train spatial_transformer --set transform=None --output PLAIN     the same network without it
    tfzoo train spatial_transformer --data DIR --output RUN                 your pictures: DIR/CLASS/*

What the whole recipe reaches has not been measured yet; after 180 steps it was held-out top-1 >= .15. The pictures of
60x60 are new in every epoch; `tfzoo evaluate` draws the held-out ones beside what the transformer makes of them.
"""

from apps.recipes import _classifier
from apps.recipes._classifier import datasets, evaluate, settings

DEFAULTS = {
    "size": "default",
    "data": "cluttered_digits",
    "epochs": 15,
    "steps_per_epoch": 200,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "clip": 1.0,
}
MINUTES = {"full": 12}  # on two cores
DATA = "handwritten digits, turned and moved among pieces of others (embedded), or DIR with a folder for each class"
__all__ = ["DATA", "DEFAULTS", "MINUTES", "compile", "datasets", "draw", "evaluate", "settings"]


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: cross entropy, Adam."""
    import keras

    _classifier.compile(model, optimizer(keras.optimizers.Adam), jit_compile)


def draw(model, dataset, path, columns: int = 10) -> None:
    """Draw pictures, and below each what the transformer makes of it; without one, what `_classifier.draw` does.

    Args:
        model: From images to logits `(B, classes)`.
        dataset: Batches of images in [-1, 1] and class numbers; the first pictures are drawn.
        path: Where the PNG is written.
        columns: How many pictures.
    """
    import keras
    import numpy as np
    from PIL import Image

    if "rectified" not in {operation.name for operation in model.operations}:
        _classifier.draw(model, dataset, path)
        return
    images = next(dataset.unbatch().batch(columns).as_numpy_iterator())[0]
    rectified = np.asarray(keras.Model(model.input, model.get_layer("rectified").output)(images))
    rows = []
    for some in (images, rectified):
        height = images.shape[1]
        pixels = [np.uint8(np.clip((x + 1) * 127.5, 0, 255)) for x in some]
        shown = [Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).resize((height, height)) for x in pixels]
        rows.append(np.concatenate([np.pad(np.asarray(x.convert("RGB")), ((2, 2), (2, 2), (0, 0))) for x in shown], 1))
    Image.fromarray(np.concatenate(rows)).save(path)
