"""What the recipes of all classifiers share: labelled pictures, cross entropy, a page of what is right and wrong."""

SMALL = 80  # pixels on a side, up to which pictures are small: these are shifted, of larger ones windows are cut
LOOKED_AT = 1000  # pictures of each part, about, whose sizes decide the network's
NAMED = 20  # classes, up to which the axes have their names
LARGE = 224  # pixels on a side of the windows
VALUES = (-1.0, 1.0)  # of black and white
MIXES = ("none", "mixup", "cutmix")  # of `tfzoo.data.augmentation`


def settings(options: dict, smallest: int = 1, enlarged: int = 32, multiple: int = 1) -> dict:
    """Give the builder's options that follow from the data.

    Args:
        options: The run's, its `data` and `settings`; the seed decides nothing here.
        smallest: Pixels on a side that the network takes at least.
        enlarged: Pixels on a side that smaller pictures are enlarged to.
        multiple: What height and width are rounded up to a multiple of.

    Returns:
        `classes`, and `image_shape`: of small pictures that of the largest, and 224x224 where any is large.

    Raises:
        ValueError: The data cannot be used, or has more classes than were asked for.
    """
    from tfzoo.data import open

    source = open(options["data"], "classes", seed=0)
    classes, asked = len(source.classes), options["settings"].get("classes")
    if isinstance(asked, int) and asked < classes:
        raise ValueError(
            f"{options['data']} has {classes} classes. Accepted: --set classes={classes} or more. Received: {asked}"
        )
    height, width, channels = largest(source)
    if max(height, width) > SMALL:
        size = (LARGE, LARGE)
    else:
        size = (height, width) if min(height, width) >= smallest else (enlarged, enlarged)
    return {"classes": classes, "image_shape": (*(-(-n // multiple) * multiple for n in size), channels)}


def largest(source) -> tuple[int, int, int]:
    """Give the largest height and width of a source's pictures, and their channels; the first large one ends it."""
    height, width, channels = source.training[0][0].shape
    if getattr(source.training, "fixed", False):
        return height, width, channels
    for part in (source.training, source.validation, source.held_out):
        for i in range(0, len(part), -(-len(part) // LOOKED_AT)):
            if max(height, width) > SMALL:
                return height, width, channels
            height, width = max(height, part[i][0].shape[0]), max(width, part[i][0].shape[1])
    return height, width, channels


def fit(size: tuple[int, int]) -> str:
    """Say how a model of `(H, W)` pixels is shown a picture that it judges, as `tfzoo.export.pictures.fitted` has it.

    A small model is shown the whole picture, a large one the middle of it, as photographs are commonly judged.
    """
    return "stretch" if max(size) <= SMALL else "middle"


def datasets(
    data: str,
    image_shape: tuple[int, int, int],
    *,
    batch_size: int,
    seed: int,
    start: int = 0,
    mix: str = "none",
    values=VALUES,
):
    """Open the training, validation and held-out pictures.

    For a small model pictures are brought to its size, and for training shifted by an eighth of it; for a large one
    windows are cut, as Szegedy et al. (2015) do it, and their light and colours changed. Coloured ones
    are mirrored half of the time, for both. Grey ones, in one channel or in three, are not: they may be of characters.
    Pictures that are new in every epoch are taken as they are. What is judged is fitted by `fit`, as what is served and
    explained.

    Args:
        data: What `--data` says; docs/data.md has all.
        image_shape: `(H, W, 1 or 3)` in pixels, the model's.
        batch_size: Pictures in a batch.
        seed: Any integer from 0; decides every random choice.
        start: The batch that the training data begins with.
        mix: Of `MIXES`: how each training picture is mixed with another, the labels with it.
        values: What black and white become, as `tfzoo.data.black_and_white` has them.

    Returns:
        A `tfzoo.data.pipeline.Datasets` of float32 images `(B, H, W, C)` and class numbers `(B,)`, or, where they are
        mixed, shares of the classes `(B, classes)`, float32.

    Raises:
        ValueError: The size, the data or an option cannot be used; names everything that is wrong.
    """
    import tensorflow as tf

    from tfzoo.data import augmentation, open, pipeline
    from tfzoo.data.black_and_white import scaled, wrong
    from tfzoo.export.pictures import fitted, grey_or_rgb
    from tfzoo.layers.arguments import is_positive

    if len(image_shape) != 3 or not all(map(is_positive, image_shape)) or image_shape[2] not in (1, 3):
        raise ValueError(
            "a classifier's pictures are all brought to its one size: image_shape must be (height, width, 1 or 3). "
            f"Received: image_shape={tuple(image_shape)}. Build it with --set 'image_shape=(224,224,3)' or the like"
        )
    if said := wrong(values, image_shape[2]):
        raise ValueError(said)
    if mix not in MIXES:
        raise ValueError(f"--mix must be one of {', '.join(MIXES)}. Received: {mix}")
    *size, channels = image_shape
    source = open(data, "classes", seed=seed, image_shape=image_shape)
    chosen, new = fit(size), hasattr(source.training, "at")

    def augment(key, image, label):
        if new:
            return prepare(image, label)
        image = augmentation.in_channels(image, channels)
        colours = channels == 3 and augmentation.coloured(image)  # of what was read: rounding may make some
        if chosen == "stretch":
            image = augmentation.pad_and_crop(key, augmentation.resize(image, tuple(size)), max(min(size) // 8, 1))
        else:
            image = augmentation.jitter(key, augmentation.random_resized_crop(key, image, tuple(size)))
        return scaled(tf.where(colours, augmentation.flip(key, image), image), values), label

    def prepare(image, label):
        return scaled(fitted(grey_or_rgb(image, channels), tuple(size), chosen) / 255, values), label

    def with_shares(key, image, label):
        image, label = augment(key, image, label)
        return image, tf.one_hot(label, len(source.classes))

    mixed = {} if mix == "none" else {"augment": with_shares, "mix": getattr(augmentation, mix)}
    how = {"augment": augment, "prepare": prepare} | mixed
    return pipeline.datasets(source, batch_size=batch_size, seed=seed, start=start, **how)


def compile(model, optimizer, jit_compile: bool) -> None:
    """Compile a classifier for `fit`: cross entropy, the share of pictures that are right, and of those nearly so.

    Args:
        model: From images to logits `(B, classes)`.
        optimizer: A `keras.optimizers.Optimizer`.
        jit_compile: As `keras.Model.compile` has it.

    Raises:
        ValueError: The model is no classifier of pictures.
    """
    from tfzoo.layers.classifier import image_shape

    image_shape(model)
    model.compile(
        optimizer=optimizer,
        loss=cross_entropy,
        metrics=tops(model.output_shape[-1]),
        jit_compile=jit_compile,
    )


def cross_entropy(truth, logits):
    """Give the cross entropy `(B,)` of logits `(B, classes)`.

    Args:
        truth: Class numbers `(B,)`, or of mixed pictures shares of the first classes `(B, n)`.
        logits: Before the softmax.
    """
    from keras import losses, ops

    if len(truth.shape) == 1:
        return losses.sparse_categorical_crossentropy(truth, logits, from_logits=True)
    truth = ops.pad(truth, [(0, 0), (0, logits.shape[-1] - truth.shape[-1])])  # a model may know more than the data has
    return losses.categorical_crossentropy(truth, logits, from_logits=True)


def tops(classes: int) -> list:
    """Top-1, and with more than five classes top-5; of mixed pictures the largest share counts."""
    from keras import metrics, ops

    def numbers(truth):
        return ops.argmax(truth, -1) if len(truth.shape) == 2 else truth

    # In float32: Keras gives class numbers the scores' type, and bfloat16 knows them to 256; TensorFlow takes no half.
    def first(truth, scores):
        return metrics.sparse_categorical_accuracy(numbers(truth), ops.cast(scores, "float32"))

    def among_five(truth, scores):
        return metrics.sparse_top_k_categorical_accuracy(numbers(truth), ops.cast(scores, "float32"), 5)

    wanted = {"top1": first, "top5": among_five} if classes > 5 else {"top1": first}
    return [metrics.MeanMetricWrapper(function, name=name) for name, function in wanted.items()]


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
        ValueError: The model is no classifier of pictures, or there is a class that it does not know.
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


def judged(model, dataset, most: int = 0):
    """Let a model judge a data set, of which no more is kept than this.

    Args:
        model: From images to logits `(B, classes)`.
        dataset: Batches of images and class numbers.
        most: How many mistakes are kept, from the surest one on.

    Returns:
        Labels `(N,)`, logits `(N, classes)`, and of the mistakes the pictures, labels and logits.
    """
    import numpy as np

    from tfzoo.layers.classifier import image_shape, logits

    image_shape(model)
    labels, scores, mistakes = [], [], None
    for images, truth in dataset.as_numpy_iterator():
        labels.append(logits(truth))  # the same for every head
        scores.append(np.asarray(logits(model.predict_on_batch(images)), "float64"))
        batch = (images, labels[-1], scores[-1])
        joined = [np.concatenate(parts) for parts in zip(mistakes, batch, strict=True)] if mistakes else batch
        rows = surest_mistakes(*joined[1:], most)
        mistakes = [part[rows] for part in joined]
    labels, scores = np.concatenate(labels), np.concatenate(scores)
    if labels.min() < 0:
        raise ValueError(f"labels are numbers of classes, from 0. Received: {labels.min()}. Judge it on other data")
    if labels.max() >= scores.shape[-1]:
        raise ValueError(
            f"the data has {labels.max() + 1} classes or more, the model {scores.shape[-1]}. Judge it on data of the "
            "classes that it was trained on"
        )
    return labels, scores, mistakes


def surest_mistakes(labels, scores, most: int):
    """Give the places of the mistakes among labels `(N,)` and logits `(N, classes)`, the surest first."""
    import numpy as np

    guesses = scores.argmax(-1)
    wrong = np.flatnonzero(guesses != labels)
    sure = log_probabilities(scores)[wrong, guesses[wrong]]
    return wrong[np.argsort(-sure, kind="stable")][:most]


def taken_for(labels, scores):
    """Give the shares `(classes, classes)` of each class, a row, that are taken for each class, a column."""
    import numpy as np

    from tfzoo.metrics.classification import ConfusionMatrix

    confusion = ConfusionMatrix(scores.shape[-1])
    confusion.update_state(labels, scores)
    counts = confusion.matrix()
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


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

    from tfzoo.data.black_and_white import shown
    from tfzoo.metrics.calibration import CalibrationError

    labels, scores, (images, truths, wrong) = judged(model, dataset, mistakes)
    count = scores.shape[-1]
    names = [*(classes or ()), *map(str, range(len(classes or ()), count))]
    calibration = CalibrationError(count, from_logits=True)
    calibration.update_state(labels, scores)

    figure = Figure(figsize=(10, 4 + 1.9 * -(-len(wrong) // 6)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 1, height_ratios=(4, max(1.9 * -(-len(wrong) // 6), 0.01)))
    first, second = grid[0].subgridspec(1, 2).subplots()
    drawn = first.imshow(taken_for(labels, scores), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, label="share of the row")
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
        guesses, sure = wrong.argmax(-1), np.exp(log_probabilities(wrong).max(-1))
        for cell, image, truth, guess, share in zip(cells, images, truths, guesses, sure, strict=False):
            image = shown(image, values)
            cell.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
            told = f"{names[truth]}, not {names[guess]} ({share:.0%})"
            cell.set_title(told, fontsize=8, parse_math=False)  # a name may hold a $
    figure.savefig(path, dpi=80)
