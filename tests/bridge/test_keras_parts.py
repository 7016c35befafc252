"""Functions in the words of others: what is made of them, and what is refused."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_parts, keras_reader
from bridge.graph import Unsupported, Value
from bridge.rules import KerasLayer, cellwise, joining

ops = keras.ops


def test_the_nodes_go_between_the_tensors_of_the_layer():
    x, y = keras.Input((4,), name="x"), keras.Input((3,), name="y")
    graph = keras_reader.read(keras.Model([x, y], ops.hstack([x, y])))
    (node,) = graph.nodes
    assert node.operator == "concatenate" and node.name.startswith("hstack")
    assert [v.name for v in node.inputs] == ["x", "y"] and node.outputs == [graph.outputs]


def test_constants_are_held_once_for_two_calls():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, ops.digitize(x, np.array([0.1, 0.5])) + ops.digitize(x * 2, np.array([0.1, 0.5])))
    graph = keras_reader.read(model)
    assert len(graph.parameters) == 2  # one for each of the layers, whose names differ
    array = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(bridge.to_torch(model)(torch.from_numpy(array)), model(array))


def test_an_input_that_is_an_output(check):
    x = keras.Input((4,), name="x")
    check.both_ways(keras.Model(x, [ops.copy(x), ops.rot90(ops.copy(x), 0)]))


def test_what_a_part_refuses_is_said_of_the_layer():
    x = keras.Input((4,))
    with pytest.raises(bridge.BridgeError, match=r"\(Vsplit\): it splits an axis of an open size"):
        bridge.to_torch(keras.Model(x, ops.vsplit(x, 2)))


def test_another_dtype_than_keras_says():
    x, made = Value("x", (None, 4)), Value("y", (None, 4), "int32")
    layer = KerasLayer("y", "ops.Copy", {}, [x], [made], arguments={"x": x}, operation=SimpleNamespace())
    with pytest.raises(Unsupported, match="it makes int32 of float32"):
        keras_parts.read(layer, cellwise.PARTS)


def test_constants_alone():
    layer = KerasLayer("hstack", "ops.Hstack", {}, [], [], arguments={"xs": [1, 2]}, operation=SimpleNamespace())
    with pytest.raises(Unsupported, match="it is computed from constants alone"):
        keras_parts.read(layer, joining.PARTS)
