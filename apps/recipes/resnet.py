"""Residual networks on handwritten digits, or on your own pictures.

    tfzoo train resnet --output RUN                 about a minute on two cores: held-out top-1 >= .98
    tfzoo train resnet --size cifar20 --data keras:cifar10 --epochs 182 --steps-per-epoch 390 --batch-size 128
    tfzoo train resnet --size 50 --data DIR --output RUN     your pictures: DIR/CLASS/*

On the same 360 held-out digits logistic regression reaches .967. Of the second command He et al. (2015, table 6) have
published an error of 8.75 %; it was not tried here.
"""

from apps.recipes._classifier import VALUES, datasets, draw, evaluate, fit, settings

DEFAULTS = {
    "size": "tiny",
    "data": "digits",
    "epochs": 10,
    "steps_per_epoch": 100,
    "batch_size": 64,
    "learning_rate": 0.1,
    "mix": "none",
    "values": VALUES,
}
MINUTES = {"full": 1}  # on two cores
DATA = "handwritten digits (embedded), or DIR with a folder for each class, keras:cifar10, tfds:NAME"
__all__ = ["DATA", "DEFAULTS", "MINUTES", "compile", "datasets", "draw", "evaluate", "fit", "settings"]


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: cross entropy, SGD with momentum and weight decay (He et al., 2015, section 3.4).

    Nesterov's momentum is fb.resnet.torch's. Keras takes the decay from the weights themselves, beside the momentum; in
    the papers it is a part of the gradient, whose steps of .9, .81, ... add up to ten: 1e-3 is their 1e-4.
    """
    import keras

    from apps.recipes import _classifier

    chosen = optimizer(keras.optimizers.SGD, momentum=0.9, nesterov=True, weight_decay=1e-3)
    _classifier.compile(model, chosen, jit_compile)
