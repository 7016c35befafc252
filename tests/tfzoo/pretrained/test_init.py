"""`tfzoo.build(..., weights=FILE)`: all of a file into all of a model, or an error that says everything."""

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bridge
import tfzoo
from tfzoo import resnet

OPTIONS = {"size": "tiny", "depths": (1, 2), "widths": (4, 6), "shortcut": "B"}


@pytest.fixture(scope="module")
def source():
    """A model with live weights, and its state dict as torchvision would name it."""
    model = tfzoo.build("resnet", **OPTIONS)
    rng = np.random.default_rng(0)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "variance" in v.name else rng.normal(0, 0.4, v.shape))
    return model, bridge.to_torch(model, names=resnet.NAMES["torchvision"]).state_dict()


def assert_same(model, other):
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth", "bin"])
def test_state_dicts(source, tmp_path, ending):
    model, state = source
    assert "layer2.0.downsample.1.running_var" in state
    path = tmp_path / f"w.{ending}"
    save_file(dict(state), path) if ending == "safetensors" else torch.save(state, path)
    assert_same(tfzoo.build("resnet", weights=path, **OPTIONS), model)
    assert_same(tfzoo.build("resnet", weights=f"file://{path}#sha256={sha256(path)}", **OPTIONS), model)


def test_the_names_that_the_bridge_gives(source, tmp_path):
    model, _ = source
    bridge.save_torch(model, tmp_path / "torch", verify=False)
    assert_same(tfzoo.build("resnet", weights=tmp_path / "torch" / "model.safetensors", **OPTIONS), model)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_files_of_keras(source, tmp_path, ending):
    model, _ = source
    path = tmp_path / f"w{ending}"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    assert_same(tfzoo.build("resnet", weights=str(path), **OPTIONS), model)


def test_another_architecture_is_refused_with_everything_that_differs(source, tmp_path):
    _, state = source
    save_file(dict(state), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="by the names of torchvision") as error:
        tfzoo.build("resnet", weights=tmp_path / "w.safetensors", **OPTIONS | {"depths": (1, 1), "classes": 7})
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["- 12 unexpected", "- 2 of another shape"]
    assert "layer2.1.conv1.weight (6, 6, 3, 3)" in lines[1] and "fc.bias (10,), not (7,)" in lines[2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", None, "there is no file .*w.safetensors. Accepted for weights: .weights.h5, .keras"),
        ("w.onnx", b"x", "w.onnx is of no kind that is read. Accepted"),
        ("w.pt", b"x", "w.pt cannot be read as a state dict"),
        ("w.safetensors", b"x", "w.safetensors cannot be read as a state dict"),
        ("w.weights.h5", b"x", "w.weights.h5 cannot be loaded into resnet"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tfzoo.build("resnet", weights=tmp_path / name, **OPTIONS)


def test_a_family_may_bring_a_tensor_to_the_models_shape(source, tmp_path, monkeypatch):
    model, state = source
    save_file(dict(state) | {"fc.bias": torch.arange(20.0)}, tmp_path / "w.safetensors")
    asked = []

    def resize_for(model, name, value, shape):
        asked.append((name, value.shape, shape))
        return value[: shape[0]]

    monkeypatch.setattr(resnet, "resize_for", resize_for, raising=False)
    other = tfzoo.build("resnet", weights=tmp_path / "w.safetensors", **OPTIONS)
    assert asked == [("fc.bias", (20,), (10,))]
    np.testing.assert_array_equal(other.get_layer("fc").bias, np.arange(10))
    np.testing.assert_array_equal(other.get_layer("conv1").kernel, model.get_layer("conv1").kernel)


def test_no_torch_is_needed_to_build():
    assert isinstance(tfzoo.build("resnet", **OPTIONS), keras.Model)


def sha256(path):
    from tfzoo.pretrained.download import checksum

    return checksum(path)
