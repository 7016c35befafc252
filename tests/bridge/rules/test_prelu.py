"""PReLU with its slopes shared along any axes, both ways."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import bridge
from bridge import convert, torch_export

layers = keras.layers
CASES = [
    ((5,), None, "nn.PReLU(5)"),
    ((5,), [1], "nn.PReLU()"),
    ((6, 5), None, "PositionPReLU(5, 6)"),
    ((6, 5), [1], "nn.PReLU(5)"),
    ((None, 5), [1], "nn.PReLU(5)"),
    ((6, 5), [2], "PositionPReLU(1, 6)"),
    ((6, 5), [1, 2], "nn.PReLU()"),
    ((3, 4, 5), None, "PositionPReLU(5, 3, 4)"),
    ((3, 4, 5), [1, 2], "nn.PReLU(5)"),
    ((None, None, 5), [1, 2], "nn.PReLU(5)"),
    ((3, 4, 5), [1, 2, 3], "nn.PReLU()"),
    ((3, 4, 5), [1], "PositionPReLU(5, 1, 4)"),
    ((3, 4, 5), [2, 3], "PositionPReLU(1, 3, 1)"),
    ((3, 4, 1), [1, 2], "nn.PReLU()"),
    ((1, 4, 5), [2], "nn.PReLU(5)"),
    ((3, 4, 5), [0, -1], "PositionPReLU(1, 3, 1)"),
    ((2, 3, 4, 5), None, "PositionPReLU(5, 2, 3, 4)"),
    ((2, 3, 4, 5), [1, 2, 3], "nn.PReLU(5)"),
    ((2, 3, 4, 5), [1, 3], "PositionPReLU(5, 1, 3, 1)"),
]


def live(model):
    """A model whose slopes are random numbers of either sign."""
    rng = np.random.default_rng(0)
    for w in model.weights:
        w.assign(rng.normal(0, 0.5, w.shape))
    return model


@pytest.mark.parametrize("shape, shared, want", CASES)
def test_shared_axes(check, shape, shared, want):
    """[0, -1] is what Keras makes of it: it counts from the axis before."""
    layer = layers.PReLU(shared_axes=shared, name="act")
    x = keras.Input(shape, name="x")
    model = live(keras.Model(x, layer(x), name="net"))
    module, again = check.both_ways(model, size=6, randomised=False)
    text = convert.source(model).text
    assert f"self.act = {want}\n" in text
    assert "permute" not in text or len(shape) == 2
    assert again.get_layer("act").alpha.shape == layer.alpha.shape
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_between_convolutions_nothing_is_transposed(check):
    x = keras.Input((8, 7, 3), name="x")
    y = layers.PReLU(shared_axes=[1, 2], name="a")(layers.Conv2D(4, 3, name="c")(x))
    y = layers.PReLU(name="b")(layers.Conv2D(5, 3, name="d")(y))
    y = layers.PReLU(shared_axes=[1, 2, 3], name="e")(y)
    y = layers.PReLU(name="g")(layers.Dense(3, name="f")(layers.Flatten(name="flat")(y)))
    model = keras.Model(x, y, name="net")
    module = check.both_ways(model).module
    assert "permute" not in convert.source(model).text
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "shape, count",
    [
        ((2, 5), 1),
        ((2, 5), 5),
        ((2, 5, 6), 5),
        ((2, 5, 6), 1),
        ((2, 5, 6, 7), 5),
        ((2, 5, 6, 7), 1),
        ((2, 5, 3, 4, 6), 5),
    ],
)
def test_modules(shape, count):
    module = nn.Sequential(nn.PReLU(count)).double()
    with torch.no_grad():
        module[0].weight.copy_(torch.linspace(-0.5, 0.7, count) + 0.1)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape))
    model = bridge.to_keras(module, (x,))
    last = (lambda a: np.moveaxis(a, 1, -1)) if len(shape) > 3 else (lambda a: a)
    np.testing.assert_allclose(np.asarray(model(last(x.numpy()))), last(module(x).detach().numpy()), rtol=1e-12)
    assert bridge.verify(model, module).passed
    again = bridge.to_torch(model)
    torch.testing.assert_close(again(x), module(x), rtol=0, atol=0)
    np.testing.assert_array_equal(next(again.parameters()).detach().numpy(), module[0].weight.detach().numpy())


@pytest.mark.parametrize("shared", [None, [1, 2], [1, 2, 3], [1]])
def test_gradients_and_extreme_values(check, shared):
    layer = layers.PReLU(shared_axes=shared)
    x = keras.Input((3, 4, 5), name="x")
    model = live(keras.Model(x, layer(x), name="net"))
    data = np.random.default_rng(1).uniform(-50, 50, (2, 3, 4, 5))
    double = check.in_dtype(model)
    variable = tf.Variable(data)
    with tf.GradientTape() as tape:
        want = double(variable)
        total = tf.reduce_sum(want * want)
    wanted, alpha = tape.gradient(total, [variable, double.trainable_variables[0].value])
    module = bridge.to_torch(double)
    tensor = torch.from_numpy(np.moveaxis(data, -1, 1).copy()).requires_grad_()
    have = module(tensor)
    (have * have).sum().backward()
    np.testing.assert_allclose(np.moveaxis(have.detach().numpy(), 1, -1), want, rtol=1e-12)
    np.testing.assert_allclose(np.moveaxis(tensor.grad.numpy(), 1, -1), wanted, rtol=1e-12)
    slope = next(module.parameters()).grad.numpy()
    np.testing.assert_allclose(
        slope.ravel() if slope.ndim == 1 else np.moveaxis(slope, 0, -1).ravel(), np.ravel(alpha), rtol=1e-9
    )


def test_frozen_slopes_stay_frozen(check):
    x = keras.Input((5,), name="x")
    layer = layers.PReLU(name="act")
    model = keras.Model(x, layers.Dense(2, name="d")(layer(x)), name="net")
    layer.trainable = False
    module, again = check.both_ways(model)
    assert not module.act.weight.requires_grad and not again.get_layer("act").trainable


def test_the_helper_survives():
    """deepcopy, double, pickle, torch.compile, and an export with an open size."""
    x = keras.Input((None, 4, 3), name="x")
    module = bridge.to_torch(live(keras.Model(x, layers.PReLU(shared_axes=[1])(x), name="net")))
    data = torch.randn(2, 3, 5, 4)
    want = module(data)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.compile(module, backend="eager")):
        torch.testing.assert_close(other(data), want, rtol=0, atol=0)
    assert copy.deepcopy(module).double()(data.double()).dtype == torch.float64
    longer = torch.randn(2, 3, 9, 4)
    torch.testing.assert_close(
        torch_export.export(module, (data,), [{0, 2}]).module()(longer), module(longer), rtol=0, atol=0
    )


class Computed(nn.Module):
    def forward(self, x):
        return torch.nn.functional.prelu(x, x.mean().reshape(1))


def test_slopes_that_are_computed_are_refused():
    with pytest.raises(
        bridge.BridgeError, match=r"Computed.*\n.*weight is computed by the module, not stored; store it"
    ):
        bridge.to_keras(Computed(), (torch.randn(2, 3),))
