"""What training costs beside the steps themselves: `fit` with all that `tfzoo train` puts around it against a bare
loop, and two worker processes against one.

    .venv/bin/python benchmarks/training.py [--output FILE]        about ten minutes on two cores

Nothing else may use the loopback interface meanwhile: the bytes that the workers send are counted there.
"""

import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from _measure import finish, summary  # noqa: E402  first: it quietens TensorFlow

# A block is the steps to a checkpoint; so many are timed, of each side. The sides take turns of a few steps, as a
# machine's speed changes within a block.
BLOCK, TURN, BLOCKS = 100, 10, 6
WORKER_STEPS, ROUNDS = 30, 3
FIT = "100 steps and a checkpoint: fit / bare loop"


def bare_loop(data):
    """Make a function that trains a U-Net for a turn of steps as one would write it by hand."""
    import keras
    import tensorflow as tf

    import tfzoo
    from apps.recipes.unet import dice_and_cross_entropy

    model = tfzoo.build("unet")
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(dice_and_cross_entropy(y, model(x, training=True)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    def run():
        for x, y in data.take(TURN):
            loss = step(x, y)
        return float(loss)

    return run


def fit_and_loop() -> dict[str, float]:
    """Time blocks of steps of one long `fit`, and between its turns as many of the bare loop."""
    import keras
    import numpy as np
    import tensorflow as tf

    import tfzoo
    from apps import recipes, run_folder, train
    from apps.recipes import unet as recipe
    from tfzoo.training.distributed_fit import repaired

    model = tfzoo.build("unet")
    recipe.compile(model, optimizer=lambda kind: kind(1e-4), jit_compile=False)
    rng = np.random.default_rng(0)
    x = rng.random((8, *model.input_shape[1:]), "float32")
    y = (rng.random((*x.shape[:3], 1)) < 0.1).astype("float32")
    data = tf.data.Dataset.from_tensors((x, y)).cache().repeat()
    run = bare_loop(data)
    run()
    times = [[], [], [], []]

    class Alternate(keras.callbacks.Callback):
        """Behind every turn of `fit`, time it and one of the bare loop; the first block, which traces, is left out."""

        start = fitted = looped = 0.0

        def on_train_batch_end(self, batch, logs=None):
            if (batch + 1) % TURN:
                return
            now = time.perf_counter()
            run()
            self.fitted += now - self.start
            self.looped += time.perf_counter() - now
            block, within = divmod(batch + 1, BLOCK)
            if not within:
                if block > 1:
                    times[block % 2 * 2].append(self.fitted)
                    times[block % 2 * 2 + 1].append(self.looped)
                self.fitted = self.looped = 0.0
                self.model.stop_training = block > BLOCKS
            self.start = time.perf_counter()

    options = {**recipes.DEFAULTS, **recipe.DEFAULTS, "ema": 0.999, "checkpoint_steps": BLOCK, "early_stopping": 5}
    options["steps_per_epoch"] = BLOCK * (BLOCKS + 2)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        log = run_folder.Log(Path(folder), 0)
        stop = run_folder.StopEarly(options["early_stopping"], log)
        callbacks = train.callbacks(Path(folder), options, 0, log, stop, True, lambda step: (x, y))
        with repaired(model):
            model.fit(
                data,
                steps_per_epoch=options["steps_per_epoch"],
                validation_data=data.take(1),
                callbacks=[*callbacks, Alternate()],
                shuffle=False,
            )
    return summary(*times)


def processes(count: int, together: bool, folder: Path) -> list[dict[str, float]]:
    """Train in so many processes at once, each on a core of its own, and give what each of them measured."""
    from apps.launch import environments

    alone = {**environments(1)[0]}
    del alone["TF_CONFIG"]
    results = [folder / f"{core}.json" for core in range(count)]
    script = str(Path(__file__).with_name("_worker.py"))
    running = [
        subprocess.Popen([sys.executable, script, str(core), str(WORKER_STEPS), str(result)], env=environment)
        for core, (result, environment) in enumerate(
            zip(results, environments(count) if together else [alone] * count, strict=True)
        )
    ]
    if any([process.wait() for process in running]):
        sys.exit("a worker ended with an error")
    return [json.loads(result.read_text()) for result in results]


def two_workers() -> dict[str, float]:
    """Time a worker alone, two that do not know of one another, and two that share their gradients."""
    found: dict[str, list[dict[str, float]]] = {"alone": [], "side by side": [], "workers": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(ROUNDS):
            for name, count, together in (("alone", 1, False), ("side by side", 2, False), ("workers", 2, True)):
                found[name] += processes(count, together, Path(folder))
                print(f"{name:12} {i + 1}/{ROUNDS}: {found[name][-1]['step'] * 1e3:.1f} ms a step", flush=True)
    median = {name: statistics.median(each["step"] for each in all_of) for name, all_of in found.items()}
    workers = found["workers"]
    return {
        "alone": median["alone"],
        "side_by_side": median["side by side"],
        "workers": median["workers"],
        "sum": statistics.median(each["sum"] for each in workers),
        "sent_by_each": statistics.median(each["sent"] for each in workers) / 2,
        "parameters": workers[0]["parameters"],
    }


def main() -> int:
    workers = two_workers()
    for name, value in workers.items():
        print(f"{name:12} {value:,.0f}" if value > 1e3 else f"{name:12} {value * 1e3:.1f} ms")
    return finish({FIT: fit_and_loop()}, {FIT: 1.05}, workers=workers)


if __name__ == "__main__":
    sys.exit(main())
