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


def test_the_exact_gelu(check):
    """tf2onnx knows no Erfc, of which TensorFlow makes it."""
    x = keras.Input((5,))
    model = check.randomise(keras.Model(x, layers.Dense(4, "gelu")(x)))
    a = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    assert onnx.apart([np.asarray(model(a))], onnx.run(onnx.to_onnx(model), [a])) < 1e-6


def test_inputs_by_name(check):
    """In the order of their names, as Keras flattens them."""
    given = {"start": keras.Input((3,), name="start"), "context": keras.Input((2,), name="context")}
    made = {"z": layers.Dense(4)(given["start"]), "a": layers.Dense(5)(given["context"])}
    model = check.randomise(keras.Model(given, made))
    a = {name: np.random.default_rng(0).normal(size=(3, x.shape[1])).astype("float32") for name, x in given.items()}
    wanted = keras.tree.flatten(model(a))
    found = onnx.run(onnx.to_onnx(model), [a["context"], a["start"]])
    assert onnx.apart([np.asarray(x) for x in wanted], found) < 1e-6


def test_what_an_exporter_cannot(check):
    x = keras.Input((5, 5, 1))
    model = keras.Model(x, layers.Lambda(lambda x: keras.ops.slogdet(x[..., 0])[1])(x))
    with pytest.raises(bridge.BridgeError, match="cannot be exported as ONNX|onnxruntime cannot run it"):
        onnx.run(onnx.to_onnx(model), [np.ones((2, 5, 5, 1), "float32")])


def test_outputs_of_other_shapes_are_infinitely_far_apart():
    assert onnx.apart([np.ones(3)], [np.ones(2)]) == float("inf")
    assert onnx.apart([np.array([1.0, 4.0])], [np.array([1.0, 3.0])]) == 0.25


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
