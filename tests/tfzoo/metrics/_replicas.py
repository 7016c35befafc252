"""Every metric on one device and on two mirrored replicas of one process: `_replicas.py RESULTS.npz`."""

import sys

import keras
import numpy as np
import tensorflow as tf

from tfzoo.metrics.calibration import BrierScore, CalibrationError
from tfzoo.metrics.classification import ConfusionMatrix
from tfzoo.metrics.feature_distance import FrechetDistance, KernelDistance
from tfzoo.metrics.features import Features
from tfzoo.metrics.image_quality import PSNR, SSIM
from tfzoo.metrics.likelihood import BitsPerDimension, NegativeLogLikelihood
from tfzoo.metrics.overlap import Dice, IoU
from tfzoo.metrics.precision_recall import PrecisionRecall
from tfzoo.training.distributed_fit import repaired

ROWS, BATCH = 33, 8  # the last batch has one row, so a replica has none
RNG = np.random.default_rng(9)
SCORES = RNG.uniform(size=(ROWS, 6, 7, 3)).astype("float32")
REAL = RNG.uniform(size=(ROWS, 12, 13, 2)).astype("float32")
DATA = {
    "labels": RNG.integers(0, 3, (ROWS, 6, 7)),
    "probabilities": SCORES / SCORES.sum(-1, keepdims=True),
    "real": REAL,
    "made": np.clip(REAL * 0.8 + RNG.normal(0, 0.1, REAL.shape), 0, 1).astype("float32"),
    "likelihoods": RNG.normal(-100, 20, ROWS),
    "weights": RNG.uniform(0, 2, ROWS),
}
LABELLED, PAIRS, LIKELIHOODS = ("labels", "probabilities"), ("real", "made"), ("likelihoods",)


def metrics():
    """Make the metrics: with the names of what each is given, and whether it is given weights."""
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 13, 2))
    x = keras.layers.Conv2D(6, 5, 3, activation="tanh", name="maps")(image)
    features = Features(keras.Model(image, keras.layers.Dense(3)(x), name="judge"), "maps")
    room = ROWS + BATCH
    subsets = KernelDistance(features, room, subsets=3, subset_size=10, name="subsets")
    return [
        *((metric, LABELLED, True) for metric in (IoU(3), Dice(3), ConfusionMatrix(3), BrierScore(3))),
        *((metric, LABELLED, False) for metric in (CalibrationError(3, bins=5), Dice(3, name="plain_dice"))),
        *((metric, PAIRS, True) for metric in (PSNR(1), SSIM(1))),
        *((metric, LIKELIHOODS, True) for metric in (NegativeLogLikelihood(), BitsPerDimension(7, 256))),
        *((metric, PAIRS, False) for metric in (FrechetDistance(features), KernelDistance(features, room), subsets)),
        (PrecisionRecall(features, room, neighbours=1), PAIRS, False),
    ]


def results_of(metric):
    """Give the result as numbers by name."""
    result = metric.result()
    return {k: float(v) for k, v in (result if isinstance(result, dict) else {metric.name: result}).items()}


def measure(strategy):
    """Give all results of two passes, with `reset_state` in between, the second without the first batch."""
    with strategy.scope():
        made = metrics()
    data = tf.data.Dataset.from_tensor_slices(DATA).batch(BATCH)

    def update(batch):
        for metric, names, weighted in made:
            options = {"sample_weight": batch["weights"]} if weighted else {}
            metric.update_state(*(batch[name] for name in names), **options)

    @tf.function
    def step(batch):
        strategy.run(update, (batch,))

    found = {}
    for skipped in (0, 1):
        for metric, *_ in made:
            metric.reset_state()
        for batch in strategy.experimental_distribute_dataset(data.skip(skipped)):
            step(batch)
        for metric, *_ in made:
            found |= {f"{name}_{skipped}": value for name, value in results_of(metric).items()}
    return found


def fit(strategy):
    """Give the history of a fit with metrics that are cheap enough for one, of a model without convolutions.

    A replica's gradient of a convolution of no pictures fails on a CPU (TensorFlow 2.21).
    """
    keras.utils.set_random_seed(2)
    with strategy.scope():
        image = keras.Input((12, 13, 2))
        model = keras.Model(image, keras.layers.Dense(3)(image)[:, :6, :7])
        logits = {"from_logits": True}
        model.compile(
            keras.optimizers.SGD(0.1),
            keras.losses.SparseCategoricalCrossentropy(**logits),
            metrics=[Dice(3), ConfusionMatrix(3), "accuracy"],
            weighted_metrics=[CalibrationError(3, **logits), Dice(3, name="weighted_dice")],
        )
    weights = np.broadcast_to(DATA["weights"][:, None, None], DATA["labels"].shape)  # Keras' loss wants one each
    data = tf.data.Dataset.from_tensor_slices((REAL, DATA["labels"], weights)).batch(BATCH)
    with repaired(model):
        history = model.fit(data, epochs=2, shuffle=False, verbose=0, validation_data=data.skip(3)).history
    return {f"fit_{name}": values for name, values in history.items()}


def main(path):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    ways = {"one": tf.distribute.get_strategy(), "mirrored": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
    results = {}
    for way, strategy in ways.items():
        results |= {f"{way}:{name}": value for name, value in (measure(strategy) | fit(strategy)).items()}
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
