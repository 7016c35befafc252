"""Separable convolution over the product of its options: two convolutions in torch, and on the way back."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import convert

layers = keras.layers


def one(layer, *shape):
    """A model of one layer."""
    x = keras.Input(shape, name="image")
    return keras.Model(x, layer(x))


@pytest.mark.parametrize("size", [9, None])
@pytest.mark.parametrize("stride, dilation, multiplier, kernel", [(2, 1, 2, 3), (1, 2, 1, 2), (3, 2, 1, 3)])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rank", [1, 2])
def test_options(check, rank, padding, stride, dilation, multiplier, kernel, size):
    layer = getattr(layers, f"SeparableConv{rank}D")(
        4, kernel, stride, padding, None, dilation, multiplier, use_bias=stride != 3, name="sep"
    )
    model = one(layer, *[size] * (rank - 1), size and size + 2, 3)
    module, again = check.both_ways(model, size=8, same_layers=False)
    for have, want in zip(again.weights, module_weights(module, rank), strict=True):
        np.testing.assert_array_equal(have, want)
    assert [v.name for v in again.layers if v.weights] == ["sep_depthwise", "sep_pointwise"]


def module_weights(module, rank):
    """The weights of the two modules as Keras has them, rearranged by hand."""
    depthwise, pointwise = module.sep_depthwise, module.sep_pointwise
    axes = tuple(range(2, rank + 2))
    multiplier = len(depthwise.weight) // 3
    kernel = depthwise.weight.detach().numpy().reshape(3, multiplier, *depthwise.kernel_size)
    found = [kernel.transpose(*axes, 0, 1), pointwise.weight.detach().numpy().transpose(*axes, 1, 0)]
    return found + ([] if pointwise.bias is None else [pointwise.bias.detach().numpy()])


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides, dilation", [(1, (1, 2)), ((1, 2), (2, 1)), ((2, 3), 2)])
def test_axes_that_differ(check, padding, strides, dilation):
    layer = layers.SeparableConv2D(4, (3, 2), strides, padding, dilation_rate=dilation, name="sep")
    check.both_ways(one(layer, 10, None, 3), size=9, same_layers=False)


def test_strides_that_tensorflow_refuses(check):
    """As of a depthwise convolution: torch can run it, and Keras can where it is a convolution with groups."""
    model = check.randomise(one(layers.SeparableConv2D(4, 3, (2, 1), "same", depth_multiplier=2, name="sep"), 7, 6, 3))
    whole = one(layers.SeparableConv2D(4, 3, 1, "valid", depth_multiplier=2, name="sep"), None, None, 3)
    whole.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    want = np.asarray(whole(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))))[:, ::2]
    module, tensor = bridge.to_torch(model), torch.from_numpy(check.to_first(x))
    assert check.relative(check.to_last(module(tensor).detach().numpy()), want) < 2e-6
    assert check.relative(bridge.to_keras(module, (tensor,))(x), want) < 2e-6


def test_source_and_activation(check):
    """The stride is the depthwise module's, the bias and the activation the pointwise one's."""
    layer = layers.SeparableConv2D(6, 3, 2, "same", activation="relu", name="sep")
    model = one(layer, 7, 9, 4)
    text = convert.source(model).text
    assert "self.sep_depthwise = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False)\n" in text
    assert "self.sep_pointwise = nn.Conv2d(4, 6, 1)\n" in text
    module, again = check.both_ways(model, same_layers=False, back="float32")
    kinds = [layers.InputLayer, layers.DepthwiseConv2D, layers.Conv2D]
    assert [type(v) for v in again.layers] == kinds and again.layers[2].activation is keras.activations.relu
    assert not again.layers[1].use_bias
    assert bridge.verify(model, module).passed
    assert bridge.verify(again, module).passed


def test_one_channel(check):
    module, again = check.both_ways(
        one(layers.SeparableConv2D(4, 3, depth_multiplier=2, name="sep"), 7, 6, 1), same_layers=False
    )
    assert module.sep_depthwise.groups == 1
    assert [type(v) for v in again.layers[1:]] == [layers.Conv2D] * 2


@pytest.mark.parametrize("trainable", [True, False])
def test_shared_and_frozen(check, trainable):
    """Called twice it is two modules called twice; in a nested model they have its name before theirs."""
    x, y = keras.Input((8, 8, 3), name="x"), keras.Input((10, 10, 3), name="y")
    layer = layers.SeparableConv2D(4, 3, 2, "same", name="sep", trainable=trainable)
    inner = keras.Sequential([keras.Input((None, None, 4)), layers.SeparableConv2D(2, 2, name="sep")], name="inner")
    model = check.randomise(keras.Model([x, y], [inner(layer(x)), inner(layer(y))]))
    module = bridge.to_torch(model)
    assert len([m for m in module.modules() if isinstance(m, nn.Conv2d)]) == 4
    assert all(p.requires_grad is trainable for p in module.sep_pointwise.parameters())
    assert bridge.verify(model, module).passed


def test_channels_first(check):
    x = keras.Input((5, 6, 3), name="image")
    options = {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 2, "name": "sep"}
    y = layers.SeparableConv2D(data_format="channels_first", **options)(layers.Permute((3, 1, 2))(x))
    model = keras.Model(x, layers.Permute((2, 3, 1))(y))
    module, again = check.both_ways(model, same_layers=False)
    assert [type(v) for v in again.layers] == [layers.InputLayer, layers.DepthwiseConv2D, layers.Conv2D]
    assert bridge.verify(model, module).passed
