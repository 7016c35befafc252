"""What goes into a comparison."""

import keras
import numpy as np
import pytest

import bridge
from bridge import keras_reader, samples

layers = keras.layers


def graph_of(model):
    return keras_reader.read(model)


def test_open_sizes_are_the_first_that_fit():
    x = keras.Input((None, None, 3))
    y = layers.AveragePooling2D(2)(x)
    model = keras.Model(x, layers.Add()([layers.UpSampling2D(2)(y), x]))
    (array,) = samples.inputs_of(model, graph_of(model))
    assert array.shape[1:] == (16, 16, 3) and len(array) in (2, samples.BATCH)


def test_whole_numbers_fit_their_table():
    x = keras.Input((7,), dtype="int32")
    model = keras.Model(x, layers.Embedding(5, 2)(x))
    (array,) = samples.inputs_of(model, graph_of(model))
    assert array.dtype == "int32" and array.min() >= 0 and array.max() == 4


def test_the_users_own_are_checked():
    x = keras.Input((4, 3))
    model = keras.Model(x, layers.Dense(2)(x))
    graph = graph_of(model)
    assert samples.inputs_of(model, graph, np.zeros((2, 4, 3)))[0].dtype == "float32"
    with pytest.raises(
        bridge.BridgeError, match=r"takes inputs of shape \[\(None, 4, 3\)\]. Received: \[\(2, 4, 2\)\]"
    ):
        samples.inputs_of(model, graph, np.zeros((2, 4, 2)))


def test_layouts():
    x = keras.Input((4, 3), name="x")
    graph = graph_of(keras.Model(x, layers.Dense(2)(x)))
    samples.check_layouts(graph, {"x": (0, 2, 1)})
    with pytest.raises(bridge.BridgeError, match="layouts names the input 'y'"):
        samples.check_layouts(graph, {"y": (0, 1)})
    with pytest.raises(bridge.BridgeError, match="must be a permutation of 3 axes"):
        samples.check_layouts(graph, {"x": (0, 1)})
