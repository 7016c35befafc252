"""Depthwise convolution over the product of its options, both ways; what TensorFlow has no kernel for is grouped."""

import copy

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import convert, keras_reader

layers = keras.layers
CONFIG = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "use_bias", "activation")


def one(layer, *shape):
    """A model of one layer."""
    x = keras.Input(shape, name="image")
    return keras.Model(x, layer(x))


@pytest.mark.parametrize("size", [9, None])
@pytest.mark.parametrize(
    "stride, dilation, multiplier, kernel", [(1, 1, 1, 4), (2, 1, 2, 3), (1, 2, 2, 2), (3, 2, 1, 3)]
)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rank", [1, 2])
def test_options(check, rank, padding, stride, dilation, multiplier, kernel, size):
    layer = getattr(layers, f"DepthwiseConv{rank}D")(
        kernel, stride, padding, multiplier, dilation_rate=dilation, use_bias=stride != 3, name="depthwise"
    )
    model = one(layer, *[size] * (rank - 1), size and size + 2, 3)
    _, again = check.both_ways(model, size=8)
    if stride == 1 or size is None or padding == "valid":
        have, want = ({k: v.get_config()[k] for k in CONFIG} for v in (again.get_layer("depthwise"), layer))
        assert have == want


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "kernel, strides, dilation", [((2, 3), 1, (1, 2)), ((3, 1), 2, 1), (3, (1, 2), (2, 1)), (2, (3, 2), (1, 3))]
)
def test_axes_that_differ(check, padding, kernel, strides, dilation):
    layer = layers.DepthwiseConv2D(kernel, strides, padding, 2, dilation_rate=dilation, name="depthwise")
    check.both_ways(one(layer, 10, None, 3), size=11)


@pytest.mark.parametrize("multiplier", [1, 3])
def test_output_channels_are_in_order(multiplier):
    """Channel c * multiplier + q is of channel c: of a kernel of one cell it is the product."""
    model = one(layers.DepthwiseConv2D(1, depth_multiplier=multiplier, use_bias=False), 1, 1, 4)
    kernel = np.arange(1.0, 4 * multiplier + 1).reshape(4, multiplier)
    model.layers[1].set_weights([kernel[None, None]])
    x = torch.tensor([2.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1, 1)
    want = [x[0, c].item() * kernel[c, q] for c in range(4) for q in range(multiplier)]
    np.testing.assert_array_equal(bridge.to_torch(model)(x).detach().numpy().ravel(), want)


@pytest.mark.parametrize(
    "rank, multiplier, stride, padding",
    [(1, 2, 1, "causal"), (1, 3, 2, "valid"), (2, 2, 2, "same")],
)
def test_groups_of_one_channel_are_depthwise(check, rank, multiplier, stride, padding):
    """A Keras convolution with a group for each channel is the same node, and comes back as one."""
    layer = getattr(layers, f"Conv{rank}D")(3 * multiplier, 3, stride, padding, groups=3, activation="tanh", name="c")
    model = check.randomise(one(layer, *[7] * rank, 3))
    assert keras_reader.read(model).nodes[0].operator == "depthwise_convolution"
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    module, tensor = bridge.to_torch(model), torch.from_numpy(check.to_first(x))
    assert check.relative(check.to_last(module(tensor).detach().numpy()), model(x)) < 2e-6
    again = check.to_keras(module, (tensor,))
    assert check.relative(again(x), model(x)) < 2e-6
    back = again.get_layer("c")
    assert type(back) is getattr(layers, f"DepthwiseConv{rank}D") and back.activation is keras.activations.tanh
    np.testing.assert_array_equal(np.asarray(back.kernel).reshape(layer.kernel.shape), layer.kernel)
    check.same_graph(model, module, (tensor,))


def test_groups_called_twice(check):
    """The kernel of a shared layer is rearranged once."""
    x, y = keras.Input((7, 6, 3), name="x"), keras.Input((8, 6, 3), name="y")
    layer = layers.Conv2D(6, 3, 2, groups=3, name="c")
    model = check.randomise(keras.Model([x, y], [layer(x), layer(y)]))
    module = bridge.to_torch(model)
    assert type(module.c) is nn.Conv2d and module.c.weight.shape == (6, 1, 3, 3)
    check.same_graph(model, module, (torch.randn(2, 3, 7, 6), torch.randn(2, 3, 8, 6)))


@pytest.mark.parametrize(
    "layer",
    [
        layers.DepthwiseConv2D(3, 2, "same", 4, activation="relu", name="c"),
        layers.DepthwiseConv1D(2, depth_multiplier=2, use_bias=False, name="c"),
    ],
)
def test_one_channel_is_a_plain_convolution(check, layer):
    module, again = check.both_ways(one(layer, *[7] * layer.rank, 1))
    assert module.c.groups == 1
    assert type(again.get_layer("c")) is getattr(layers, f"Conv{layer.rank}D")


def test_three_axes_have_no_depthwise_layer(check):
    module, again = check.both_ways(one(layers.Conv3D(6, 2, groups=3, name="c"), 4, 3, 5, 3))
    assert type(again.get_layer("c")) is layers.Conv3D and module.c.groups == 3


@pytest.mark.parametrize("padding, multiplier", [("same", 1), ("valid", 2)])
def test_strides_that_tensorflow_refuses(check, padding, multiplier):
    """It runs them in float32 on some processors alone; as a convolution with groups, on all."""
    strides = (2, 1)
    model = check.randomise(one(layers.DepthwiseConv2D(3, strides, padding, multiplier, name="depthwise"), 7, 6, 3))
    whole = one(layers.DepthwiseConv2D(3, 1, "valid", multiplier, name="depthwise"), None, None, 3)
    whole.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))) if padding == "same" else x
    want = np.asarray(whole(padded))[:, ::2]
    module, tensor = bridge.to_torch(model), torch.from_numpy(check.to_first(x))
    assert check.relative(check.to_last(module(tensor).detach().numpy()), want) < 2e-6
    again = bridge.to_keras(module, (tensor,))
    assert type(again.get_layer("depthwise")) is layers.Conv2D
    assert check.relative(again(x), want) < 2e-6
    assert bridge.verify(again, module).passed  # its gradients, too
    check.same_graph(model, module, (tensor,))


