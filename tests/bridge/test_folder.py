"""The folder of a converted model: complete, standing alone, or not there at all."""

import io
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import bridge
from bridge import folder as folders

layers = keras.layers


@pytest.fixture
def model(check):
    x = image = keras.Input((None, None, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="a")(x)
    x = layers.BatchNormalization(name="n")(x)
    return check.randomise(keras.Model(image, layers.Conv2D(2, 1, name="b")(x), name="example"))


def test_what_is_written(model, tmp_path):
    report = bridge.save_torch(model, tmp_path / "out")
    assert report.passed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "model.py",
        "model.safetensors",
        "report.html",
        "report.json",
    ]
    assert json.loads((tmp_path / "out/report.json").read_text())["passed"] is True
    result = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", str(tmp_path / "out/model.py")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def test_text_is_utf8_whatever_the_locale(check, tmp_path, monkeypatch):
    image = keras.Input((5,), name="image")
    model = check.randomise(keras.Model(image, layers.Dense(2, name="größe")(image), name="example"))
    monkeypatch.setattr(io, "text_encoding", lambda encoding, level=2: encoding or "ascii")  # as LC_ALL=C has it
    bridge.save_torch(model, tmp_path / "out")
    assert "größe" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert bridge.load_torch(tmp_path / "out", trust=True)


def test_round_trip_with_other_weights(model, tmp_path):
    """Nothing of Keras' can have been kept aside: the weights are changed in the file."""
    from safetensors.numpy import load_file, save_file

    bridge.save_torch(model, tmp_path / "out", verify=False)
    path = tmp_path / "out/model.safetensors"
    save_file({k: v + 1 if v.dtype.kind == "f" else v for k, v in load_file(path).items()}, path)
    again, module = folders.load_keras_from(tmp_path / "out", trust=True)
    assert again.input_shape == (None, None, None, 3)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a + np.float32(1), b)
    assert bridge.verify(again, module).passed


def test_it_stands_alone(model, tmp_path):
    """In another process, with neither Keras nor the bridge."""
    bridge.save_torch(model, tmp_path / "out", verify=False)
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype("float32")
    np.save(tmp_path / "x.npy", np.moveaxis(x, -1, 1))
    code = (
        "import sys\nfor n in ('tensorflow', 'keras', 'bridge', 'einops'): sys.modules[n] = None\n"
        "import numpy as np, torch, model\nm = model.load()\nassert not m.training\n"
        "np.save('../y.npy', m(torch.from_numpy(np.ascontiguousarray(np.load('../x.npy')))).detach().numpy())"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "out", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.moveaxis(np.load(tmp_path / "y.npy"), 1, -1), model(x), atol=1e-5)


def test_load_torch(model, tmp_path):
    bridge.save_torch(model, tmp_path / "out", verify=False)
    with pytest.raises(bridge.BridgeError, match="trust=True"):
        bridge.load_torch(tmp_path / "out")
    assert bridge.verify(model, bridge.load_torch(tmp_path / "out", trust=True)).passed


def test_refusals_leave_nothing(model, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(bridge.BridgeError, match="there exists already"):
        bridge.save_torch(model, tmp_path / "there")
    (tmp_path / "file").write_text("")
    with pytest.raises(bridge.BridgeError, match="cannot be written"):
        bridge.save_torch(model, tmp_path / "file" / "out")
    x = keras.Input((4,))
    opaque = keras.Model(x, layers.Lambda(tf.abs, output_shape=(4,), name="mine")(x))
    with pytest.raises(bridge.BridgeError, match="mine"):
        bridge.save_torch(opaque, tmp_path / "out")
    with pytest.raises(bridge.BridgeError, match="mine"):
        bridge.save_torch(opaque, tmp_path / "deep" / "er" / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "there"]


def test_what_is_verified_is_what_was_written(model, tmp_path, monkeypatch):
    from safetensors import torch as writer

    write = writer.save_file

    def damaged(state, *args, **kwargs):
        write(state | {"a.weight": state["a.weight"] * 1.001}, *args, **kwargs)

    monkeypatch.setattr(writer, "save_file", damaged)
    report = bridge.save_torch(model, tmp_path / "out")
    assert not report.passed and "a.kernel" in str(report)


@pytest.mark.parametrize("damage", ["missing", "truncated", "not a program", "leaving", "no inputs"])
def test_damaged_folders(model, tmp_path, damage):
    out = tmp_path / "out"
    bridge.save_torch(model, out, verify=False)
    if damage == "missing":
        (out / "model.safetensors").unlink()
    elif damage == "truncated":
        data = (out / "model.safetensors").read_bytes()
        (out / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif damage == "not a program":
        (out / "model.py").write_text("def (:")
    elif damage == "leaving":
        (out / "model.py").write_text("import sys\nsys.exit(0)")
    else:
        (out / "model.py").write_text((out / "model.py").read_text().replace("INPUTS =", "OTHER ="))
    with pytest.raises(bridge.BridgeError, match=str(out)):
        folders.load_keras_from(out, trust=True)


def test_permissions_follow_the_umask(model, tmp_path):
    old = os.umask(0o022)
    try:
        bridge.save_torch(model, tmp_path / "out", verify=False)
    finally:
        os.umask(old)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o755


def test_the_module_is_the_file(model, tmp_path):
    """What to_torch returns and what save_torch writes are the same source."""
    import inspect

    bridge.save_torch(model, tmp_path / "out", verify=False)
    assert inspect.getsource(type(bridge.to_torch(model))).strip() in (tmp_path / "out/model.py").read_text()
    assert isinstance(bridge.load_torch(tmp_path / "out", trust=True), torch.nn.Module)
