"""BatchNorm folded into what stands before it."""

import inspect

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge

layers = keras.layers


def count(module):
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) for m in module.modules())


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(4, 3, strides=2, padding="same", name="c"),
        lambda: layers.Conv2D(4, 3, groups=2, use_bias=False, name="c"),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, name="c"),
        lambda: layers.SeparableConv2D(5, 3, padding="same", name="c"),
        lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same", use_bias=False, name="c"),
        lambda: layers.Dense(5, name="c"),
    ],
)
@pytest.mark.parametrize("trainable", [True, False])
def test_folded(check, layer, trainable):
    x = keras.Input((9, 8, 6), name="x")
    norm = layers.BatchNormalization(name="norm", trainable=trainable)
    model = check.randomise(keras.Model(x, layers.ReLU()(norm(layer()(x)))))
    module = bridge.to_torch(model).double()
    folded = bridge.fold_batchnorm(module)
    assert count(module) == 1 and count(folded) == 0 and not folded.training
    z = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    assert check.relative(folded(z).detach(), module(z).detach()) < 1e-12
    assert "norm" not in inspect.getsource(type(folded))


def test_what_stays(check):
    """A BatchNorm behind a sum, behind a convolution that is read twice or is called twice, and the first layer."""
    x = keras.Input((9, 8, 3), name="x")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    a = layers.BatchNormalization(name="a")(layers.Add()([shared(layers.BatchNormalization(name="first")(x)), x]))
    b = shared(a)
    c = layers.Conv2D(3, 1, name="twice")(b)
    d = layers.Concatenate()([layers.BatchNormalization(name="b")(b), layers.BatchNormalization(name="c")(c), c])
    model = check.randomise(keras.Model(x, layers.BatchNormalization(name="d")(layers.Conv2D(2, 1, name="last")(d))))
    module = bridge.to_torch(model)
    folded = bridge.fold_batchnorm(module)
    assert count(module) == 5 and count(folded) == 4
    z = torch.randn(2, 3, 9, 8)
    assert check.relative(folded(z).detach(), module(z).detach()) < 1e-5


def test_a_module_of_ones_own(check):
    module = nn.Sequential(nn.Conv1d(3, 4, 3, bias=False), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(20, 3)).eval()
    with torch.no_grad():
        module[1].running_mean.normal_()
        module[1].running_var.uniform_(0.5, 2)
    with pytest.raises(bridge.BridgeError, match="Sequential was not written by the bridge: pass example_inputs"):
        bridge.fold_batchnorm(module)
    x = torch.randn(2, 3, 7)
    folded = bridge.fold_batchnorm(module, (x,))
    assert count(folded) == 0 and check.relative(folded(x).detach(), module(x).detach()) < 1e-5
    assert folded(torch.randn(5, 3, 7)).shape == (5, 3)


def test_the_module_is_not_changed(check):
    x = keras.Input((None, None, 3), name="x")
    model = check.randomise(keras.Model(x, layers.BatchNormalization(name="n")(layers.Conv2D(4, 3, name="c")(x))))
    module = bridge.to_torch(model)
    before = {k: np.array(v) for k, v in module.state_dict().items()}
    bridge.fold_batchnorm(module)
    for k, v in module.state_dict().items():
        np.testing.assert_array_equal(v, before[k])
