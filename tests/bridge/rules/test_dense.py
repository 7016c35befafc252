"""Dense on tensors of rank 2 to 5, both ways."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 5, 6), (3, 4, 5, 6), (None, None, 6)])
def test_ranks(check, shape, use_bias):
    x = keras.Input(shape, name="x")
    module, again = check.both_ways(keras.Model(x, layers.Dense(4, use_bias=use_bias, activation="relu", name="fc")(x)))
    assert isinstance(module.fc, torch.nn.Linear) and (module.fc.bias is not None) == use_bias
    assert again.get_layer("fc").activation is keras.activations.relu and again.get_layer("fc").use_bias == use_bias


def test_between_convolutions(check):
    """Dense acts on the channels wherever the layout has put them."""
    x = keras.Input((6, 5, 3), name="x")
    y = layers.Dense(4, name="fc")(layers.Conv2D(5, 3, name="c1")(x))
    check.both_ways(keras.Model(x, layers.Conv2D(2, 3, name="c2")(y)))
    x = keras.Input((6, 3), name="x")
    y = layers.Dense(4, name="fc")(layers.Conv1D(5, 3, name="c1")(x))
    check.both_ways(keras.Model(x, layers.Conv1D(2, 3, name="c2")(y)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_from_torch_and_back(check, shape, bias):
    module = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=bias)).double()
    x = torch.randn(shape, dtype=torch.float64)
    model = bridge.to_keras(module, (x,))
    with torch.no_grad():
        want = module(x).numpy()
        assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-9
        assert check.relative(bridge.to_torch(model)(x).numpy(), want) < 1e-9


def test_a_frozen_bias_alone_is_refused():
    module = torch.nn.Sequential(torch.nn.Linear(6, 4))
    module[0].bias.requires_grad_(False)
    with pytest.raises(bridge.BridgeError, match=r"(?s)0 .dense.: .*'kernel'.* trained and .*'bias'.* not.*freeze all"):
        bridge.to_keras(module, (torch.randn(2, 6),))


def test_frozen(check):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(2, name="b")(layers.Dense(4, trainable=False, name="a")(x)))
    module, again = check.both_ways(model)
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]
    assert [x.trainable for x in again.layers[1:]] == [False, True]
