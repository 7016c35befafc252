"""What the recipes of all classifiers share: labelled pictures, cross entropy, a page of what is right and wrong."""

SMALL = 64  # pixels on a side, up to which a picture is shifted; of a larger one a window is cut
NAMED = 20  # classes, up to which the axes have their names
LARGE = 224  # pixels on a side of the windows
VALUES = (-1.0, 1.0)  # of black and white
SHARE = 0.875  # of a large picture's middle that is judged, 224 of 256 pixels


def settings(options: dict, smallest: int = 1, enlarged: int = 32) -> dict:
    """Give the builder's options that follow from the data.

    Args:
        options: The run's, its `data`, `seed` and `settings`.
        smallest: Pixels on a side that the network takes at least.
        enlarged: Pixels on a side that smaller pictures are enlarged to.

    Returns:
        `classes`, and `image_shape`: that of small pictures, and 224x224 of large ones.

    Raises:
        ValueError: The data cannot be used, or has more classes than were asked for.
    """
    from tfzoo.data import open

    source = open(options["data"], "classes", seed=options["seed"])
    classes, asked = len(source.classes), options["settings"].get("classes")
    if isinstance(asked, int) and asked < classes:
        raise ValueError(
            f"{options['data']} has {classes} classes. Accepted: --set classes={classes} or more. Received: {asked}"
        )
    height, width, channels = source.training[0][0].shape
    if max(height, width) > SMALL:
        size = (LARGE, LARGE)
    else:
        size = (height, width) if min(height, width) >= smallest else (enlarged, enlarged)
    return {"classes": classes, "image_shape": (*size, channels)}


