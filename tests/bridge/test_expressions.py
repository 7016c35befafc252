"""Sizes that are worked out from open ones: what is known of them by their numbers."""

import numpy as np
import pytest

from bridge import expressions


def test_names():
    assert expressions.symbols("2*((s0 + 1)//2) - Max(1, s77)") == {"s0", "s77"}


def numbers(text):
    return expressions._numbers(text, tuple(sorted(expressions.symbols(text))))


@pytest.mark.parametrize(
    "text, function",
    [
        ("s0//2", lambda n: n // 2),
        ("TruncToInt(1.5*ToFloat(s0))", lambda n: np.trunc(1.5 * n)),
        ("((s0 + (-1)) // 2) + 1", lambda n: (n - 1) // 2 + 1),
        ("Max(3, s0) - Min(2, s0)", lambda n: np.maximum(3, n) - np.minimum(2, n)),
        ("Mod(s0, 4)", lambda n: n % 4),
        ("-s0*s0", lambda n: -n * n),
    ],
)
def test_numbers(text, function):
    np.testing.assert_array_equal(numbers(text), function(np.arange(1, expressions.SIZES + 1)))


@pytest.mark.parametrize("text", ["open('x')", "s0.real", "[s0]", "lambda: s0", "s0 if s0 else 1"])
def test_nothing_else_is_computed(text):
    assert numbers(text) is None


def test_other_names_and_signs():
    text = expressions.renamed("2*((s0//4)) + Mod(s0, 3) - Max(1, s1)", {"s0": "n0", "s1": "x.shape[2]", "Max": "max"})
    assert text == "2 * (n0 // 4) + n0 % 3 - max(1, x.shape[2])"
    assert expressions.operations("Max(1, s0) + TruncToInt(s0)**2") == {"Max", "TruncToInt", "Add", "Pow"}
    assert expressions.evaluate("n0 // 2 - Min(n1, 2)", {"n0": 9, "n1": 5}, {"Min": min}) == 2


def test_one_way_to_write_it():
    assert expressions.renamed("Min(s1, Max(s1, 2*s0))", {"s0": "n1", "s1": "n0"}) == "Min(Max(2 * n1, n0), n0)"
    assert expressions.renamed("8*CeilToInt(IntTrueDiv(s0, 8))", {"s0": "n0"}) == "8 * ((n0 + 7) // 8)"
    assert expressions.renamed("FloorToInt(IntTrueDiv(s0, s1))", {}) == "s0 // s1"


@pytest.mark.parametrize(
    "text, whole, least",
    [
        ("n0 + -n0 % 8", "n0", (1, 7)),
        ("n0 + n0//5", "n0", (2, 0)),
        ("2*n0 + n0//100 - 9", "n0", (3, 0)),
        ("Max(n0, n1)", "n0 + n1", (1, 0)),
        ("Max(n0, 2*n1)", "n0 + n1", (2, 0)),
        ("n0 * n1", "n0 + n1", None),
        ("open('n0')", "n0", None),
    ],
)
def test_cover(text, whole, least):
    assert expressions.cover(text, whole) == least


@pytest.mark.parametrize("text, below", [("s0", False), ("-(s0//2) - 1", True), ("s0 - 5", None), ("s0.real", None)])
def test_negative(text, below):
    assert expressions.negative(text) is below
