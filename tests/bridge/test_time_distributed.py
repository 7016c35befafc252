"""TimeDistributed: the layer inside for each step."""

import keras
import pytest

import bridge

layers = keras.layers

CASES = {
    "dense": (lambda: layers.Dense(4, activation="relu"), (5, 6)),
    "dense, open": (lambda: layers.Dense(4), (None, 6)),
    "convolution": (lambda: layers.Conv2D(2, 3), (3, 5, 4, 2)),
    "convolution, open": (lambda: layers.Conv2D(2, 3), (None, 5, 4, 2)),
    "flat": (lambda: layers.Flatten(), (3, 2, 4)),
    "recurrent": (lambda: layers.GRU(3), (3, 4, 2)),
    "network": (lambda: keras.Sequential([layers.Input((6,)), layers.Dense(3), layers.Dropout(0.2)]), (5, 6)),
    "picture of a norm": (lambda: layers.LayerNormalization(), (3, 4, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_carried(check, name):
    make, shape = CASES[name]
    x = keras.Input(shape, name="x")
    model = check.randomise(keras.Model(x, layers.TimeDistributed(make(), name="each")(x)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


def test_masks_of_steps(check):
    words = keras.Input((3, 4), dtype="int32", name="words")
    x = layers.Embedding(9, 5, mask_zero=True, name="table")(words)
    model = check.randomise(keras.Model(words, layers.TimeDistributed(layers.LSTM(3), name="each")(x)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


def test_refused():
    x = keras.Input((3, 4), name="x")
    y = layers.TimeDistributed(layers.BatchNormalization())(x)
    with pytest.raises(bridge.BridgeError, match="statistics of its own for each step"):
        bridge.to_torch(keras.Model(x, y))