@pytest.mark.parametrize(
    "stride, dilation, multiplier, kernel, padding",
    [(1, 1, 1, 3, 1), (2, 1, 2, 2, 0), (1, 2, 1, 4, "same"), (2, 3, 2, 3, 1), (2, 2, 1, 3, "valid")],
)
@pytest.mark.parametrize("rank", [1, 2])
def test_from_torch(check, rank, stride, dilation, multiplier, kernel, padding):
    convolution = getattr(nn, f"Conv{rank}d")
    options = {"padding": padding, "dilation": dilation, "groups": 3, "bias": kernel != 4}
    module = nn.Sequential(convolution(3, 3 * multiplier, kernel, stride, **options), nn.Tanh())
    model = check.from_torch(module, torch.randn(2, 3, *[9, 10][:rank]))
    layer = next(v for v in model.layers if isinstance(v, getattr(layers, f"DepthwiseConv{rank}D")))
    assert layer.name == "0" and layer.depth_multiplier == multiplier


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_of_torch(check, mode):
    module = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, groups=3, padding_mode=mode))
    check.from_torch(module, torch.randn(2, 3, 7, 6))


def test_idiomatic(check):
    """The block of a MobileNet is two plain modules; the padding is the convolution's own, the ReLU6 a module."""
    x = keras.Input((9, 9, 4), name="image")
    y = layers.ZeroPadding2D(1)(x)
    y = layers.DepthwiseConv2D(3, strides=2, use_bias=False, name="depthwise")(y)
    model = keras.Model(x, layers.Conv2D(6, 1, use_bias=False, name="pointwise")(layers.ReLU(6.0)(y)))
    text = convert.source(model).text
    assert "self.depthwise = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False)\n" in text
    assert "self.depthwise(image)" in text
    module, again = check.both_ways(model)
    assert [v.name for v in again.layers if v.weights] == ["depthwise", "pointwise"]
    assert bridge.verify(model, module).passed


class Twice(nn.Module):
    """One module at two sizes, at one of which its padding is Keras' own."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(3, 6, 3, 2, 1, groups=3)

    def forward(self, x, y):
        return self.depthwise(x).mean((2, 3)) + self.depthwise(y).mean((2, 3))


def test_called_at_sizes_that_are_padded_differently(check):
    model = check.from_torch(Twice(), torch.randn(2, 3, 9, 9), torch.randn(2, 3, 8, 8))
    assert model.get_layer("depthwise").padding == "valid"
    x, y = keras.Input((8, 8, 3), name="x"), keras.Input((9, 9, 3), name="y")
    layer = layers.DepthwiseConv2D(3, 2, "same", activation="relu", name="depthwise")
    _, again = check.both_ways(keras.Model([x, y], [layer(x), layer(y)]))
    assert again.get_layer("depthwise").padding == "same"


@pytest.mark.parametrize("trainable", [True, False])
def test_verified(check, trainable):
    layer = layers.DepthwiseConv2D(3, 2, "same", 2, dilation_rate=2, activation="relu", trainable=trainable)
    model = check.randomise(one(layer, 9, 8, 3))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    wrong = copy.deepcopy(module)
    with torch.no_grad():
        next(wrong.parameters()).copy_(next(wrong.parameters()).flip(0))  # the channels in another order
    assert not bridge.verify(model, wrong).passed


def test_verified_from_torch():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1, groups=4), nn.ReLU(), nn.Conv2d(8, 3, 1)).eval()
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 4, 7, 9),)), module).passed


def test_channels_first(check):
    """Keras transposes where TensorFlow has no such kernel."""
    x = keras.Input((5, 6, 3), name="image")
    options = {"kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 2, "name": "depthwise"}
    y = layers.DepthwiseConv2D(data_format="channels_first", **options)(layers.Permute((3, 1, 2))(x))
    model = keras.Model(x, layers.Permute((2, 3, 1))(y))
    module, again = check.both_ways(model)
    assert [type(v) for v in again.layers] == [layers.InputLayer, layers.DepthwiseConv2D]
    assert bridge.verify(model, module).passed


def test_open_sizes_compile(check):
    model = check.randomise(one(layers.DepthwiseConv2D(3, 2, "same", dilation_rate=2, name="depthwise"), None, None, 3))
    module = bridge.to_torch(model)
    assert type(module.depthwise).__name__ == "Conv2dSame"
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for size in (7, 8):
        x = torch.randn(2, 3, size, 9)
        torch.testing.assert_close(compiled(x), module(x))
        want = np.asarray(model(check.to_last(x.numpy())))
        assert check.relative(check.to_last(module(x).detach().numpy()), want) < 2e-6


def test_no_batch_is_refused():
    with pytest.raises(bridge.BridgeError, match="has no batch; give it a batch"):
        bridge.to_keras(nn.Conv2d(4, 4, 3, groups=4), (torch.randn(4, 5, 5),), [set()])
