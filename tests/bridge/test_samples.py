"""What goes into a comparison."""

import keras
import numpy as np
import pytest

import bridge
from bridge import keras_reader, samples
from bridge.graph import Node, Value

layers = keras.layers


def graph_of(model):
    return keras_reader.read(model)


def test_open_sizes_are_the_first_that_fit():
    x = keras.Input((None, None, 3))
    y = layers.AveragePooling2D(2)(x)
    model = keras.Model(x, layers.Add()([layers.UpSampling2D(2)(y), x]))
    (array,) = samples.inputs_of(model, graph_of(model))
    assert array.shape[1:] == (16, 16, 3) and len(array) in (2, samples.BATCH)


def test_a_table_that_is_cut_is_not_filled():
    """torch.export takes the cut out where the sample has as many steps as the table."""
    x = keras.Input((None, 3))
    model = keras.Model(x, layers.Dense(17)(x))
    graph = graph_of(model)
    assert samples.inputs_of(model, graph)[0].shape == (samples.BATCH, 17, 3)
    graph.nodes.append(Node("parameter", outputs=[Value("table", (17, 1))]))
    assert samples.inputs_of(model, graph)[0].shape == (samples.BATCH, 16, 3)


@pytest.mark.parametrize("open_axes", [True, False])
def test_the_batch_may_be_a_later_axis(open_axes):
    x = keras.Input(batch_shape=(5, None, 3))
    y = keras.Input((3,))
    z = keras.Input(batch_shape=(2, None, 3)) if open_axes else keras.Input((4, 3))
    total = keras.ops.sum(x, axis=0) + y + (keras.ops.sum(z, axis=0) if open_axes else keras.ops.sum(z, axis=1))
    model = keras.Model([x, y, z], total)
    a, b, c = samples.inputs_of(model, graph_of(model))
    assert len(b) == a.shape[1] == c.shape[open_axes] > 1


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


def test_open_sizes_are_told_apart_where_they_may_be_others():
    """A module that takes one for the other shows."""
    x, y = keras.Input((None, None, 3)), keras.Input((None, None, 3))
    pooled = layers.GlobalAveragePooling2D()
    for made, wanted in ((pooled(x) + pooled(y), [(17, 19), (21, 23)]), (layers.Add()([x, y]), [(17, 19), (17, 19)])):
        model = keras.Model([x, y], made)
        assert [a.shape[1:3] for a in samples.inputs_of(model, graph_of(model))] == wanted
