"""The commands that go by ONNX: what they write computes the same, and without the extra they say what to install."""

import importlib.util
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch

from bridge import BridgeError, by_onnx, onnx
from tests.bridge._command import run

SOURCE = """
import keras
import torch


def model():
    keras.utils.set_random_seed(3)
    x = keras.Input((9, 8, 3), name="picture")
    y = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.Dense(5)(keras.layers.Flatten()(y))
    model = keras.Model(x, y)
    for v in model.weights:
        v.assign(keras.random.uniform(v.shape, 0.1, 0.5))
    return model


def module():
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)).eval()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx")
    (path / "nets.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("onnx_nets", path / "nets.py")
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    nets.model().export(path / "served", verbose=False)
    return path


def program(folder, code):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("source", "more", "shape"),
    [
        ("nets:model", (), (2, 9, 8, 3)),
        ("served", ("--trust",), (2, 9, 8, 3)),
        ("nets:module", ("--input", "2,3,6,8"), (2, 3, 6, 8)),
    ],
)
def test_to_onnx(folder, source, more, shape):
    import onnxruntime

    output = f"{source.replace(':', '_')}.onnx"
    done = run(folder, "to-onnx", source, "-o", output, *more)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime's outputs differ by " in done.stdout and done.stdout.endswith(f"wrote {output}\n")
    session = onnxruntime.InferenceSession(folder / output)
    (given,) = session.get_inputs()
    found = [session.run(None, {given.name: np.full((n, *shape[1:]), 0.3, "float32")})[0] for n in (2, 3)]
    assert [len(x) for x in found] == [2, 3] and np.ptp(found[0]) > 1e-3


def test_a_saved_model_to_torch_for_inference(folder):
    done = run(folder, "to-torch", "served", "--trust", "-o", "there")
    assert done.returncode == 0, done.stderr
    assert "by tf2onnx and onnx2torch, for inference alone" in done.stdout
    start = "from bridge import onnx; onnx.import_torchvision(); import numpy, torch, model; net = model.load();"
    code = f"{start} print(net(torch.full((3, 9, 8, 3), .3)).shape, model.INPUTS)"
    done = program(folder / "there", code)
    assert done.stdout == "torch.Size([3, 5]) {'picture': ((None, 9, 8, 3), 'float32')}\n", done.stderr
    served = keras.layers.TFSMLayer(folder / "served", call_endpoint="serve")
    x = np.random.default_rng(0).normal(size=(3, 9, 8, 3)).astype("float32")
    drawn = "torch.from_numpy(numpy.random.default_rng(0).normal(size=(3, 9, 8, 3)).astype('float32'))"
    code = f"{start} numpy.save('found', net({drawn}).detach())"
    assert program(folder / "there", code).returncode == 0
    np.testing.assert_allclose(np.load(folder / "there" / "found.npy"), served(x), rtol=1e-4, atol=1e-5)


def test_verify_three_ways(folder):
    done = run(folder, "to-torch", "nets:model", "-o", "carried", "--no-verify")
    assert done.returncode == 0, done.stderr
    done = run(folder, "verify", "nets:model", "carried", "--trust", "--via", "onnx")
    assert done.returncode == 0, done.stdout + done.stderr
    for pair in ("Keras and torch", "Keras and onnxruntime", "torch and onnxruntime"):
        assert f"{pair} differ by " in " ".join(done.stdout.split())
    done = run(folder, "verify", "nets:model", "carried", "--trust", "--via", "tflite")
    assert done.returncode == 2 and "--via tflite: accepted is onnx" in done.stderr


def test_three_ways_sees_what_is_wrong(folder, monkeypatch):
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2)(x))
    module = torch.nn.Linear(3, 2)
    found = onnx.three_ways(model, module)
    assert found["Keras and onnxruntime"] < 1e-5 < 0.1 < found["Keras and torch"]
    assert found["torch and onnxruntime"] > 0.1


def test_outputs_by_name(check):
    class Named(torch.nn.Module):
        def forward(self, x):
            return {"b": x * 2, "a": x + 1}

    _, share = by_onnx.of_torch(Named(), (torch.randn(2, 3),), None)
    assert share < 1e-6


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("to-onnx", "nets:model", "-o", "x.txt"), "x.txt: the output is an .onnx file"),
        (("to-onnx", "nets:module", "-o", "x.onnx"), "give the shape of each input"),
        (("to-torch", "served", "--weights", "x.pt", "-o", "x"), "leave out --weights"),
        (("to-torch", "served", "-o", "x"), "served is a program of TensorFlow and would be run: .* pass --trust"),
        (("to-onnx", "served", "-o", "x.onnx"), "served is a program of TensorFlow and would be run: .* pass --trust"),
    ],
)
def test_what_is_refused(folder, arguments, text):
    done = run(folder, *arguments)
    assert done.returncode == 2 and re.search(text, done.stderr), done.stderr
    assert not list(folder.glob("x*"))


def test_a_damaged_saved_model(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01nothing")
    assert by_onnx.is_saved_model(str(tmp_path))
    with pytest.raises(BridgeError, match="cannot be read as a SavedModel"):
        by_onnx.to_torch(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", [("to-onnx", "nets:model", "-o", "y.onnx"), ("to-torch", "served", "--trust", "-o", "y")]
)
def test_without_the_extra_it_is_said_what_to_install(folder, command, monkeypatch):
    real = importlib.util.find_spec
    lacking = {"tf2onnx", "onnxscript"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in lacking else real(name, *a))
    done = run(folder, *command)
    assert done.returncode == 2, done.stderr
    assert "onnxscript, tf2onnx are not installed: pip install 'tfzoo[onnx]'" in done.stderr
