"""Slices, indices and splits, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops

INDICES = [
    lambda x: x[:, 1:3],
    lambda x: x[:, :, 1:],
    lambda x: x[..., -2:],
    lambda x: x[:, ::2, 1:-1],
    lambda x: x[:, 2],
    lambda x: x[:, -1],
    lambda x: x[..., 0, :],
    lambda x: x[:, None, 1:3, 0],
    lambda x: x[:, :, None],
    lambda x: x[:, 0:99],
    lambda x: x[:, 1:3, ::3, 4],
]


@pytest.mark.parametrize("index", INDICES)
def test_indices(check, index):
    x = keras.Input((5, 7, 6), name="x")
    model = keras.Model(x, layers.ReLU()(index(x)))
    module = check.both_ways(model).module
    check.same_graph(model, module, (torch.randn(2, 6, 5, 7),))


@pytest.mark.parametrize("index", INDICES)
def test_indices_of_torch(check, index):
    class Module(torch.nn.Module):
        def forward(self, x):
            return index(x) * 2

    x = torch.randn(2, 5, 7, 6)
    model = bridge.to_keras(Module(), (x,))
    np.testing.assert_array_equal(check.to_first(np.asarray(model(check.to_last(x.numpy())))), Module()(x).numpy())
    assert bridge.verify(model, Module()).passed


@pytest.mark.parametrize(
    "index", [lambda x: x[:, 1:-1], lambda x: x[:, :-2, 3:], lambda x: x[:, -1], lambda x: x[:, 2]]
)
def test_open_sizes(check, index):
    x = keras.Input((None, None, 6), name="x")
    check.both_ways(keras.Model(x, layers.ReLU()(index(x))))


def test_computed_bound_refused():
    x, n = keras.Input((None, 3), name="x"), keras.Input((), batch_size=1, dtype="int32", name="n")
    with pytest.raises(bridge.BridgeError, match="GetItem"):
        bridge.to_torch(keras.Model([x, n], x[:, : n[0]]))


def test_split_channels_between_convolutions(check):
    """The parts are taken where the layout has the channels."""
    x = keras.Input((6, 7, 3), name="x")
    a, b, c = ops.split(layers.Conv2D(8, 3, name="c0")(x), [3, 4], axis=-1)
    y = layers.Concatenate()([layers.Conv2D(2, 1, name="c1")(a), b, layers.Conv2D(3, 1, name="c2")(c)])
    module, again = check.both_ways(keras.Model(x, y))
    assert "permute" not in inspect.getsource(type(module))
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_split_and_unstack(check, axis):
    x = keras.Input((4, 6, 2), name="x")
    check.both_ways(keras.Model(x, [layers.ReLU()(y) for y in ops.split(x, 2, axis=axis)]))
    check.both_ways(keras.Model(x, [layers.ReLU()(y) for y in ops.unstack(x, axis=axis)]))


class Splits(torch.nn.Module):
    """Every way that torch has to take a tensor apart."""

    def forward(self, x):  # (B, 7, 5, 6)
        a, b, c = x.chunk(3, 1)  # 3, 3, 1
        d, e = x.split([2, 5], 1)
        f, g = torch.tensor_split(x, 2, 3)
        h = torch.stack(x.unbind(2)[1:3], 1)
        one = x.narrow(1, 2, 3) + a + b + c + d[:, 1:]
        return one + e.split(3, 1)[0], f * g, h, x.select(1, -2)


def test_the_ways_of_torch(check):
    x = torch.randn(2, 7, 5, 6)
    model = bridge.to_keras(Splits(), (x,))
    for have, want in zip(model(check.to_last(x.numpy())), Splits()(x), strict=True):
        np.testing.assert_allclose(check.to_first(np.asarray(have)), want.numpy(), rtol=1e-6)
    assert bridge.verify(model, Splits()).passed


def test_what_is_refused():
    x = keras.Input((None, 3), name="x")
    with pytest.raises(bridge.BridgeError, match=r"step -1; use a positive step, and flip"):
        bridge.to_torch(keras.Model(x, x[:, ::-1]))


@pytest.mark.parametrize("key", [(slice(None), -1), (slice(None), 0), (slice(None), slice(None), 2)], ids=str)
def test_what_leaves_two_axes(check, key):
    """The last step of a sequence: there a slice and a Flatten are one thing."""
    x = keras.Input((7, 5), name="x")
    model = keras.Model(x, layers.Dense(2)(layers.Conv1D(4, 3)(x)[key]))
    module = check.both_ways(model, same_layers=False).module
    assert bridge.verify(model, module).passed