def datasets(
    data: str, image_shape: tuple[int, int, int], *, batch_size: int, seed: int, start: int = 0, values=VALUES
):
    """Open the training, validation and held-out pictures.

    Small pictures are brought to the model's size, and for training shifted by an eighth of it; of large ones windows
    are cut, as Szegedy et al. (2015) do it, and their light and colours changed. Coloured ones are mirrored, too: grey
    ones may be of characters. Pictures that are new in every epoch are taken as they are.

    Args:
        data: What `--data` says; docs/data.md has all.
        image_shape: `(H, W, 1 or 3)` in pixels.
        batch_size: Pictures in a batch.
        seed: Any integer from 0; decides every random choice.
        start: The batch that the training data begins with.
        values: What black and white become.

    Returns:
        A `tfzoo.data.pipeline.Datasets` of float32 images `(B, H, W, C)` and class numbers `(B,)`.

    Raises:
        ValueError: The data cannot be used; names everything that is wrong.
    """
    from tfzoo.data import augmentation, open, pipeline

    *size, channels = image_shape
    source = open(data, "classes", seed=seed, image_shape=image_shape)
    small, new = max(source.training[0][0].shape[:2]) <= SMALL, hasattr(source.training, "at")

    def augment(key, image, label):
        image = augmentation.in_channels(image, channels)
        if new:
            return prepare(image, label)
        if small:
            image = augmentation.pad_and_crop(key, augmentation.resize(image, tuple(size)), max(min(size) // 8, 1))
        else:
            image = augmentation.jitter(key, augmentation.random_resized_crop(key, image, tuple(size)))
        return scaled(augmentation.flip(key, image) if channels == 3 else image, values), label

    def prepare(image, label):
        image = augmentation.in_channels(image, channels)
        cut = augmentation.resize(image, tuple(size)) if small else augmentation.centre_crop(image, tuple(size), SHARE)
        return scaled(cut, values), label

    return pipeline.datasets(source, batch_size=batch_size, seed=seed, start=start, augment=augment, prepare=prepare)


def scaled(image, values):
    """Give pixels in [0, 1] other values for black and white."""
    black, white = values
    return black + (white - black) * image


def shown(image, values):
    """Give pixels in [0, 1] back, as they are drawn."""
    import numpy as np

    black, white = values
    return np.clip((image - black) / (white - black), 0, 1)


def compile(model, optimizer, jit_compile: bool) -> None:
    """Compile a classifier for `fit`: cross entropy, the share of pictures that are right, and of those nearly so.

    Args:
        model: From images to logits `(B, classes)`.
        optimizer: A `keras.optimizers.Optimizer`.
        jit_compile: As `keras.Model.compile` has it.
    """
    import keras

    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=tops(model.output_shape[-1]),
        jit_compile=jit_compile,
    )


def tops(classes: int) -> list:
    """Top-1, and with more than five classes top-5."""
    from keras import metrics, ops

    def among_five(truth, scores):
        return metrics.sparse_top_k_categorical_accuracy(
            truth, ops.cast(scores, "float32"), 5
        )  # TensorFlow takes no half

    top5 = [metrics.MeanMetricWrapper(among_five, name="top5")] if classes > 5 else []
    return [metrics.SparseCategoricalAccuracy(name="top1"), *top5]


def evaluate(model, dataset) -> dict[str, float]:
    """Judge a classifier.

    Args:
        model: From images to logits `(B, classes)`.
        dataset: Batches of images and class numbers.

    Returns:
        `top1` and, of more than five classes, `top5`; `recall` and `precision`, their means over the classes; the
        negative log-likelihood `nll` in nats; the expected calibration error `calibration`; and `most_frequent`, the
        share of the most frequent class, which a constant answer reaches.

    Raises:
        ValueError: There is a class that the model does not know.
    """
    import numpy as np

    from tfzoo.metrics.calibration import CalibrationError
    from tfzoo.metrics.classification import ConfusionMatrix

    labels, scores, _ = judged(model, dataset)
    classes = scores.shape[-1]
    confusion, calibration = ConfusionMatrix(classes), CalibrationError(classes, from_logits=True)
    found = {}
    for metric in (*tops(classes), confusion, calibration):
        metric.update_state(labels, scores.astype("float32"))
        result = metric.result()
        found |= result if isinstance(result, dict) else {metric.name: result}
    return {
        **{name: float(found[name]) for name in ("top1", "top5") if name in found},
        "recall": float(found["confusion_recall"]),
        "precision": float(found["confusion_precision"]),
        "nll": float(-log_probabilities(scores)[np.arange(len(labels)), labels].mean()),
        "calibration": float(found["calibration_expected"]),
        "most_frequent": float(np.bincount(labels).max() / len(labels)),
    }


def judged(model, dataset, keep: bool = False):
    """Give the labels `(N,)`, logits `(N, classes)` and, if they are kept, the pictures of a data set."""
    import numpy as np

    from tfzoo.layers.classifier import logits

    labels, scores, images = [], [], []
    for some, truth in dataset.as_numpy_iterator():
        labels.append(logits(truth))  # the same for every head
        scores.append(np.asarray(logits(model.predict_on_batch(some)), "float64"))
        images += [some] if keep else []
    labels, scores = np.concatenate(labels), np.concatenate(scores)
    if labels.max() >= scores.shape[-1]:
        raise ValueError(
            f"the data has {labels.max() + 1} classes or more, the model {scores.shape[-1]}. Judge it on data of the "
            "classes that it was trained on"
        )
    return labels, scores, np.concatenate(images) if keep else None


def log_probabilities(scores):
    """Give the logarithms of the probabilities `(N, classes)` of logits."""
    from scipy.special import log_softmax

    return log_softmax(scores, axis=-1)


def draw(model, dataset, path, mistakes: int = 12, classes: tuple[str, ...] | None = None, values=VALUES) -> None:
    """Draw what is taken for what, how sure the model is and how right, and its worst mistakes.

    Args:
        model: From images to logits `(B, classes)`.
        dataset: Batches of images and class numbers.
        path: Where the PNG is written.
        mistakes: How many at most, from the surest one on.
        classes: Their names; None for their numbers.
        values: What black and white are in the images.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from tfzoo.metrics.calibration import CalibrationError
    from tfzoo.metrics.classification import ConfusionMatrix

    labels, scores, images = judged(model, dataset, keep=True)
    count = scores.shape[-1]
    names = [*(classes or ()), *map(str, range(len(classes or ()), count))]
    confusion, calibration = ConfusionMatrix(count), CalibrationError(count, from_logits=True)
    for metric in (confusion, calibration):
        metric.update_state(labels, scores)
    guesses, probabilities = scores.argmax(-1), np.exp(log_probabilities(scores))
    wrong = np.flatnonzero(guesses != labels)
    wrong = wrong[np.argsort(-probabilities[wrong, guesses[wrong]], kind="stable")][:mistakes]

    figure = Figure(figsize=(10, 4 + 1.9 * -(-len(wrong) // 6)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 1, height_ratios=(4, max(1.9 * -(-len(wrong) // 6), 0.01)))
    first, second = grid[0].subgridspec(1, 2).subplots()
    shares = confusion.matrix() / np.maximum(confusion.matrix().sum(1, keepdims=True), 1)
    figure.colorbar(first.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the row")
    first.set(xlabel="taken for class", ylabel="is of class", title=f"{len(labels)} pictures")
    if count <= NAMED:
        turn = 90 if max(map(len, names)) > 2 else 0
        first.set_xticks(range(count), names[:count], rotation=turn, parse_math=False)
        first.set_yticks(range(count), names[:count], parse_math=False)
    reliability = calibration.reliability()
    second.plot([0, 1], [0, 1], ":", color="grey")
    second.bar(reliability.confidence, reliability.accuracy, 0.8 / calibration.bins)
    expected = float(calibration.result()["calibration_expected"])
    second.set(xlabel="how sure", ylabel="how often right", xlim=(0, 1), ylim=(0, 1))
    second.set_title(f"calibration error {expected:.3f}")
    if len(wrong):
        cells = grid[1].subgridspec(-(-len(wrong) // 6), 6).subplots(squeeze=False).ravel()
        for cell in cells:
            cell.set_axis_off()
        for cell, i in zip(cells, wrong, strict=False):
            image = shown(images[i], values)
            cell.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
            told = f"{names[labels[i]]}, not {names[guesses[i]]} ({probabilities[i, guesses[i]]:.0%})"
            cell.set_title(told, fontsize=8, parse_math=False)  # a name may hold a $
    figure.savefig(path, dpi=80)
