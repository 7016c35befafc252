"""A vector-quantised autoencoder of handwritten digits in greys, or of your own pictures, and its prior.

tfzoo train vq_vae --output RUN                 a minute on two cores: held-out PSNR >= 23.5 dB
tfzoo train vq_vae --size paper --data DIR --output RUN     your pictures, anywhere below DIR

A picture has 16 codes of 64. k-means of 2x2 patches, as many bits, has 22.6 dB; of whole pictures, 64 in all, 15.8 dB.
"""

from apps.recipes import _pictures

DEFAULTS = {
    "size": "digits",
    "data": "digits",
    "epochs": 30,
    "steps_per_epoch": 60,
    "batch_size": 64,
    "learning_rate": 2e-3,
}
MINUTES = {"full": 1}  # on two cores
DATA = "handwritten digits (embedded), or DIR with pictures anywhere below it, keras:cifar10, tfds:NAME"
draw = _pictures.draw


def datasets(data: str, image_shape: tuple[int, int, int], *, seed: int, codes: int, positions: int, **options):
    """Open the data as `_pictures.datasets` does, if there are as many vectors to quantise as codes.

    Args:
        data: What `--data` says.
        image_shape: `(H, W, 1 or 3)` in pixels, the model's.
        seed: Any integer from 0.
        codes: Vectors of the codebook.
        positions: Vectors of a picture.
        **options: Further arguments of `_pictures.datasets`.

    Returns:
        A `tfzoo.data.pipeline.Datasets` of float32 images `(B, H, W, C)`.

    Raises:
        ValueError: The size or the data cannot be used, or the codebook is larger than the data.
    """
    from tfzoo.data import open
    from tfzoo.vq_vae import refuse_few

    found = _pictures.datasets(data, image_shape, seed=seed, **options)
    if codes > positions:  # else one picture is enough
        refuse_few(codes, positions * len(open(data, "images", seed=seed, image_shape=image_shape).training))
    return found


def asks(model) -> dict:
    """Give the arguments of `datasets` that follow from a model: pictures stay greys or colours in [0, 1]."""
    rows, columns = model.prior.input_shape[1:]
    return {"likelihood": model.likelihood, "codes": model.codes, "positions": rows * columns}


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: the model's own loss, Adam."""
    import keras

    model.compile(optimizer=optimizer(keras.optimizers.Adam), jit_compile=jit_compile)


def evaluate(model, dataset) -> dict[str, float]:
    """Judge a model by what comes back of pictures, and by its prior.

    Args:
        model: A `tfzoo.vq_vae.VqVae`.
        dataset: Batches of images.

    Returns:
        `squared_error` of a pixel, `psnr` in dB of a largest pixel of 1, `perplexity` and `codes_in_use` over all the
        pictures' codes, and `prior_nats`, the prior's -log p of a picture's codes.
    """
    import numpy as np
    from keras import ops

    from tfzoo.quantisation.perplexity import perplexity
    from tfzoo.quantisation.prior import nats
    from tfzoo.variational.model import in_chunks

    images = np.concatenate([batch[0] for batch in dataset.as_numpy_iterator()])
    codes = model.encode(images)
    error = float(np.square(images - model.decode(codes)).mean(dtype="float64"))
    counts = np.bincount(codes.ravel(), minlength=model.codes)

    def each(given):
        given = ops.cast(given, "int32")
        return ops.sum(nats(model.prior(given, training=False), given), (1, 2))

    return {
        "squared_error": error,
        "psnr": float(-10 * np.log10(error)),
        "perplexity": float(perplexity(counts.astype("float32"))),
        "codes_in_use": float((counts > 0).sum()),
        "prior_nats": float(in_chunks(each, codes).mean()),
    }
