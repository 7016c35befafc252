"""One process of `training.py`: trains the U-Net on batches of its own, and says how long a step takes.

    _worker.py CORE STEPS RESULT.json

Alone without `TF_CONFIG`; with it, one of several workers, each with the same number of pictures in a step.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[int(sys.argv[1])]})  # first: TensorFlow counts the cores

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import _measure  # noqa: E402, F401  first: it quietens TensorFlow
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import tfzoo  # noqa: E402
from apps.recipes import unet as recipe  # noqa: E402
from apps.train import shared  # noqa: E402
from tfzoo.training.distributed_fit import repaired  # noqa: E402
from tfzoo.training.strategy import choose  # noqa: E402

OWN = 8  # pictures in a worker's step
WARM_UP = 5


class Clock(keras.callbacks.Callback):
    """Note when every step ends, and what had gone over the loopback by then."""

    def __init__(self):
        super().__init__()
        self.times, self.sent = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())
        self.sent.append(loopback())


def loopback() -> int:
    """Give the bytes sent over the loopback interface since the machine started."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[9])


def sums(strategy, parameters: list, times: int = 30) -> float:
    """Time the sum of gradients alone: the median of so many, in seconds."""
    shapes = [parameter.shape for parameter in parameters]

    def add():
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, [tf.ones(shape) for shape in shapes])

    @tf.function
    def run():
        return tf.reduce_sum(strategy.experimental_local_results(strategy.run(add)[0])[0])

    taken = []
    for _ in range(times + WARM_UP):
        start = time.perf_counter()
        run().numpy()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[WARM_UP:])


def main(core: str, steps: str, result: str) -> None:
    """Train so many steps after a warm-up, and write the medians."""
    strategy = choose("auto")
    workers = strategy.num_replicas_in_sync
    with strategy.scope():
        model = tfzoo.build("unet")
        recipe.compile(model, optimizer=lambda kind: kind(1e-4), jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.random((OWN * workers, *model.input_shape[1:]), "float32")
    y = (rng.random((*x.shape[:3], 1)) < 0.1).astype("float32")
    data = shared(tf.data.Dataset.from_tensors((x, y)).cache().repeat())
    clock = Clock()
    with repaired(model):
        model.fit(data, steps_per_epoch=WARM_UP + int(steps), shuffle=False, verbose=0, callbacks=[clock])
    taken = np.diff(clock.times)[WARM_UP - 1 :]
    figures = {
        "step": float(np.median(taken)),
        "sent": (clock.sent[-1] - clock.sent[WARM_UP - 1]) / int(steps),  # bytes in a step, by all workers
        "parameters": model.count_params(),
        "sum": sums(strategy, model.trainable_variables) if workers > 1 else 0.0,
    }
    Path(result).write_text(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
