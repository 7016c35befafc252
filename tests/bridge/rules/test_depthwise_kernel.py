"""Depthwise convolutions of keras.ops: with arrays they are frozen modules, with tensors sums of products."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops

RNG = np.random.default_rng(0)
KERNEL, ROW, POINTS = RNG.normal(size=(3, 2, 4, 2)), RNG.normal(size=(3, 4, 1)), RNG.normal(size=(1, 1, 8, 3))
OPTIONS = {
    "valid": {},
    "same": {"padding": "same"},
    "strides": {"strides": 2, "padding": "same"},
    "dilation": {"dilation_rate": (1, 2)},
    "strides and dilation": {"strides": 2, "dilation_rate": 2},
}


def held(function, *shape):
    """Carry a function whose kernels are arrays both ways; the torch module."""
    x = keras.Input(shape, dtype="float64")
    model = keras.Model(x, function(x))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert module.state_dict() and not [p for p in module.parameters() if p.requires_grad]
    array = RNG.normal(size=(2, *shape))
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1) if len(shape) == 3 else array))
    again = bridge.to_keras(module, (tensor,))
    np.testing.assert_allclose(again(array), model(array), rtol=1e-9, atol=1e-12)
    return module


def kernel(y):
    return ops.reshape(ops.mean(y, 0), (3, 2, 4, 2))


@pytest.mark.parametrize("name", OPTIONS)
def test_arrays(name):
    held(lambda x: ops.depthwise_conv(x, KERNEL, **OPTIONS[name]), 7, 6, 4)


@pytest.mark.parametrize("name", ["valid", "strides"])
def test_separable_arrays(name):
    module = held(lambda x: ops.separable_conv(x, KERNEL, POINTS, **OPTIONS[name]), 7, 6, 4)
    assert len(list(module.parameters())) == 2


def test_channels_first():
    held(lambda x: ops.depthwise_conv(x, KERNEL, data_format="channels_first"), 4, 7, 6)


def test_one_axis():
    held(lambda x: ops.depthwise_conv(x, ROW), 7, 4)


def test_open_sizes():
    x = keras.Input((None, None, 4), dtype="float64")
    model = keras.Model(x, ops.depthwise_conv(x, KERNEL, padding="same"))
    assert bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize("name", OPTIONS)
def test_tensors(carried, name):
    carried(lambda x, y: ops.depthwise_conv(x, kernel(y), **OPTIONS[name]), (7, 6, 4), (6, 8), single=1e-4)


def test_separable_tensors(carried):
    carried(
        lambda x, y, z: ops.separable_conv(x, kernel(y), ops.mean(z, 0)[None, None], padding="same"),
        *((5, 4, 4), (6, 8), (8, 3)),
    )


def test_lower_precision_is_refused():
    x = keras.Input((7, 6, 4), dtype="float16")
    with pytest.raises(bridge.BridgeError, match="arrays with a tensor of float16; cast it to float32 before, or use"):
        bridge.to_torch(keras.Model(x, ops.depthwise_conv(x, KERNEL.astype("float16"))))


def test_refused():
    x = keras.Input((None, None, 4))
    made = ops.depthwise_conv(x, ops.mean(x) * KERNEL, strides=2, padding="same")
    with pytest.raises(bridge.BridgeError, match="padding='same' at a size that is open; fix the size"):
        bridge.to_torch(keras.Model(x, made))
