"""Losses and normalisation by functions of keras.ops, of probabilities and of logits."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops

RNG = np.random.default_rng(0)
FIVE, SIX = (np.abs(RNG.normal(size=(4, n))) + 0.1 for n in (5, 6))
CASES = {
    "categorical of logits": (lambda x, y: ops.categorical_crossentropy(ops.softmax(x), y, True), (5, 4), (5, 4)),
    "categorical": (lambda x, y: ops.categorical_crossentropy(ops.softmax(x), ops.exp(y)), (5, 4), (5, 4)),
    "sparse of logits": (
        lambda x, y: ops.sparse_categorical_crossentropy(ops.argmax(x, -1), y, from_logits=True),
        *((5, 4), (5, 4)),
    ),
    "sparse": (
        lambda x, y: ops.sparse_categorical_crossentropy(ops.argmax(x, -1, keepdims=True), ops.tanh(ops.exp(y))),
        *((5, 4), (5, 4)),
    ),
    "binary of logits": (lambda x, y: ops.binary_crossentropy(ops.tanh(x), y, from_logits=True), (5, 4), (5, 4)),
    "binary": (lambda x, y: ops.binary_crossentropy(ops.tanh(x), ops.tanh(ops.abs(y)) * 0.9), (5, 4), (5, 4)),
    "batch_normalization": (
        lambda x, y: ops.batch_normalization(x, ops.mean(y, (0, 1)), ops.var(y, (0, 1)), -1, epsilon=0.1),
        *((5, 4), (5, 4)),
    ),
    "batch_normalization of an image": (
        lambda x: ops.batch_normalization(
            x, ops.mean(x, (0, 2, 3)), ops.var(x, (0, 2, 3)), 1, ops.max(x, (0, 2, 3)), ops.min(x, (0, 2, 3))
        ),
        (5, 6, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    carried(function, *shapes, single=1e-4)


@pytest.mark.parametrize("names", [(), ("offset", "scale")])
@pytest.mark.parametrize("axis, arrays", [(1, FIVE), (-1, SIX)])
def test_statistics_that_are_arrays(axis, arrays, names):
    x = keras.Input((5, 6) if axis == -1 else (5, 6, 2), dtype="float64")
    made = ops.batch_normalization(x, *arrays[:2], axis, epsilon=0.1, **dict(zip(names, arrays[2:], strict=False)))
    model = keras.Model(x, made)
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    array = RNG.normal(size=(2, *x.shape[1:]))
    tensor = torch.from_numpy(np.moveaxis(array, -1, 1).copy() if array.ndim == 4 else array)
    np.testing.assert_allclose(bridge.to_keras(module, (tensor,))(array), model(array), rtol=1e-9)


def test_statistics_of_single_precision():
    x = keras.Input((5, 6))
    made = ops.batch_normalization(keras.layers.Dense(6)(x), *SIX[:2].astype("float32"), -1)
    model = keras.Model(x, made)
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


def test_clipped():
    """Certain probabilities: Keras leaves 1e-7 to the others."""
    x, y = keras.Input((3,), dtype="float64"), keras.Input((3,), dtype="float64")
    model = keras.Model([x, y], [ops.binary_crossentropy(x, y), ops.categorical_crossentropy(x, y)])
    sure = np.eye(3)
    have = bridge.to_torch(model)(*map(torch.from_numpy, (sure, sure[::-1].copy())))
    for h, want in zip(have, model([sure, sure[::-1].copy()]), strict=True):
        np.testing.assert_allclose(h, want, rtol=1e-9)
        assert np.max(want) > 16


def test_psnr():
    """Of a whole batch, in float32 alone, as Keras says of any dtype that it makes that."""
    x, y = keras.Input((5, 4)), keras.Input((5, 4))
    model = keras.Model([x, y], x * ops.psnr(x, y, max_val=2.0))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda x: ops.binary_crossentropy(x, keras.layers.Activation("sigmoid")(x)),
            "Keras takes the logits of the sigmoid before it in its stead; give it the logits and from_logits=True",
        ),
        (lambda x: ops.categorical_crossentropy(x, ops.softmax(x)), "takes the logits of the softmax before it"),
        (lambda x: ops.categorical_crossentropy(x, keras.layers.Dense(4, "softmax")(x)), "the logits of the softmax"),
        (lambda x: ops.categorical_crossentropy(x, x, axis=1), "its axis=1 is not the last"),
        (lambda x: ops.sparse_categorical_crossentropy(x[..., 0], x), "its targets are float32; cast them"),
    ],
)
def test_refused(function, text):
    x = keras.Input((5, 4))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
