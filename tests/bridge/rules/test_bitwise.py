"""Whole numbers bit by bit, both ways."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops = keras.ops
MASK = np.array([3], "int32")


def whole(x):
    return ops.cast(ops.floor(x * 9), "int32")


CASES = {
    **{f"bitwise_{n}": (lambda x, y, n=n: getattr(ops, f"bitwise_{n}")(x, y)) for n in ("and", "or", "xor")},
    "bitwise_not": lambda x, y: ops.bitwise_not(x) + ops.bitwise_invert(y),
    "gcd": lambda x, y: ops.gcd(x, y),
    "lcm": lambda x, y: ops.lcm(x, y),
    "lcm with a constant": lambda x, y: ops.lcm(x, MASK) + y,
    "mask": lambda x, y: ops.bitwise_and(x, MASK) + ops.bitwise_or(y, MASK),
    "left_shift": lambda x, y: ops.left_shift(x, np.array([2], "int32")) + ops.bitwise_left_shift(x, y * y % 3),
    "right_shift": lambda x, y: ops.right_shift(x, np.array([1], "int32")) + ops.bitwise_right_shift(x, y * y % 3),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name):
    carried(lambda x, y: CASES[name](whole(x), whole(y)), (5, 4), (5, 4))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x & y | 4,
        lambda x, y: x ^ y,
        lambda x, y: ~x,
        lambda x, y: (x << 2) + (x >> 1),
        lambda x, y: torch.bitwise_left_shift(x, y * y % 3),
        lambda x, y: torch.bitwise_right_shift(x, y * y % 3),
        lambda x, y: torch.gcd(x, y) + torch.lcm(x, y),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_from_torch(check, function, dtype):
    def module(x):
        y = (x * 9).to(dtype)
        return function(y, y.flip(1)).to(x.dtype)

    check.from_torch(check.Function(module), torch.randn(2, 3, 4, 5))


def test_refused():
    x = keras.Input((4,), dtype="int32")
    y = keras.Input((4,), dtype="int64")
    text = r"\(BitwiseAnd\): bitwise_and makes int64 of int32 and int64; cast the tensors to one dtype of whole numbers"
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model([x, y], ops.bitwise_and(x, y)))
