"""One class for each model: nested ones, called twice, at other sizes, sharing what they hold."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import convert

layers = keras.layers


def encoder(name="encoder", **options):
    x = keras.Input((None, None, 3), name="picture")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv", **options)(x)
    return keras.Model(x, layers.BatchNormalization(name="norm")(y), name=name)


def nested():
    x = keras.Input((9, 7, 3), name="x")
    y = encoder()(x)
    return keras.Model(x, layers.Dense(2, name="fc")(layers.GlobalAveragePooling2D(name="pool")(y)), name="net")


def test_a_class_for_each_model(check):
    text = convert.source(nested()).text
    assert (
        """class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, eps=0.001, momentum=0.01)

    def forward(self, x):
        x = F.relu(self.conv(x), inplace=True)
        x = self.norm(x)
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 2)
"""
        in text
    )
    module, again = check.both_ways(nested(), same_layers=False)
    assert "encoder.conv.weight" in module.state_dict()
    assert [x.name for x in again.layers if x.weights] == ["encoder.conv", "encoder.norm", "fc"]
    assert bridge.verify(nested(), bridge.to_torch(nested())).passed is False  # other random weights
    model = check.randomise(nested())
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    x = torch.randn(2, 3, 9, 7)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(x), module(x), rtol=0, atol=0)


def test_deeper(check):
    x = keras.Input((9, 7, 3), name="x")
    inner = keras.Model(x, encoder("first")(x) + encoder("second")(x), name="pair")
    z = keras.Input((9, 7, 3), name="z")
    model = keras.Model(z, layers.ReLU()(inner(inner(layers.Conv2D(3, 1, name="mix")(z))[..., :3])), name="net")
    module = check.both_ways(model, same_layers=False).module
    assert "pair.second.norm.running_mean" in module.state_dict()
    text = inspect.getsource(inspect.getmodule(type(module)))
    assert text.count("class ") == 4 and text.count("self.pair(") == 2


def test_called_twice_at_other_sizes(check):
    """Where the constants of SAME differ, the second call is written out, with the same submodules."""
    x = keras.Input((None, None, 3), name="x")
    y = layers.Conv2D(3, 3, strides=2, padding="same", name="conv")(x)
    part = keras.Model(x, y, name="part")
    a, b = keras.Input((9, 8, 3), name="a"), keras.Input((9, 8, 3), name="b")
    model = keras.Model([a, b], [part(a), part(b), part(keras.layers.Cropping2D(((1, 0), (0, 1)))(a))], name="net")
    module = check.both_ways(model, same_layers=False).module
    assert list(module.state_dict()) == ["part.conv.weight", "part.conv.bias"]
    source = inspect.getsource(type(module))
    assert source.count("self.part(") == 1 and source.count("self.part.conv(") == 2


def test_several_inputs_and_outputs(check):
    a, b = keras.Input((5, 4, 3), name="a"), keras.Input((5, 4, 3), name="b")
    y = layers.Conv2D(3, 1, name="c")(layers.Subtract()([a, b]))
    two = keras.Model({"a": a, "b": b}, {"sum": layers.Add()([y, b]), "y": y}, name="two")
    x = keras.Input((5, 4, 3), name="x")
    z = two({"b": x, "a": layers.Conv2D(3, 1, name="d")(x)})
    module = check.both_ways(
        keras.Model(x, layers.Concatenate()([z["y"], z["sum"]]), name="net"), same_layers=False
    ).module
    assert "self.two(" in inspect.getsource(type(module))


def test_a_layer_inside_and_outside(check):
    """A shared layer is held where it was met first, or tied to it."""
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,), name="x")
    inner = keras.Model(x, layers.ReLU()(shared(x)), name="inner")
    z = keras.Input((4,), name="z")
    for y in (shared(inner(z)), inner(shared(z))):
        model = check.randomise(keras.Model(z, y, name="net"))
        module = bridge.to_torch(model)
        assert sum(p.numel() for p in module.parameters()) == 20
        assert bridge.verify(model, module).passed
        again = bridge.to_keras(module, (torch.randn(2, 4),))
        assert len(again.weights) == 2 and bridge.verify(again, module).passed


def test_two_models_of_one_name(check):
    """Names of classes are told apart, and a model is called after its layer in the one around it."""
    x = keras.Input((9, 7, 3), name="x")
    outer = keras.Model(x, encoder("net")(x), name="block")
    z = keras.Input((9, 7, 3), name="z")
    other = keras.Model(z, encoder("net")(z), name="other")
    y = layers.Concatenate()([outer(z), other(z)])
    module = check.both_ways(keras.Model(z, y, name="net"), same_layers=False).module
    text = inspect.getsource(inspect.getmodule(type(module)))
    assert [line for line in text.splitlines() if line.startswith("class ")] == [
        "class Block(nn.Module):",
        "class Net2(nn.Module):",
        "class Other(nn.Module):",
        "class Net3(nn.Module):",
        "class Net(nn.Module):",
    ]


@pytest.mark.parametrize("name", ['a"); import os #', "class", "ünï", "self", "nn", "forward", "Net", "x" * 300, "{0}"])
def test_hostile_names(check, name):
    x = keras.Input((9, 7, 3), name="x")
    y = encoder(name)(x)
    model = check.randomise(keras.Model(x, encoder(name + "2")(y[..., :3]), name="net"))
    module = bridge.to_torch(model)
    z = np.random.default_rng(0).normal(size=(2, 9, 7, 3)).astype("float32")
    want = np.asarray(model(z))
    assert check.relative(check.to_last(module(torch.from_numpy(check.to_first(z))).detach().numpy()), want) < 1e-5


def test_a_nested_model_is_frozen(check):
    x = keras.Input((9, 7, 3), name="x")
    inner = encoder()
    inner.trainable = False
    model = keras.Model(x, layers.Conv2D(2, 1, name="c")(inner(x)), name="net")
    module = check.both_ways(model, same_layers=False).module
    assert [k for k, p in module.named_parameters() if p.requires_grad] == ["c.weight", "c.bias"]
    assert bridge.verify(model, bridge.to_torch(model)).passed
