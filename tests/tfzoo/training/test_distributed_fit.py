"""`fit` on one device, on two mirrored replicas and in two worker processes: the same numbers.

`_fit.py` trains all its cases in each of the three ways; a way starts TensorFlow only once.
"""

import fcntl
import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfzoo.training import distributed_fit

SCRIPT = pathlib.Path(__file__).with_name("_fit.py")
ROOT = SCRIPT.parents[3]
CASES = runpy.run_path(str(SCRIPT))["CASES"]
WAYS = ["mirrored", "worker0", "worker1"]


def start(folder, way, task=None):
    """Start a process that trains every case in one way and writes `<way>.npz`."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    if task is not None:
        environment["TF_CONFIG"] = json.dumps(task)
    with open(folder / f"{way}.txt", "w") as log:
        command = [sys.executable, SCRIPT, way, folder / f"{way}.npz"]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def train_every_way(folder):
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("localhost", 0))
    cluster = {"worker": [f"localhost:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    running = {f"worker{i}": {"cluster": cluster, "task": {"type": "worker", "index": i}} for i in range(2)}
    running = {way: start(folder, way, task) for way, task in (running | {"one": None, "mirrored": None}).items()}
    try:
        failed = [way for way, process in running.items() if process.wait(timeout=300)]
    finally:
        for process in running.values():
            process.kill()
    assert not failed, "\n".join(f"{way}: {(folder / f'{way}.txt').read_text()[-3000:]}" for way in failed)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared: the first of pytest's processes trains, and the others read
    with open(folder / "fit.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "one.npz").exists():
            train_every_way(folder)
    return {way: dict(np.load(folder / f"{way}.npz")) for way in ["one", *WAYS]}


def compare(found, expected, case, *kinds, but=(), atol=1e-6):
    """Compare all results of a case of these kinds (history, weight, ...)."""
    names = [name for name in expected if name.startswith(tuple(f"{case}:{kind}" for kind in kinds))]
    names = [name for name in names if not any(part in name for part in but)]
    assert names
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=atol, err_msg=name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_equals_one_device(results, case, way):
    # Replicas that do not synchronize their statistics also evaluate with their own: no one device does that.
    but = ("val_", "predictions") if case == "not_synchronized" else ()
    if case == "not_synchronized" and way == "worker1":
        but += ("moving",)
    compare(results[way], results["one"], case, "history", "weight", "optimizer", "predictions", "seen", but=but)


@pytest.mark.parametrize("way", ["worker0", "worker1"])
@pytest.mark.parametrize("case", CASES)
def test_workers_equal_mirrored_replicas(results, case, way):
    but = ("moving",) if (case, way) == ("not_synchronized", "worker1") else ()
    compare(results[way], results["mirrored"], case, "", but=but)


@pytest.mark.parametrize("way", ["one", *WAYS])
@pytest.mark.parametrize("case", CASES)
def test_callbacks_see_all_steps(results, case, way):
    steps = results[way][f"{case}:steps"]  # (step, log...)
    np.testing.assert_array_equal(steps[:, 0], [0, 1, 2, 3, 4] * 2)
    assert np.isfinite(steps).all()


@pytest.mark.parametrize("way", ["one", *WAYS])
def test_every_example_is_seen_once_per_epoch(results, way):
    np.testing.assert_array_equal(results[way]["own_step:seen"], np.ones((2, 33)))


def test_a_worker_makes_its_own_rows_only(results):
    steps = np.arange(24, 64).reshape(5, 8)
    for way in ("one", "mirrored"):
        np.testing.assert_array_equal(results[way]["rows"], steps)
    for worker, own in (("worker0", steps[:, :4]), ("worker1", steps[:, 4:])):
        np.testing.assert_array_equal(results[worker]["rows"], own)
        made = results[worker]["made"]
        assert set(own.ravel()) <= set(made) and set(made % 8) == set(own[0] % 8)


def test_a_replica_without_examples_is_refused_where_it_would_be_no_number(results):
    assert "a device got no example of a batch, and separate takes its statistics" in str(
        results["mirrored"]["refused: norm"]
    )


@pytest.mark.parametrize("call", ["fit", "evaluate"])
def test_a_replica_without_examples_is_refused_where_tensorflow_would_be_wrong(results, call):
    assert "a device got no example of a batch, and convolution and the like are wrong" in str(
        results["mirrored"][f"refused: convolution in {call}"]
    )


def test_averages_that_would_not_be_kept_are_refused(results):
    assert "Received: use_ema=True. Leave it out" in str(results["mirrored"]["refused: averages"])


@pytest.mark.parametrize("way", ["one", *WAYS])
def test_overflow_halves_the_loss_scale(results, way):
    iterations, scale = (results[way][f"loss_scale:optimizer0/{i}"] for i in (4, 3))
    halvings = 127 - np.log2(scale)
    assert iterations == 10 - halvings
    assert 0 < halvings < 5


@pytest.mark.parametrize("way", ["one", *WAYS])
def test_evaluate_judges_as_the_validation_of_fit_did(results, way):
    for name in ("loss", "mae", "mse"):
        again, then = results[way][f"sgd:history/val_again_{name}"], results[way][f"sgd:history/val_{name}"][-1]
        np.testing.assert_allclose(again, then, rtol=1e-6)


def test_cases_learn(results):
    for case in CASES:
        name = "generator_loss" if case == "two_optimizers" else "error" if case == "own_step" else "loss"
        first, second = results["one"][f"{case}:history/{name}"]
        assert abs(first - second) > 0.01


def test_without_the_repairs_ragged_batches_train_otherwise(results):
    found = {name.removeprefix("unrepaired "): value for name, value in results["mirrored"].items() if " " in name}
    with pytest.raises(AssertionError, match="ragged:weight"):
        compare(found, results["one"], "ragged", "weight", atol=1e-3)


def test_another_keras_is_refused_with_the_versions(monkeypatch):
    distributed_fit.expect(distributed_fit.REPLACED | distributed_fit.USED)

    def apply(self, grads, variables=None):
        pass

    monkeypatch.setattr(keras.optimizers.LossScaleOptimizer, "apply", apply)
    monkeypatch.delattr(distributed_fit.losses, "unscale_loss_for_distribution")
    with pytest.raises(RuntimeError) as caught, distributed_fit.repaired(keras.Model()):
        pass
    message = str(caught.value)
    assert f"keras {keras.__version__}, tensorflow {tf.__version__}" in message
    assert "LossScaleOptimizer.apply: expected (self, grads, trainable_variables), found (self, grads, var" in message
    assert "unscale_loss_for_distribution: expected (value), found (gone)" in message


def test_the_repairs_end_with_the_block():
    functions = [getattr(owner, name) for owner, name in distributed_fit.REPLACED]
    with distributed_fit.repaired(keras.Model()):
        assert all(getattr(*key) is not was for key, was in zip(distributed_fit.REPLACED, functions, strict=True))
    assert [getattr(owner, name) for owner, name in distributed_fit.REPLACED] == functions


@pytest.mark.parametrize("first_step", [0, 3])
def test_the_first_epoch_begins_at_its_first_step(first_step):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = tf.data.Dataset.from_tensors((np.ones((4, 3)), np.ones((4, 1)))).repeat()
    seen = []
    record = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append([]),
        on_train_batch_begin=lambda batch, logs: seen[-1].append(batch),
    )
    with distributed_fit.repaired(model, first_step):
        model.fit(data, epochs=2, steps_per_epoch=5, verbose=0, callbacks=[record], validation_data=data.take(1))
    assert seen == [list(range(first_step, 5)), list(range(5))]
    assert model.optimizer.iterations == 10 - first_step
