"""What the recipes of models that learn from pictures alone share."""

import dataclasses

# What becomes of pictures in [0, 1], by the decoder's kind, as the line that describes the data says it.
BECOME = {
    "bernoulli": ", cut at half of white to black and white",
    "gaussian": "",
    "discretised_logistic": ", rounded to {levels} levels",
}


def datasets(data: str, image_shape: tuple[int, int, int], *, batch_size: int, seed: int, start: int = 0, likelihood):
    """Open the training, validation and held-out pictures, brought to the model's size and to what it can give.

    Args:
        data: What `--data` says; docs/data.md has all.
        image_shape: `(H, W, 1 or 3)` in pixels, the model's.
        batch_size: Pictures in a batch.
        seed: Any integer from 0; decides every random choice.
        start: The batch that the training data begins with.
        likelihood: A `tfzoo.variational.likelihood.Likelihood`, which binarises, rounds or leaves pictures in [0, 1].

    Returns:
        A `tfzoo.data.pipeline.Datasets` of float32 images `(B, H, W, C)`; its description says what they become.

    Raises:
        ValueError: The size or the data cannot be used.
    """
    import tensorflow as tf

    from tfzoo.data import open, pipeline
    from tfzoo.export.pictures import fitted, grey_or_rgb

    *size, channels = image_shape
    if channels not in (1, 3):
        raise ValueError(
            f"pictures are grey or coloured: image_shape must be (height, width, 1 or 3). Received: {image_shape}"
        )
    source = open(data, "images", seed=seed, image_shape=image_shape)

    def prepare(image):
        pixels = tf.cast(grey_or_rgb(image, channels), tf.float32)
        return (likelihood.prepared(fitted(pixels, tuple(size), "stretch") / 255),)

    become = BECOME[likelihood.kind].format(levels=likelihood.levels)
    return pipeline.datasets(
        dataclasses.replace(source, description=source.description + become),
        batch_size=batch_size,
        seed=seed,
        start=start,
        augment=lambda key, image: prepare(image),
        prepare=prepare,
    )


def draw(model, dataset, path, columns: int = 12) -> None:
    """Draw pictures, below each what comes back of it, and samples.

    Args:
        model: With `reconstruct` and `sample`.
        dataset: Batches of images; the first pictures are drawn.
        path: Where the PNG is written.
        columns: How many.
    """
    import numpy as np

    from apps import sheets

    images = next(dataset.unbatch().batch(columns).as_numpy_iterator())[0]
    rows = [images, model.reconstruct(images), model.sample(2 * len(images))]
    sheets.tiles(np.concatenate(rows), len(images)).save(path, "PNG")
