"""Functions cell by cell that consist of others; their values where they are special."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops


def whole(x):
    return ops.cast(ops.floor(x * 2), "int32")


CASES = {
    "allclose": (lambda x, y: ops.cast(ops.allclose(x, x + 1e-9 * y, rtol=1e-3), "float32") * y, (5, 4), (5, 4)),
    "angle": (lambda x: ops.angle(x), (5, 4)),
    "cbrt": (lambda x: ops.cbrt(x), (5, 4)),
    "copies": (lambda x: [ops.real(x), ops.conj(x), ops.conjugate(x), ops.copy(x), ops.real(x) + 1], (5, 4)),
    "divide_no_nan": (lambda x, y: ops.divide_no_nan(x, ops.relu(y)), (5, 4), (5, 4)),
    "divide_no_nan by a number": (lambda x: ops.divide_no_nan(x, 2.0), (5, 4)),
    "fmax": (lambda x, y: ops.fmax(x, y), (5, 4), (5, 4)),
    "fmin": (lambda x: ops.fmin(x, 0.1), (5, 4)),
    "full_like": (lambda x: ops.full_like(x, 0.3) * x, (5, 4)),
    "full_like of whole numbers": (lambda x: ops.full_like(x, 3, dtype="int32") + whole(x), (5, 4)),
    "heaviside": (lambda x, y: ops.heaviside(x, y) * y, (5, 4), (5, 4)),
    "heaviside with an array": (lambda x: ops.heaviside(x, np.array([0.5], "float32")) * x, (5, 4)),
    "imag": (lambda x: ops.imag(x) + x, (5, 4)),
    "isclose": (lambda x, y: ops.isclose(x, ops.relu(x) + 0 * y), (5, 4), (5, 4)),
    "isclose to a number": (lambda x: ops.isclose(ops.relu(x), 0.0), (5, 4)),
    "isclose with tolerances": (lambda x, y: ops.isclose(x, y, 0.5, 0.1, equal_nan=True), (5, 4), (5, 4)),
    "isreal": (lambda x: ops.cast(ops.isreal(x), "float32") * x, (5, 4)),
    "ldexp": (lambda x: ops.ldexp(x, 3), (5, 4)),
    "ldexp by a tensor": (lambda x, y: ops.ldexp(x, whole(y)), (5, 4), (5, 4)),
    "saturate_cast": (lambda x: ops.saturate_cast(x * 100, "int8"), (5, 4)),
    "select": (lambda x, y: ops.select([x > 0.5, x > -0.3], [x, y], 0.25), (5, 4), (5, 4)),
    "unravel_index": (lambda x: [i + whole(x) for i in ops.unravel_index(whole(ops.abs(x)), (3, 4))], (5, 4)),
    "vander": (lambda x: ops.vander(x[:, 0], 4), (5,)),
    "vander of rising powers": (lambda x: ops.vander(x[:, 0], 3, increasing=True), (5,)),
    "zeros_like": (lambda x: ops.zeros_like(x) + x, (5, 4)),
}
INF, NAN = float("inf"), float("nan")
SPECIAL = np.array([0.0, -0.0, 1.0, -8.0, np.inf, -np.inf, np.nan, 1e-300, 300.0])


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    function, *shapes = CASES[name]
    carried(function, *shapes)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.cbrt(x),
        lambda x: ops.divide_no_nan(x, ops.flip(x, -1)),
        lambda x: ops.fmax(x, ops.flip(x, -1)),
        lambda x: ops.fmin(x, 1.5),
        lambda x: ops.heaviside(x, ops.flip(x, -1)),
        lambda x: ops.isclose(x, x),
        lambda x: ops.isclose(x, x, equal_nan=True),
        lambda x: ops.ldexp(x, 2000),
        lambda x: ops.zeros_like(x),
        lambda x: ops.angle(x),
    ],
)
def test_special_values(function):
    x = keras.Input((len(SPECIAL),), dtype="float64")
    model = keras.Model(x, ops.cast(function(x), "float64"))
    rows = np.stack([SPECIAL, SPECIAL])
    np.testing.assert_allclose(bridge.to_torch(model)(torch.from_numpy(rows)), model(rows), rtol=1e-15)


@pytest.mark.parametrize("equal_nan", [False, True])
@pytest.mark.parametrize("row", [(INF, 1.0), (NAN, 1.0), (-INF, 1.0), (2.0, 1.0)])
def test_all_close(row, equal_nan):
    x, y = keras.Input((2,), dtype="float64"), keras.Input((2,), dtype="float64")
    model = keras.Model([x, y], ops.allclose(x, y, equal_nan=equal_nan))
    module, first = bridge.to_torch(model), np.array([row])
    for second in (first, first + 1e-9, np.array([(INF, 1.0)]), np.array([(1.0, 1.0)])):
        assert bool(module(torch.from_numpy(first), torch.from_numpy(second))) == bool(model([first, second]))


def test_positions_of_a_row():
    x = keras.Input((), dtype="int32")
    model = keras.Model(x, ops.unravel_index(x, (3, 4)))
    have = bridge.to_torch(model)(torch.arange(12, dtype=torch.int32))
    for h, want in zip(have, np.unravel_index(np.arange(12), (3, 4)), strict=True):
        np.testing.assert_array_equal(h, want)


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.vander(whole(x)[:, 0, 0], 3), r"powers of int32, of shape \(None,\); give a row of floats"),
        (lambda x: ops.allclose(x, np.ones(1, "float32")), "it compares with a constant; use keras.ops.isclose and"),
        (
            lambda x: ops.cbrt(whole(x)),
            r"\(Cbrt\): it is computed from int32; convert the tensor to a float dtype before",
        ),
        (lambda x: ops.divide_no_nan(x, np.array([0.0, 1, 2, 3], "float32")), "it divides by an array with a 0 in it"),
        (lambda x: ops.saturate_cast(whole(x), "int8"), "saturate_cast of int32 to int8; clip it, and cast it"),
        (lambda x: ops.full_like(x, x[0, 0, 0]), "it is filled with a tensor"),
    ],
)
def test_refused(function, text):
    x = keras.Input((5, 4))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
