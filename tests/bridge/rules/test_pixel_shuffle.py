"""Pixel shuffles in both orders, and permutations of channels, both ways."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops
SHUFFLES = [nn.PixelShuffle, nn.PixelUnshuffle]


def from_torch(check, module, *shape, dynamic=None):
    """Carry a module to Keras and back, which keeps every bit, as nothing is computed; return the Keras model."""
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    want = module(x).detach().numpy()
    model = check.to_keras(module, (x,), dynamic)
    np.testing.assert_array_equal(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want)
    again = bridge.to_torch(model)
    np.testing.assert_array_equal(again(x).detach().numpy(), want)
    check.same_graph(model, again, (x,), dynamic)
    return model


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("block_size, channels", [(2, 3), (3, 2), (2, 1)])
@pytest.mark.parametrize("function", [ops.depth_to_space, ops.space_to_depth])
def test_tensorflow_order(check, function, block_size, channels, data_format):
    depth = channels * block_size**2 if function is ops.depth_to_space else channels
    shape = [block_size * 2, block_size, depth]
    x = keras.Input(shape if data_format == "channels_last" else np.roll(shape, 1).tolist(), name="image")
    model = keras.Model(x, function(x, block_size, data_format))
    module, again = check.both_ways(model, limit=1e-15)
    assert ("nn.Pixel" in inspect.getsource(type(module))) == (channels == 1)  # for one channel the orders are one
    assert not any(type(o).__name__ == "Take" for o in again.operations)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("block_size, channels", [(2, 3), (3, 2), (2, 1)])
@pytest.mark.parametrize("kind", SHUFFLES)
def test_torch_order(check, kind, block_size, channels, is_open):
    depth = channels * block_size**2 if kind is nn.PixelShuffle else channels
    dynamic = [{0, 2, 3}] if is_open else None
    model = from_torch(check, nn.Sequential(kind(block_size)), depth, block_size * 2, block_size * 3, dynamic=dynamic)
    assert sum(type(o).__name__ == "Take" for o in model.operations) == (channels > 1)
    module = bridge.to_torch(model)
    assert isinstance(module[0] if isinstance(module, nn.Sequential) else next(module.children()), kind)


@pytest.mark.parametrize("function", [ops.depth_to_space, ops.space_to_depth])
def test_open_sizes(check, function):
    x = keras.Input((None, None, 8), name="image")
    check.both_ways(keras.Model(x, function(x, 2)), limit=1e-15, size=6)


@pytest.mark.parametrize("groups, channels", [(2, 6), (3, 6), (4, 12), (1, 4), (6, 6)])
@pytest.mark.parametrize("shape", [(3, 4), (5,)])
def test_channel_shuffle(check, groups, channels, shape):
    from_torch(check, nn.Sequential(nn.ChannelShuffle(groups)), channels, *shape) if len(shape) > 1 else None
    x = keras.Input((*shape, channels), name="image")
    indices = np.arange(channels).reshape(groups, -1).T.ravel()
    module = check.both_ways(keras.Model(x, ops.take(x, indices, axis=-1)), limit=1e-15).module
    assert ("nn.ChannelShuffle" in inspect.getsource(type(module))) == (1 < groups < channels)


@pytest.mark.parametrize("axis, shape", [(-1, (4, 5, 3)), (3, (None, None, 3)), (1, (3, 4)), (1, (3,)), (2, (4, 3, 5))])
def test_permutation_of_channels(check, axis, shape):
    """As from RGB to BGR."""
    x = keras.Input(shape, name="image")
    model = keras.Model(x, ops.take(x, [2, -2, 0], axis=axis))
    module = check.both_ways(model, limit=1e-15).module
    assert "ChannelPermutation(3)" in inspect.getsource(type(module))
    assert [k.split(".")[-1] for k in module.state_dict()] == ["indices"]


class Upscaler(nn.Module):
    """The end of a network for super-resolution."""

    def __init__(self):
        super().__init__()
        self.a, self.shuffle = nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)
        self.b, self.channels, self.back = nn.Conv2d(3, 4, 3, padding=1), nn.ChannelShuffle(2), nn.PixelUnshuffle(2)

    def forward(self, x):
        return self.back(self.channels(self.b(self.shuffle(self.a(x)))))


def test_network():
    torch.manual_seed(0)
    module, x = Upscaler().eval(), torch.randn(2, 3, 6, 5)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, report
    assert not any(isinstance(layer, layers.Permute) for layer in model.layers)
    again = bridge.to_torch(model)
    assert [type(m) for m in again.children()] == [type(m) for m in module.children()]
    assert bridge.verify(model, again).passed


def test_the_orders_are_told_apart():
    """A Keras model in TensorFlow's order and a torch module in its own are not the same."""
    x = keras.Input((4, 4, 8), name="image")
    report = bridge.verify(keras.Model(x, ops.depth_to_space(x, 2)), nn.PixelShuffle(2))
    assert not report.passed and any("order is DCR in Keras and CRD in torch" in text for _, text in report.failures)


def test_a_permutation_that_others_read_stays(check):
    x = keras.Input((4, 4, 8), name="image")
    y = ops.take(x, np.arange(8).reshape(2, 4).T.ravel(), axis=-1)
    check.both_ways(keras.Model(x, [ops.depth_to_space(y, 2), y]), limit=1e-15)
    y = ops.take(x, np.arange(8).reshape(4, 2).T.ravel(), axis=-1)  # not the one of a block
    check.both_ways(keras.Model(x, ops.depth_to_space(y, 2)), limit=1e-15)


def test_helpers_survive():
    x = keras.Input((4, 4, 8), name="image")
    y = ops.space_to_depth(ops.depth_to_space(ops.take(x, [7, 5, 6, 4, 0, 2, 1, 3], axis=-1), 2), 2)
    module = bridge.to_torch(keras.Model(x, y))
    assert all(name in inspect.getsource(inspect.getmodule(type(module))) for name in bridge_helpers())
    image = torch.randn(2, 8, 4, 4)
    want = module(image)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    others = [compiled, copy.deepcopy(module), pickle.loads(pickle.dumps(module)), module.double(), module.half()]
    for other in others:
        dtype = torch.float16 if other is module else torch.float32
        assert torch.equal(other(image.to(dtype)), want.to(dtype))


def bridge_helpers():
    from bridge.rules import pixel_shuffle

    return pixel_shuffle.HELPERS


def test_open_sizes_behind_an_unshuffle(check):
    """Where torch.export has sizes with a remainder."""
    layers = nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 1), nn.ReLU(), nn.PixelShuffle(2)
    module = nn.Sequential(*layers).eval()
    model = bridge.to_keras(module, (torch.randn(2, 3, 6, 4),), [{0, 2, 3}])
    for size in ((1, 3, 8, 10), (3, 3, 4, 4)):
        x = torch.randn(size)
        have = check.to_first(np.asarray(model(check.to_last(x.numpy()))))
        np.testing.assert_allclose(have, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert bridge.verify(model, bridge.to_torch(model)).passed
