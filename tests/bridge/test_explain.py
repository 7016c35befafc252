"""Which trap explains a difference: every known one, put into a converted module by hand."""

import re

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge.explain import relation
from bridge.graph import Graph, Parameter

layers = keras.layers


@pytest.fixture(scope="module")
def model():
    x = keras.Input((9, 8, 3), name="x")
    y = layers.Conv2D(4, 3, strides=2, padding="same", name="a")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.LeakyReLU(0.3, name="leaky")(y)
    y = layers.Conv2D(4, 3, padding="same", name="b")(y)
    y = layers.Conv2D(4, 3, padding="same", name="c")(layers.Activation("gelu", name="gelu")(y))
    return keras.Model(x, layers.Dense(3, name="fc")(layers.Flatten(name="flat")(y)), name="net")


def swap(module):
    kept = module.b.weight.clone()
    module.b.weight.copy_(module.c.weight)
    module.c.weight.copy_(kept)


LIES = {
    "epsilon": (lambda m: setattr(m.norm, "eps", 1e-5), r"norm .*its epsilon is 1e-05 and not 0.001: the default is"),
    "slope": (lambda m: setattr(m.leaky, "negative_slope", 0.01), r"leaky .*its negative_slope is 0.01 and not 0.3"),
    "gelu": (lambda m: setattr(m.gelu, "approximate", "tanh"), r"gelu .*approximate is True and not False: keras.ops"),
    "flipped": (
        lambda m: m.b.weight.copy_(m.b.weight.flip(2, 3)),
        r"b .*kernel is Keras' reversed along axes \(0, 1\)",
    ),
    "turned": (
        lambda m: m.b.weight.copy_(m.b.weight.mT.clone()),
        r"b .*kernel is Keras' with its axes in the order \(1, 0, 2, 3\)",
    ),
    "crossed": (
        lambda m: m.b.weight.copy_(m.b.weight.transpose(0, 1).clone()),
        r"kernel is Keras' with its axes in the order \(0, 1, 3, 2\)",
    ),
    "swapped": (swap, r"b .*its kernel is that of c: two layers of the same shape are swapped"),
    "scaled": (lambda m: m.a.weight.mul_(1.25), r"a .*its kernel is Keras' times 1.25"),
    "zero": (lambda m: m.a.bias.zero_(), r"a .*its bias is zero"),
    "half": (lambda m: m.c.weight.copy_(m.c.weight.half()), r"c .*its kernel is Keras' in float16"),
    "another": (lambda m: m.fc.weight.normal_(), r"fc .*its kernel is another one"),
    "order": (
        lambda m: m.norm.bias.copy_(m.norm.bias.flip(0)),
        r"norm .*its beta is Keras' reversed along axes \(0,\)",
    ),
    "two": (
        lambda m: (m.norm.weight.mul_(2), m.norm.bias.mul_(3)),
        r"norm .*This explains it: all of these together",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_what_explains_it(check, model, name):
    lie, said = LIES[name]
    check.randomise(model)
    module = bridge.to_torch(model)
    with torch.no_grad():
        lie(module)
    report = bridge.verify(model, module)
    sentences = [s for kind, s in report.failures if kind == "forward"]
    assert len(sentences) == 1
    assert "This explains it" in sentences[0]
    assert re.search(said, sentences[0]), sentences[0]


def test_padding_on_both_sides(check):
    x = keras.Input((9, 8, 3), name="x")
    y = layers.Conv2D(4, 3, strides=2, padding="same", name="a")(x)
    model = check.randomise(keras.Model(x, y))
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, padding=1))
    module[0].load_state_dict({k.removeprefix("a."): v for k, v in bridge.to_torch(model).state_dict().items()})
    report = bridge.verify(model, module)
    assert "its pads is ((1, 1), (1, 1)) and not ((1, 1), (0, 1)): SAME puts the odd pixel" in str(report)


def test_reshaped_as_if_it_were_transposed():
    here = np.arange(24.0).reshape(2, 3, 4)
    graph = Graph("g", [], None, [], {"a.kernel": Parameter(here)}, "first")
    there = here.transpose(1, 0, 2).reshape(2, 3, 4)
    assert relation(here, there, graph, "a.kernel") == "Keras' reshaped as if its axes were in the order (1, 0, 2)"
    rng = np.random.default_rng(0)
    row = rng.normal(size=7)
    assert relation(row, rng.permutation(row), graph, "b") == "Keras' in another order"
