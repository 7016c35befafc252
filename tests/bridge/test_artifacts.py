import keras
import numpy as np
import onnxruntime
import pytest
import torch

from bridge import artifacts


def test_every_file_gives_the_models_numbers(check, example, tmp_path):
    differences, notes = artifacts.write(example, tmp_path / "out")
    assert differences.keys() == {"model.py", "model.pt2", "model.onnx"} and not notes
    assert all(0 < value < 1e-5 for value in differences.values())
    x = np.random.default_rng(3).normal(size=(5, 12, 11, 3)).astype("float32")  # another batch than theirs
    want = [np.asarray(y) for y in example(x)]
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    for have in (program(torch.from_numpy(first)), session.run(None, {session.get_inputs()[0].name: first})):
        for h, w in zip(have, want, strict=True):
            assert check.relative(check.to_last(np.asarray(h.detach() if hasattr(h, "detach") else h)), w) < 1e-5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(check, tmp_path, policy):
    image = keras.Input((8, 7, 3), name="image")
    y = keras.layers.Conv2D(4, 3, activation="relu", dtype=policy)(image)
    model = check.randomise(keras.Model(image, keras.layers.Dense(2, dtype=policy)(keras.layers.Flatten()(y))))
    differences, _ = artifacts.write(model, tmp_path / "out")
    assert artifacts.tolerance(model) == 0.05 and max(differences.values()) < 0.05
    assert {"model.py", "model.pt2"} <= differences.keys()


def test_open_sizes_stay_open(check, tmp_path):
    image = keras.Input((None, None, 2), name="image")
    model = check.randomise(keras.Model(image, keras.layers.Conv2D(3, 3, padding="same")(image)))
    artifacts.write(model, tmp_path / "out")
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    x = np.random.default_rng(0).normal(size=(2, 2, 7, 9)).astype("float32")
    want = np.asarray(model(np.moveaxis(x, 1, -1)))
    for have in (program(torch.from_numpy(x)).detach(), session.run(None, {"input": x})[0]):
        assert check.relative(np.moveaxis(np.asarray(have), 1, -1), want) < 1e-5


def test_without_the_extra(example, tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "EXTRA", "no_such_package")
    differences, notes = artifacts.write(example, tmp_path / "out")
    assert "model.onnx" not in differences and not (tmp_path / "out" / "model.onnx").exists()
    assert notes == ["There is no model.onnx: it needs the extra onnx (pip install tfzoo[onnx])."]


def test_what_onnx_cannot_hold_is_left_out(example, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise torch.onnx.errors.UnsupportedOperatorError("aten::odd", 17, None)

    monkeypatch.setattr(torch.onnx, "export", refuse)
    differences, (note,) = artifacts.write(example, tmp_path / "out")
    assert "model.onnx" not in differences and "torch.onnx cannot write it" in note and "aten::odd" in note


@pytest.mark.parametrize("what", ["program", "onnx"])
def test_a_number_that_is_none_is_seen(example, tmp_path, monkeypatch, what):
    """Also in the second output: Python's own max passes over it."""
    made = getattr(artifacts, what)

    def broken(*arguments):
        run = made(*arguments)
        return lambda *x: [run(*x)[0], run(*x)[1] * float("nan")]

    monkeypatch.setattr(artifacts, what, broken)
    differences, _ = artifacts.write(example, tmp_path / "out")
    assert np.isnan(differences[{"program": "model.pt2", "onnx": "model.onnx"}[what]])


@pytest.mark.parametrize("file", ["model.pt2", "model.onnx"])
def test_another_program_is_seen(example, tmp_path, monkeypatch, file):
    def other(function):
        def made(*arguments):
            with torch.no_grad():
                module = next(x for x in arguments if isinstance(x, torch.nn.Module))
                module.get_parameter("c.weight").mul_(1.01)
            return function(*arguments)

        return made

    name = {"model.pt2": "program", "model.onnx": "onnx"}[file]
    monkeypatch.setattr(artifacts, name, other(getattr(artifacts, name)))
    assert artifacts.write(example, tmp_path / "out")[0][file] > 1e-4
