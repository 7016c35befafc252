"""EinsumDense, by what its equation says."""

import keras
import pytest
import torch

import bridge

layers = keras.layers


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize(
    "equation, shape, bias",
    [
        ("abc,cde->abde", (None, 2, 4), "de"),
        ("abc,cde->abde", (None, 2, 4), None),
        ("abc,dc->abd", (None, 5), "d"),
        ("abc,ced->abde", (None, 2, 4), "de"),
        ("abc,bcd->ad", (5,), "d"),
        ("...c,cd->...d", (5,), "d"),
    ],
)
def test_a_linear(check, equation, shape, bias, activation):
    x = keras.Input((7, 6), name="x")
    y = layers.EinsumDense(equation, shape, bias_axes=bias, activation=activation, name="e")(x)
    model = check.randomise(keras.Model(x, layers.Dense(3, name="d")(y)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed and isinstance(module.e, torch.nn.Linear), str(report)
    check.same_graph(model, module, (torch.randn(2, 7, 6),))


@pytest.mark.parametrize(
    "equation, shape, bias",
    [
        ("abc,bcd->abd", (7, 5), None),
        ("abc,bd->adc", (5, 6), "d"),
        ("abc,cde->abde", (None, 2, 4), "e"),
        ("abc,bcd->abd", (7, 5), "bd"),
    ],
)
def test_a_kernel_that_flows(check, equation, shape, bias):
    x = keras.Input((7, 6), name="x")
    model = check.randomise(keras.Model(x, layers.EinsumDense(equation, shape, bias_axes=bias, name="e")(x)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    check.same_graph(model, module, (torch.randn(2, 7, 6),))
