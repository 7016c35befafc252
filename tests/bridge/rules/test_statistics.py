"""Statistics, with values that are no numbers and without."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import bridge

ops = keras.ops

METHODS = ("linear", "lower", "higher", "nearest", "midpoint")
NAN = [f"nan{n}" for n in ("sum", "mean", "max", "min", "prod", "var", "std", "cumsum", "cumprod", "argmax", "argmin")]
ROW = np.arange(5).astype("float32") + 1
CASES = {
    "average": (lambda x: ops.average(x, axis=1), (5, 4)),
    "average with a row of weights": (lambda x: ops.average(x, axis=1, weights=ROW), (5, 4)),
    "average with weights": (lambda x, y: ops.average(x, axis=1, weights=ops.square(y) + 1), (5, 4), (5, 4)),
    "median": (lambda x: ops.median(x, axis=(1, 2), keepdims=True), (5, 4)),
    "median of an image": (lambda x: ops.median(x, axis=1), (6, 4, 3)),
    "moments": (lambda x: ops.moments(x, axes=[1], keepdims=True), (5, 4)),
    "moments of an image": (lambda x: ops.moments(x, axes=[1, 2]), (5, 4, 3)),
    **{f"percentile {m}": (lambda x, m=m: ops.percentile(x, 37.0, axis=1, method=m), (6, 4)) for m in METHODS},
    "ptp": (lambda x: ops.ptp(x, axis=1, keepdims=True), (5, 4)),
    "quantile": (lambda x: ops.quantile(x, 0.3, axis=1), (5, 4)),
    "quantiles": (lambda x: ops.quantile(x, np.array([0.125, 0.5, 1.0, 0.0]), axis=-1, keepdims=True), (5, 4)),
    "trapezoid": (lambda x: ops.trapezoid(x, dx=0.3, axis=1), (5, 4)),
    **{name: (lambda x, name=name: getattr(ops, name)(x, axis=-1), (5, 4)) for name in NAN},
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    carried(function, *shapes)


@pytest.mark.parametrize("name", [*NAN, "median"])
def test_not_a_number(name):
    """A row of numbers, one with a NaN, one with nothing else, and infinities; forwards and back."""
    x = np.random.default_rng(0).normal(size=(4, 5))
    x[1, 2], x[2], x[3, 1], x[3, 4] = np.nan, np.nan, np.inf, -np.inf
    entry = keras.Input((5,), dtype="float64")
    model = keras.Model(entry, ops.cast(getattr(ops, name)(entry, axis=-1), "float64"))
    want, tensor = np.asarray(model(x)), torch.from_numpy(x)
    module = bridge.to_torch(model)
    np.testing.assert_allclose(module(tensor), want, rtol=1e-12)
    np.testing.assert_allclose(bridge.to_keras(module, (tensor,))(x), want, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in NAN if "arg" not in n])
def test_gradients_beside_a_nan(name):
    x = np.random.default_rng(0).normal(size=(2, 5))
    x[0, 2], x[1, 0] = np.nan, np.nan
    entry = keras.Input((5,), dtype="float64")
    model = keras.Model(entry, getattr(ops, name)(entry, axis=-1))
    variable, tensor = tf.Variable(x), torch.tensor(x, requires_grad=True)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(variable))
    bridge.to_torch(model)(tensor).sum().backward()
    np.testing.assert_allclose(tensor.grad, tape.gradient(total, variable), rtol=1e-9)


@pytest.mark.parametrize("options", [{"axis": (1, 2), "keepdims": True}, {"axis": None}])
def test_over_several_axes(carried, options):
    carried(lambda x: ops.nanmean(ops.log(x), **options) * x, (5, 6, 4), verified=False, single=1e-4)


def test_a_trapezoid_at_places():
    """Keras cannot save such a function, and the bridge need not."""
    x = keras.Input((5, 4))
    module = bridge.to_torch(keras.Model(x, ops.trapezoid(x, x=np.array([0.0, 1, 1.5, 3]), axis=-1)))
    array = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    want = np.trapezoid(array, x=[0.0, 1, 1.5, 3], axis=-1)
    np.testing.assert_allclose(module(torch.from_numpy(array)), want, rtol=1e-5)


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.median(x), r"\(Median\): quantiles over the axes \(0, 1, 2\), one of them open; fix that size"),
        (lambda x: ops.quantile(x, ops.mean(x), axis=1), "the quantiles are a tensor; give them as numbers"),
        (lambda x: ops.nansum(ops.cast(x, "int32"), axis=1) + ops.nanmean(ops.cast(x, "int32"), axis=1), "int32"),
        (lambda x: ops.moments(x, axes=[1], synchronized=True), "synchronized=True; leave it out"),
    ],
)
def test_refused(function, text):
    x = keras.Input((5, 4))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
