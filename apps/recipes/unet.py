"""U-Net on handwritten digits pasted on photographs, or on your own images and masks.

    tfzoo demo                              3 to 4 minutes of training on two cores: held-out IoU >= .80
    tfzoo train unet --output RUN           about a quarter of an hour: held-out IoU >= .92
    tfzoo train unet --data DIR --output RUN    your pictures: DIR/images/* and DIR/masks/*

On the same 256 held-out pictures Otsu's threshold reaches .22 and calling everything foreground .10.
"""

DEFAULTS = {
    "size": "default",
    "data": "pasted_digits",
    "epochs": 12,
    "steps_per_epoch": 250,
    "batch_size": 8,
    "learning_rate": 2e-3,
}
DEMO = {**DEFAULTS, "epochs": 10, "steps_per_epoch": 100}
MINUTES = {"demo": 4, "full": 14}  # on two cores
DATA = (
    "handwritten digits pasted on photographs (embedded), or DIR with images/ and masks/, tfds:NAME,foreground=NUMBER"
)
PICTURES = {"validation": 128, "held_out": 256}


def datasets(data: str, image_shape: tuple[int, int, int], *, batch_size: int, seed: int, start: int = 0):
    """Open the training, validation and held-out pictures.

    Args:
        data: What `--data` says, such as "pasted_digits" or a folder with `images/` and `masks/`; docs/data.md has all.
        image_shape: `(H, W, 3)` in pixels.
        batch_size: Pictures in a batch.
        seed: Any integer from 0; decides every random choice.
        start: The batch that the training data begins with; a run that goes on begins where it stopped.

    Returns:
        A `tfzoo.data.pipeline.Datasets` of float32 images `(B, H, W, 3)` in [0, 1] and masks `(B, H, W, 1)`.

    Raises:
        ValueError: The image shape or the data cannot be used; names everything that is wrong.
    """
    from tfzoo.data import open, pipeline

    source = open(data, "masks", seed=seed, image_shape=image_shape, pictures=PICTURES)
    return pipeline.datasets(source, batch_size=batch_size, seed=seed, start=start)


def settings(options: dict) -> dict:
    """Give the options that follow from the data, none; raises a ValueError for those that are not trained."""
    check(options["settings"].get("classes", 1))
    return {}


def check(classes: int) -> None:
    """Refuse masks of several classes."""
    if classes != 1:
        raise ValueError(
            f"the U-Net's recipe trains binary masks, so the model must have classes=1. Received: classes={classes}"
        )


def compile(model, *, optimizer, jit_compile: bool) -> None:
    """Compile a U-Net of one class for `fit`: Dice plus cross entropy, Adam, IoU and Dice of the foreground.

    Args:
        model: From images to logits `(B, H, W, 1)`.
        optimizer: Makes one of a class and its arguments, with the run's schedule and clipping.
        jit_compile: As `keras.Model.compile` has it.

    Raises:
        ValueError: The model has more than one class.
    """
    import keras

    from tfzoo.metrics.overlap import Dice, IoU

    check(model.output_shape[-1])
    model.compile(
        optimizer=optimizer(keras.optimizers.Adam),
        loss=dice_and_cross_entropy,
        metrics=[IoU(threshold=0.0), Dice(threshold=0.0)],
        jit_compile=jit_compile,
    )


def dice_and_cross_entropy(mask, logits):
    """Add each picture's soft Dice loss (Milletari et al., 2016) to its mean cross entropy: `(B, H, W, 1)` to `(B,)`.

    By picture, not by batch, so that it does not matter how many devices share a batch.
    """
    from keras import losses, ops

    dice = losses.dice(mask, ops.sigmoid(logits), axis=(1, 2, 3))
    return dice + ops.mean(losses.binary_crossentropy(mask, logits, from_logits=True), axis=(1, 2))


def evaluate(model, dataset) -> dict[str, float]:
    """Pool every pixel of a dataset into the model's scores and those of two baselines.

    Args:
        model: From images to logits `(B, H, W, 1)`.
        dataset: Batches of images `(B, H, W, 3)` and masks `(B, H, W, 1)`.

    Returns:
        `iou` and `dice` of the model, `otsu_iou` of Otsu's threshold on the grey picture, the rarer side
        taken as foreground (Otsu, 1979), and `all_foreground_iou`; each of the foreground, in [0, 1].
    """
    import numpy as np

    from tfzoo.metrics.overlap import Dice, IoU

    iou, dice = IoU(threshold=0.0), Dice(threshold=0.0)
    baselines = {"otsu_iou": IoU(), "all_foreground_iou": IoU()}
    for images, masks in dataset.as_numpy_iterator():
        logits = model.predict_on_batch(images)
        iou.update_state(masks, logits)
        dice.update_state(masks, logits)
        baselines["otsu_iou"].update_state(masks, np.stack([otsu(image) for image in images]).astype("float32"))
        baselines["all_foreground_iou"].update_state(masks, np.ones_like(masks))
    return {name: float(metric.result()) for name, metric in {"iou": iou, "dice": dice, **baselines}.items()}


def otsu(image):
    """Split a picture `(H, W, 3)` at Otsu's threshold; the rarer side is the foreground, `(H, W, 1)` bool."""
    from skimage.filters import threshold_otsu

    grey = image.mean(-1, keepdims=True)
    bright = grey > threshold_otsu(grey)
    return bright if bright.mean() < 0.5 else ~bright


def draw(model, dataset, path, rows: int = 4) -> None:
    """Draw pictures, one a row: image, true mask, predicted probability, Otsu.

    Args:
        model: From images to logits `(B, H, W, 1)`.
        dataset: Batches of images `(B, H, W, 3)` and masks `(B, H, W, 1)`; the first pictures are drawn.
        path: Where the PNG is written.
        rows: How many pictures.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    images, masks = next(dataset.unbatch().batch(rows).as_numpy_iterator())
    probabilities = 1 / (1 + np.exp(-model.predict_on_batch(images)))
    columns = {
        "picture": images,  # of the validation or held out: whoever calls says
        "true mask": masks,
        "U-Net, probability": probabilities,
        "Otsu's threshold": [otsu(image) for image in images],
    }
    figure = Figure(figsize=(8, 2 * len(images)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    for j, (title, pictures) in enumerate(columns.items()):
        axes[0, j].set_title(title)
        for i, shown in enumerate(pictures):
            axes[i, j].imshow(shown, cmap="gray", vmin=0, vmax=1)
            axes[i, j].set_axis_off()
    figure.savefig(path, dpi=80)
