"""The normal form that both readers give."""

import keras
import pytest
import torch

from bridge import keras_reader, torch_reader

layers = keras.layers


def read(*stack, shape=(9, 8, 3)):
    y = x = keras.Input(shape, name="x")
    for layer in stack:
        y = layer(y)
    return keras_reader.read(keras.Model(x, y))


@pytest.mark.parametrize(
    "pads, padding, want",
    [
        (((1, 2), (0, 3)), "valid", ((1, 2), (0, 3))),
        (((1, 2), (0, 3)), "same", ((2, 3), (1, 4))),
        (3, "valid", ((3, 3), (3, 3))),
    ],
)
def test_padding_goes_into_the_convolution(pads, padding, want):
    graph = read(layers.ZeroPadding2D(pads), layers.Conv2D(4, 3, padding=padding))
    assert [n.operator for n in graph.nodes] == ["convolution"] and graph.nodes[0]["pads"] == want
    assert graph.nodes[0].inputs == graph.inputs


@pytest.mark.parametrize(
    "stack",
    [
        (layers.Cropping2D(1), layers.Conv2D(4, 3)),  # negative
        (
            layers.ZeroPadding2D(1),
            layers.Conv2D(4, 3, strides=2, padding="same"),
        ),  # at an open size the pads are not known
        (layers.ZeroPadding2D(1), layers.ReLU(), layers.Conv2D(4, 3)),
        (
            layers.ZeroPadding2D(1, data_format="channels_first"),
            layers.Conv2D(4, 3),
        ),  # it pads the convolution's channels
    ],
)
def test_what_does_not_fit_stays(stack):
    graph = read(*stack, shape=(None, None, 3) if stack[0].data_format == "channels_last" else (3, 8, 8))
    assert graph.nodes[0].operator == "padding"


def test_padding_with_another_value_stays():
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.c(torch.nn.functional.pad(x, (1, 1, 1, 1), value=2.0))

    assert [n.operator for n in torch_reader.read(Module(), (torch.randn(2, 3, 6, 6),)).nodes] == [
        "padding",
        "convolution",
    ]


def test_both_sides_read_the_same():
    module = torch.nn.Sequential(torch.nn.ZeroPad2d((0, 3, 1, 2)), torch.nn.Conv2d(3, 4, 3, padding=1))
    theirs = torch_reader.read(module, (torch.randn(2, 3, 9, 8),)).nodes
    mine = read(layers.ZeroPadding2D(((1, 2), (0, 3))), layers.Conv2D(4, 3, padding="same")).nodes
    assert len(mine) == len(theirs) == 1 and {**mine[0].attributes, "axis": 1} == theirs[0].attributes


def test_identities_vanish():
    graph = read(
        layers.Activation("linear"), layers.Permute((1, 2, 3)), layers.Conv2D(4, 3), layers.Activation("linear")
    )
    assert [n.operator for n in graph.nodes] == ["convolution"]
    assert graph.nodes[0].inputs == graph.inputs and graph.outputs == graph.nodes[0].outputs[0]
    assert read(layers.Activation("linear")).outputs.name == "x"
