"""Functions of keras.ops that are given open sizes; what each is read as, `tests/bridge/test_open_sizes.py` tests."""

import keras
import pytest

import bridge
from bridge import keras_reader

ops = keras.ops


@pytest.mark.parametrize(
    "function, operators",
    [
        (lambda x: ops.reshape(x, (ops.shape(x)[0], -1, 3)), ["reshape"]),
        (lambda x: ops.zeros((ops.shape(x)[0], 2)), ["row", "reshape", "tile", "multiply"]),
        (lambda x: x * ops.cast(ops.shape(x)[0], "float32"), ["size", "cast", "reshape", "multiply"]),
        (lambda x: ops.broadcast_to(x[:1, :1], (ops.shape(x)[0], 1)), ["slice", "slice", "row", "reshape", "multiply"]),
    ],
)
def test_read(function, operators):
    x = keras.Input((6,), name="x")
    graph = keras_reader.read(keras.Model(x, keras.layers.Lambda(function)(x)))
    assert [n.operator for n in graph.nodes if n.operator not in ("expand", "constant")] == operators


def test_a_size_alone(check):
    x = keras.Input((6,), name="x")
    y = keras.layers.Lambda(lambda x: ops.sum(x) / ops.cast(ops.shape(x)[0], "float32") + x)(x)
    model = keras.Model(x, y)
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)
