"""`bridge to-torch` of a training: its optimizer goes over, too, `resume.py` goes on with it, and it comes back."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import bridge
from bridge import resume, trainings
from bridge.folder import load_torch, save_torch
from bridge.optimizers import load
from tests.bridge._command import run as run_in
from tests.bridge._steps import STEPS, batches, made, network, train_keras, train_torch


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A compiled model that has been trained, its file, and the batches that come next."""
    model = network("convolutional")
    optimizer, data = made("SGD, Nesterov, decay", model), batches(model, 3 * STEPS)
    optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.02, 20, warmup_target=0.05, warmup_steps=4)
    train_keras(model, optimizer, data[:STEPS])
    model.compile(optimizer=optimizer)
    path = tmp_path_factory.mktemp("trained") / "model.keras"
    model.save(path)
    return model, path, data[STEPS:]


def test_a_file_of_a_compiled_model(trained, tmp_path):
    model, path, data = trained
    done = run_in(tmp_path, "to-torch", path, "--training", "--exact-training", "-o", "there")
    assert done.returncode == 0, done.stderr
    assert f"the training goes on with there/resume.py: SGD by Keras' rule, after {STEPS} steps" in done.stdout
    x, y = (np.concatenate([batch[i] for batch in data]).astype("float32") for i in (0, 1))
    np.savez(tmp_path / "data.npz", x=x.transpose(0, 3, 1, 2), y=y)
    arguments = ["there/resume.py", "data.npz", "--loss", "mse", "--steps", "5", "--batch-size", "8", "-o", "more"]
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"step {STEPS + 5}: loss ") and done.stdout.endswith("wrote more\n")
    done = run_in(tmp_path, "to-keras", "more", "--trust", "-o", "back.keras")
    assert done.returncode == 0, done.stderr
    back = keras.models.load_model(tmp_path / "back.keras")
    assert int(back.optimizer.iterations) == STEPS + 5
    rate = model.optimizer._learning_rate
    np.testing.assert_allclose(float(back.optimizer.learning_rate), float(rate(STEPS + 5)), rtol=1e-6)
    module = load_torch(tmp_path / "more", trust=True)
    other = load(tmp_path / "more" / "optimizer.safetensors", module)
    want = train_torch(module, other, data[:2])
    np.testing.assert_allclose(train_keras(back, back.optimizer, data[:2]), want, rtol=1e-4)


def test_the_same_steps_there_as_here(trained, tmp_path):
    _, path, data = trained
    other, optimizer = trainings.load(str(path))
    save_torch(other, tmp_path / "there", verify=False, exact_training=True, optimizer=optimizer)
    module = load_torch(tmp_path / "there", trust=True)
    state = load(tmp_path / "there" / resume.STATE, module)
    theirs = train_torch(module, state, data[:STEPS])
    np.testing.assert_allclose(theirs, train_keras(other, optimizer, data[:STEPS]), rtol=1e-4)
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == [
        *("model.py", "model.safetensors", "optimizer.safetensors", "optimizers.py", "resume.py")
    ]


def test_a_folder_needs_torch_alone(trained, tmp_path):
    _, path, _ = trained
    model, optimizer = trainings.load(str(path))
    save_torch(model, tmp_path / "there", verify=False, optimizer=optimizer)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('bridge', 'keras', 'tensorflow', 'tfzoo')));"
        "import resume; network, optimizer = resume.load(); print(type(optimizer).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "there", capture_output=True, text=True)
    assert done.stdout == "SGD\n", done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of tfzoo, stopped in the middle of an epoch: the newest checkpoint is not model.keras."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    command = [
        sys.executable,
        "-m",
        "apps",
        "train",
        "resnet",
        "--output",
        folder,
        "--epochs",
        "2",
        "--batch-size",
        "8",
    ]
    command += ["--steps-per-epoch", "4", "--schedule", "step", "--ema", ".9"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_folder(run, tmp_path):
    model, optimizer = trainings.load(str(run))
    assert int(optimizer.iterations) == 8 and trainings.is_run(str(run))
    done = run_in(tmp_path, "to-torch", run, "-o", "there")
    assert done.returncode == 0, done.stderr
    assert "goes on with there/resume.py: SGD by Keras' rule, after 8 steps" in done.stdout
    module = load_torch(tmp_path / "there", trust=True)
    state = load(tmp_path / "there" / resume.STATE, module)
    group = state.param_groups[0]
    assert group["iterations"] == 8 and group["schedule"]["class_name"] == "Table" and group["nesterov"]
    want = json.loads((run / "optimizer.json").read_text())["optimizer"]["config"]["learning_rate"]["config"]["rates"]
    assert group["schedule"]["config"]["rates"] == want and len(want) == 8 and len(set(want)) > 3
    x = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    y = np.arange(4) % 3
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs, ours = [], []
    for _ in range(3):
        state.zero_grad()
        logits = module.train()(torch.from_numpy(x.transpose(0, 3, 1, 2)))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
        loss.backward()
        state.step()
        theirs.append(loss.item())
        with tf.GradientTape() as tape:
            loss = entropy(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, [v.value for v in model.trainable_variables]), model.trainable_variables)
        ours.append(float(loss))
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    assert len(set(ours)) == 3


