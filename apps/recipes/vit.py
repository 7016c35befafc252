"""Vision Transformers on handwritten digits, or on your own pictures.

    tfzoo train vit --output RUN                    four minutes on two cores: held-out top-1 >= .95
    tfzoo train vit --size s16 --data DIR --output RUN       your pictures: DIR/CLASS/*

On the same 360 held-out digits logistic regression reaches .96. A transformer knows nothing of neighbouring pixels
beforehand: of few pictures it learns less than a convolutional network does.
"""

from apps.recipes._classifier import VALUES, datasets, draw, evaluate, settings

DEFAULTS = {
    "size": "tiny",
    "data": "digits",
    "epochs": 25,
    "steps_per_epoch": 100,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "settings": {"width": 64, "depth": 4, "heads": 4, "dropout": 0.1},
}
MINUTES = {"full": 4}  # on two cores
DATA = "handwritten digits (embedded), or DIR with a folder for each class, keras:cifar10, tfds:NAME"
__all__ = ["DATA", "DEFAULTS", "MINUTES", "VALUES", "compile", "datasets", "draw", "evaluate", "settings"]


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: cross entropy, AdamW (Loshchilov & Hutter, 2019)."""
    import keras

    from apps.recipes import _classifier

    _classifier.compile(model, optimizer(keras.optimizers.AdamW, weight_decay=0.05), jit_compile)
