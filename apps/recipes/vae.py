"""A variational autoencoder on handwritten digits, or on your own pictures.

    tfzoo train vae --output RUN                    a minute on two cores: held-out ELBO >= -18.3 nats
    tfzoo train vae --size cvae_mnist --data keras:mnist --epochs 10 --steps-per-epoch 1875 --batch-size 32
    tfzoo train vae --size beta_64 --set beta=4 --set "likelihood='gaussian'" --data DIR --output RUN
                                                    your pictures, anywhere below DIR, in greys
    tfzoo train vae --size linear --epochs 80 --steps-per-epoch 250 --batch-size 1257
                                                    in greys, all digits at once: their ELBO >= 14.493 nats
    tfzoo evaluate RUN                              ten seconds: bounds, and what one encoder for all pictures costs:
                                                    an amortisation_gap of .4 to .5 nats

A Bernoulli decoder, the default, is of black and white: pictures, the digits too, are cut at half of white. On the same
360 held-out digits independent pixels have -25.2 nats and a mixture of 50 such -18.1.
"""

import math

import numpy as np

from apps.recipes import _pictures

DEFAULTS = {
    "size": "digits",
    "data": "digits",
    "epochs": 160,
    "steps_per_epoch": 60,
    "batch_size": 64,
    "learning_rate": 2e-3,
}
MINUTES = {"full": 1}  # on two cores
DATA = "handwritten digits (embedded), or DIR with pictures anywhere below it, keras:mnist, tfds:NAME"
SAMPLES = 500  # of the importance-weighted bound, as the published ones have it
FITTED = 360  # pictures that a posterior is fitted to, for the gaps: all held-out digits, the first of more
datasets, draw = _pictures.datasets, _pictures.draw


def asks(model) -> dict:
    """Give the arguments of `datasets` that follow from a model: pictures are what its decoder can give."""
    return {"likelihood": model.likelihood}


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: the model's own objective, Adam."""
    import keras

    model.compile(optimizer=optimizer(keras.optimizers.Adam), jit_compile=jit_compile)


def evaluate(model, dataset, samples: int = SAMPLES) -> dict[str, float]:
    """Judge a model by bounds on the log-likelihood of pictures, and its encoder by the best posterior of each.

    Args:
        model: A `tfzoo.vae.Vae`.
        dataset: Batches of images.
        samples: Of the latent, for each picture.

    Returns:
        What `bounded` gives, and of the first `FITTED` pictures `per_example_elbo`, by the best posterior of each,
        `amortisation_gap`, by how much that is above the encoder's, and `approximation_gap`, by how much the
        log-likelihood is above it.
    """
    from tfzoo.variational.per_example import per_example

    found = bounded(model, dataset, samples)
    images = np.concatenate([batch[0] for batch in dataset.as_numpy_iterator()])
    fitted = per_example(model, images[:FITTED], samples)
    best = float(fitted.per_example.elbo.mean())
    return {
        **found,
        "per_example_elbo": best,
        "amortisation_gap": best - float(fitted.amortised.elbo.mean()),
        "approximation_gap": float(fitted.per_example.importance_weighted.mean()) - best,
    }


def bounded(model, dataset, samples: int = SAMPLES) -> dict[str, float]:
    """Judge a `tfzoo.variational.model.Autoencoder` by bounds on the log-likelihood of batches of images.

    Returns:
        `elbo` and `importance_weighted` in nats, `active_latents`, and of a decoder over values that can be counted
        `bits_per_dimension`: of a density there are none without a step between values.
    """
    from tfzoo.variational.bounds import active, bounds

    images = np.concatenate([batch[0] for batch in dataset.as_numpy_iterator()])
    found = bounds(model, images, samples)
    nats = float(found.importance_weighted.mean())
    return {
        "elbo": float(found.elbo.mean()),
        "importance_weighted": nats,
        **({} if model.likelihood.kind == "gaussian" else {"bits_per_dimension": bits(nats, images)}),
        "active_latents": float(active(model, images)),
    }


def bits(nats: float, images: np.ndarray) -> float:
    """Give the bits that each number of a picture takes by a log-likelihood in nats."""
    return -nats / math.prod(images.shape[1:]) / math.log(2)
