"""A normalizing flow on handwritten digits, or on your own pictures.

    tfzoo train normalizing_flow --output RUN       a minute on two cores: held-out log-likelihood >= 68.0 nats
    tfzoo train normalizing_flow --size realnvp --output RUN
    tfzoo train normalizing_flow --set "shape=(16, 16, 3)" --set levels=256 --data DIR      your pictures

A flow is a density over numbers, and greys are steps: every grey k of n becomes (k + u) / (n - 1), of u uniform in
[0, 1) and another in every epoch (Theis et al., 2016, https://arxiv.org/abs/1511.01844). What is judged has the same u
every time. On the same 360 held-out digits probabilistic PCA of 32 components has 32.7 nats.
"""

DEFAULTS = {
    "size": "digits",
    "data": "digits",
    "epochs": 10,
    "steps_per_epoch": 240,
    "batch_size": 64,
    "learning_rate": 1e-3,
}
MINUTES = {"full": 1}  # on two cores
DATA = "handwritten digits (embedded), or DIR with pictures anywhere below it, keras:mnist, tfds:NAME"


def asks(model) -> dict:
    """Give the arguments of `datasets` that follow from a model: how many greys its pictures have."""
    return {"levels": model.levels}


def datasets(data: str, image_shape: tuple[int, ...], *, batch_size: int, seed: int, start: int = 0, levels: int):
    """Open the training, validation and held-out pictures, brought to the model's size and with noise.

    Args:
        data: What `--data` says; docs/data.md has all.
        image_shape: `(H, W, 1 or 3)` in pixels, the model's.
        batch_size: Pictures in a batch.
        seed: Any integer from 0; decides every random choice.
        start: The batch that the training data begins with.
        levels: Greys.

    Returns:
        A `tfzoo.data.pipeline.Datasets` of float32 images `(B, H, W, C)` in [0, levels / (levels - 1)).

    Raises:
        ValueError: The size or the data cannot be used.
    """
    import tensorflow as tf

    from tfzoo.data import augmentation, open, pipeline
    from tfzoo.export.pictures import fitted, grey_or_rgb

    if len(image_shape) != 3 or image_shape[2] not in (1, 3):
        raise ValueError(
            f"pictures are grey or coloured: shape must be (height, width, 1 or 3). Received: shape={image_shape}"
        )
    *size, channels = image_shape
    source = open(data, "images", seed=seed, image_shape=image_shape)

    def greys(image):
        pixels = fitted(tf.cast(grey_or_rgb(image, channels), tf.float32), tuple(size), "stretch")
        return tf.round(pixels / 255 * (levels - 1))

    def noisy(key, image):
        grey = greys(image)
        return ((grey + augmentation.uniform(key, "dequantisation", shape=tuple(image_shape))) / (levels - 1),)

    def judged(image):
        # the noise of a picture follows from its greys, so it is the same whenever and among whatever it is judged
        places = augmentation.bits(tf.constant(0, tf.uint64), tuple(image_shape))
        return noisy(tf.reduce_sum(augmentation.mixed(places + tf.cast(greys(image), tf.uint64))), image)

    return pipeline.datasets(source, batch_size=batch_size, seed=seed, start=start, augment=noisy, prepare=judged)


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile for `fit`: the model's own likelihood, Adam."""
    import keras

    model.compile(optimizer=optimizer(keras.optimizers.Adam), jit_compile=jit_compile)


def evaluate(model, dataset) -> dict[str, float]:
    """Judge a model by the log-likelihood of pictures with noise.

    Args:
        model: A `tfzoo.normalizing_flow.NormalizingFlow`.
        dataset: Batches of images.

    Returns:
        `log_likelihood` in nats, of the density; `bits_per_dimension` of the greys, which the density bounds from
        above; and `inverse_error`, by how much the first hundred pictures come back changed.
    """
    import math

    import numpy as np

    images = np.concatenate([batch[0] for batch in dataset.as_numpy_iterator()])
    nats, size = float(model.log_prob(images).mean()), math.prod(images.shape[1:])
    some = images[:100]
    back = model.inverse(np.asarray(model.flow(some, training=False)["latent"]))
    return {
        "log_likelihood": nats,
        "bits_per_dimension": (math.log(model.levels - 1) - nats / size) / math.log(2),
        "inverse_error": float(np.abs(back - some).max()),
    }


def draw(model, dataset, path, columns: int = 12) -> None:
    """Draw pictures, and below them samples.

    Args:
        model: With `sample`.
        dataset: Batches of images; the first pictures are drawn.
        path: Where the PNG is written.
        columns: How many.
    """
    import numpy as np

    from apps import sheets

    images = next(dataset.unbatch().batch(columns).as_numpy_iterator())[0]
    sheets.tiles(np.concatenate([images, model.sample(2 * len(images))]), len(images)).save(path, "PNG")
