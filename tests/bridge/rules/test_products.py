"""Products of tensors by all their names."""

import keras
import numpy as np
import pytest

import bridge

ops = keras.ops

CASES = {
    "corrcoef": (lambda x: ops.corrcoef(x), (6,)),
    "correlate": (lambda x, y: [ops.correlate(x[0], y[0], mode=m) for m in ("valid", "same", "full")], (7,), (4,)),
    "cross": (lambda x, y: ops.cross(x, y), (5, 3), (5, 3)),
    "cross along another axis": (lambda x, y: ops.cross(x, y, axis=1), (3, 4), (3, 4)),
    "cross of a plane": (lambda x, y: ops.cross(x, y), (5, 2), (5, 2)),
    "cross of two sizes": (lambda x, y: ops.cross(x, y), (5, 2), (5, 3)),
    "dot": (lambda x, y: ops.dot(x, y), (5, 4), (4, 3)),
    "inner": (lambda x, y: ops.inner(x, y), (5, 4), (4,)),
    "kron": (lambda x, y: ops.kron(x, y), (4,), (3,)),
    "outer": (lambda x, y: ops.outer(x, y), (4,), (3,)),
    "outer of vectors": (lambda x, y: ops.outer(x[:, 0], y[:, 1]), (4,), (3,)),
    "tensordot": (lambda x, y: ops.tensordot(x, y, axes=[[1, 2], [2, 1]]), (5, 4), (4, 5)),
    "tensordot of the batch": (lambda x, y: ops.tensordot(x, y, axes=[[0], [0]]), (5, 4), (3,)),
    "tensordot without a sum": (lambda x, y: ops.tensordot(x, y, axes=0), (4,), (3,)),
    "vdot": (lambda x, y: ops.expand_dims(ops.vdot(x, y), 0) * x, (5, 4), (5, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    carried(function, *shapes)


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda x: ops.tensordot(x, np.ones((4, 2), "float32"), axes=1),
            r"\(Tensordot\): it multiplies by a constant; ho",
        ),
        (lambda x: ops.corrcoef(x), r"\(Corrcoef\): correlations of a tensor of shape \(None, 5, 4\)"),
        (lambda x: ops.kron(x, ops.transpose(x)), "several sizes of a Kronecker product are open"),
    ],
)
def test_refused(function, text):
    x = keras.Input((5, 4))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
