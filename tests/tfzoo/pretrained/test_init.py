"""`tfzoo.build(..., weights=FILE)`: all of a file into all of a model, or an error that says everything."""

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bridge
import tfzoo
from tfzoo import pretrained, resnet

OPTIONS = {"size": "tiny", "depths": (1, 2), "widths": (4, 6), "shortcut": "B"}
OF_KERAS = [".keras", ".weights.h5", ".h5"]


def live(model, seed=0):
    """Give a model random weights, and statistics."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "variance" in v.name else rng.normal(0, 0.4, v.shape))
    return model


@pytest.fixture(scope="module")
def source():
    """A model with live weights, and its state dict as torchvision would name it."""
    model = live(tfzoo.build("resnet", **OPTIONS))
    return model, bridge.to_torch(model, names=resnet.NAMES["torchvision"]).state_dict()


def saved(model, path):
    """Save a model as a file of Keras, of whichever kind the path ends in."""
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


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


def test_timms_names(source, tmp_path):
    model, state = source
    ours = bridge.to_torch(model, names=resnet.NAMES["timm"]).state_dict()
    norms = [f"{name}.{kind}" for name in ("bn1", "layer2.0.bn2", "layer2.1.bn1") for kind in ("weight", "running_var")]
    written_out = ["conv1.weight", "layer1.0.conv1.weight", "layer2.0.downsample.0.weight", "fc.bias", *norms]
    assert ours.keys() == state.keys() >= set(written_out)
    save_file(dict(ours), tmp_path / "w.safetensors")
    assert_same(tfzoo.build("resnet", weights=tmp_path / "w.safetensors", **OPTIONS), model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_what_a_wrapper_has_put_in_front_is_taken_off(source, tmp_path, prefix):
    model, state = source
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()}}, tmp_path / "w.pth")
    assert_same(tfzoo.build("resnet", weights=tmp_path / "w.pth", **OPTIONS), model)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("ending", OF_KERAS)
def test_files_of_keras(source, tmp_path, ending, dropout):
    model, _ = source
    path = saved(model, tmp_path / f"w{ending}")
    assert_same(tfzoo.build("resnet", weights=str(path), dropout=dropout, **OPTIONS), model)


def test_a_file_of_a_model_in_training(source, tmp_path):
    """It has the optimizer's state, too."""
    model = live(tfzoo.build("resnet", **OPTIONS))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    assert_same(tfzoo.build("resnet", weights=saved(model, tmp_path / "w.keras"), **OPTIONS), model)


@pytest.mark.parametrize("ending", OF_KERAS)
@pytest.mark.parametrize(
    ("name", "held", "wanted", "messages"),
    [
        (
            "vit",
            {"depth": 2},
            {"depth": 1, "include_top": False},
            ["14 unexpected: ", "blocks_1_norm1/0 (32,)", "head/0 (32, 10)"],
        ),
        ("vit", {"depth": 1}, {"depth": 2}, ["12 missing: ", "blocks_1_norm1/gamma", "blocks_1_mlp_fc2/bias"]),
        ("vit", {"mlp_ratio": 2.0}, {}, ["6 of another shape: ", "blocks_0_mlp_fc1/kernel (32, 64), not (32, 128)"]),
        (
            "resnet",
            {},
            {"preactivation": True},
            ["4 missing: bn_last/gamma", "4 unexpected: layer1_0_bn1/0 (8,)", "8 of another shape: layer2_0_bn1/gamma"],
        ),
        ("resnet", {}, {"include_top": False}, ["2 unexpected: fc/0 (32, 10), fc/1 (10,)"]),
        ("resnet", {"include_top": False}, {}, ["2 missing: fc/kernel, fc/bias"]),
    ],
)
def test_another_networks_file_of_keras_is_refused_with_everything_that_differs(
    tmp_path, recwarn, ending, name, held, wanted, messages
):
    path = saved(live(tfzoo.build(name, "tiny", **held)), tmp_path / f"w{ending}")
    model = live(tfzoo.build(name, "tiny", **wanted), 1)
    before = model.get_weights()
    recwarn.clear()
    with pytest.raises(ValueError, match=f"{path.name} cannot be loaded into {name}, by the names of its") as error:
        pretrained.load(model, path, tfzoo.family(name))
    said = str(error.value)
    assert [m for m in messages if m not in said] == [] and "damaged" not in said
    assert said.count("; ") == sum(m[0].isdigit() for m in messages) - 1
    assert [w for w in recwarn if w.category is UserWarning] == []
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


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
        ("w.weights.h5", b"x", "w.weights.h5 cannot be loaded into resnet.*may be damaged"),
        ("w.keras", b"x", "w.keras cannot be loaded into resnet.*may be damaged"),
        ("w.h5", b"x", "w.h5 cannot be loaded into resnet.*may be damaged"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        tfzoo.build("resnet", weights=tmp_path / name, **OPTIONS)


@pytest.mark.parametrize("scheme", ["http", "ftp", "HTTPS"])
def test_an_address_of_another_kind(scheme):
    address = f"{scheme}://example.org/w-01234567.pth"
    with pytest.raises(ValueError, match=f"must begin with https:// or file://. Received: {address}. Take https://"):
        tfzoo.build("resnet", weights=address, **OPTIONS)


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


@pytest.mark.parametrize("ending", OF_KERAS)
def test_it_may_so_with_a_file_of_keras(tmp_path, monkeypatch, ending):
    model = live(tfzoo.build("resnet", **OPTIONS | {"classes": 20}))
    path, asked = saved(model, tmp_path / f"w{ending}"), []

    def resize_for(model, name, value, shape):
        asked.append((model.name, name, value.shape, shape))
        return value[..., : shape[-1]]

    monkeypatch.setattr(resnet, "resize_for", resize_for, raising=False)
    other = tfzoo.build("resnet", weights=path, **OPTIONS)
    assert sorted(asked) == [("resnet", "fc", (6, 20), (6, 10)), ("resnet", "fc", (20,), (10,))]
    for mine, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, np.asarray(theirs)[..., : mine.shape[-1]])


def test_no_torch_is_needed_to_build():
    assert isinstance(tfzoo.build("resnet", **OPTIONS), keras.Model)


def sha256(path):
    from tfzoo.pretrained.download import checksum

    return checksum(path)