def test_what_is_damaged(run, tmp_path):
    folder = tmp_path / "run"
    for spoil, text in [
        (lambda: (folder / "optimizer.json").write_text("{"), "optimizer.json cannot be read: JSONDecodeError"),
        (
            lambda: (folder / "optimizer.json").write_text('{"optimizer": {}}'),
            "optimizer.json cannot be read|its optimizer",
        ),
        (lambda: shutil.rmtree(folder / "checkpoints"), "checkpoints: no such checkpoint"),
        (lambda: network("recurrent").save(folder / "model.keras"), "they are not of one run"),
    ]:
        shutil.copytree(run, folder)
        spoil()
        with pytest.raises(bridge.BridgeError, match=text):
            trainings.load(str(folder))
        shutil.rmtree(folder)


def test_a_program_in_the_place_of_an_optimizer(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "optimizer.json"
    told = json.loads(path.read_text())
    told["optimizer"] = {"module": "keras.layers", "class_name": "Lambda", "config": {}}
    path.write_text(json.dumps(told))
    with pytest.raises(bridge.BridgeError, match="optimizer.json cannot be read: _Program"):
        trainings.load(str(tmp_path / "run"))


def test_a_file_without_an_optimizer(tmp_path):
    network("recurrent").save(tmp_path / "a.keras")
    done = run_in(tmp_path, "to-torch", "a.keras", "--training")
    assert (
        done.returncode == 2 and "saved without an optimizer that has taken a step: leave out --training" in done.stderr
    )
    assert not (tmp_path / "a_torch").exists()
    done = run_in(tmp_path, "to-torch", "none", "--training")
    assert done.returncode == 2 and "accepted are a run folder of `tfzoo train`, or a .keras file" in done.stderr


def test_an_optimizer_that_is_damaged(trained, tmp_path):
    _, path, _ = trained
    model, optimizer = trainings.load(str(path))
    save_torch(model, tmp_path / "there", verify=False, optimizer=optimizer)
    state = tmp_path / "there" / resume.STATE
    whole = state.read_bytes()
    for content in (whole[:-40], b"\xff" * 100, whole.replace(b"conv2d", b"conv3d")):
        state.write_bytes(content)
        done = run_in(tmp_path, "to-keras", "there", "--trust", "-o", "back.keras")
        assert done.returncode == 2 and "optimizer.safetensors cannot be read" in done.stderr, done.stderr
        assert not (tmp_path / "back.keras").exists()


def test_weights_that_are_not_decayed(run, trained, tmp_path):
    """A run folder says which they are; a file of Keras does not, and that is said."""
    _, path, _ = trained
    with pytest.warns(UserWarning, match="does not say which weights are left out of the weight decay"):
        trainings.load(str(path))
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "optimizer.json"
    told = json.loads(file.read_text())
    assert told["not_decayed"] == []
    told["not_decayed"] = [0, 2]
    file.write_text(json.dumps(told))
    model, optimizer = trainings.load(str(tmp_path / "run"))
    decayed = [optimizer._use_weight_decay(v.value) for v in model.trainable_variables]
    assert decayed[:4] == [False, True, False, True] and all(decayed[3:])


def test_a_scaled_loss(tmp_path):
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, dtype="mixed_float16")(x))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0)
    model.save(tmp_path / "a.keras")
    with pytest.raises(bridge.BridgeError, match="its optimizer scales the loss .mixed_float16., which torch.amp"):
        trainings.load(str(tmp_path / "a.keras"))


def test_several_inputs_and_probabilities(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), dtype="int32", name="b")
    y = keras.layers.Dense(4)(a) + keras.layers.Flatten()(keras.layers.Embedding(5, 2)(b))
    model = keras.Model([a, b], keras.layers.Dense(3, activation="softmax")(y))
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    data = {"a": rng.normal(size=(8, 3)), "b": rng.integers(0, 5, (8, 2)), "y": rng.integers(0, 3, 8).astype("int32")}
    model.fit([data["a"], data["b"]], data["y"], verbose=0)
    model.save(tmp_path / "m.keras")
    assert run_in(tmp_path, "to-torch", "m.keras", "--training", "-o", "there").returncode == 0
    np.savez(tmp_path / "data.npz", **data)
    start = [sys.executable, "there/resume.py", "data.npz", "--steps", "1", "--batch-size", "8", "-o", "more"]
    done = subprocess.run(
        [*start, "--loss", "cross_entropy_of_probabilities"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (told,) = model.train_on_batch([data["a"], data["b"]], data["y"], return_dict=True).values()
    np.testing.assert_allclose(float(done.stdout.split("loss ")[1].split()[0]), float(told), rtol=1e-3)
    back = run_in(tmp_path, "to-keras", "more", "--trust", "-o", "back.keras")
    assert back.returncode == 0, back.stdout
    np.savez(tmp_path / "less.npz", a=data["a"], y=data["y"])
    start[2:] = ["less.npz", "--loss", "mse", "-o", "other"]
    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "less.npz has no b, but a, y" in done.stderr
