"""The second, independent way to torch agrees with the bridge's."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import onnx

layers = keras.layers


def test_torchvision_imports_beside_any_torch():
    assert onnx.import_torchvision().models.resnet18


@pytest.mark.parametrize("said", ["operator torchvision::nms does not exist", "another"])
def test_operators_that_do_not_load_are_declared(said, monkeypatch):
    loads, declared = [RuntimeError(said), "torchvision"], []

    def load(name):
        found = loads.pop(0)
        if isinstance(found, RuntimeError):
            raise found
        return found

    monkeypatch.setattr(onnx.importlib, "import_module", load)
    monkeypatch.setattr(torch.library, "define", lambda name, schema: declared.append(name))
    if said == "another":
        with pytest.raises(RuntimeError, match="another"):
            onnx.import_torchvision()
        assert not declared
    else:
        assert onnx.import_torchvision() == "torchvision"
        assert declared == ["torchvision::nms", "torchvision::qnms"]


def test_a_second_opinion(check):
    x = image = keras.Input((11, 12, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="a")(x)
    x = layers.BatchNormalization(name="n")(x)
    model = check.randomise(keras.Model(image, layers.Conv2D(2, 3, padding="same", name="b")(x)))
    peer, ours = onnx.to_torch(model), bridge.to_torch(model)
    a = np.random.default_rng(0).normal(size=(2, 11, 12, 3)).astype("float32")
    with torch.no_grad():
        theirs = peer(torch.from_numpy(a)).numpy()
        mine = check.to_last(ours(torch.from_numpy(check.to_first(a))).numpy())
    assert check.relative(mine, theirs) < 2e-5
    assert check.relative(theirs, model(a)) < 2e-5
