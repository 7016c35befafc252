"""Every wrong argument is named, with what was received and what is accepted, and all of them at once."""

import inspect

import numpy as np
import pytest

from tfzoo.layers import arguments


@pytest.mark.parametrize("value", [1, 7])
def test_positive(value):
    assert arguments.positive(n=value) == []


@pytest.mark.parametrize("value", [0, -1, 1.0, True, None, "3"])
def test_not_positive(value):
    assert arguments.positive(n=value, m=1) == [f"n must be an integer from 1. Received: n={value!r}"]


@pytest.mark.parametrize(("length", "value"), [(None, (1,)), (None, [2, 3]), (2, (1, 2))])
def test_positives(length, value):
    assert arguments.positives(length, widths=value) == []


@pytest.mark.parametrize(("length", "value"), [(None, ()), (None, 3), (None, (1, 0)), (3, (1, 2)), (None, (True,))])
def test_not_positives(length, value):
    said = f"widths must be {length or 'one or more'} integers from 1. Received: widths={value!r}"
    assert arguments.positives(length, widths=value) == [said]


@pytest.mark.parametrize("value", [0, 1, None, "yes"])
def test_switches(value):
    assert arguments.switches(on=True, off=False) == []
    assert arguments.switches(on=value) == [f"on must be True or False. Received: on={value!r}"]


@pytest.mark.parametrize("value", [1, -0.1, True, float("nan"), "0.5", None])
def test_rates(value):
    assert arguments.rates(dropout=0, other=0.99) == []
    assert arguments.rates(dropout=value) == [f"dropout must be a number in [0, 1). Received: dropout={value!r}"]


@pytest.mark.parametrize("value", [0, -1, True, float("nan"), float("inf"), "2"])
def test_factors(value):
    assert arguments.factors(width=0.5) == []
    assert arguments.factors(width=value) == [f"width must be a number above 0. Received: width={value!r}"]


def test_among():
    assert arguments.among(("A", "B"), shortcut="A") == []
    assert arguments.among(("A", "B"), shortcut="C") == ["shortcut must be one of 'A', 'B'. Received: shortcut='C'"]


@pytest.mark.parametrize("shape", [(1, 2, 3), (None, None, 1), [4, None, 2]])
def test_image_shapes(shape):
    assert arguments.image_shape(shape) == []


@pytest.mark.parametrize("shape", [(1, 2), (0, 2, 3), (2, 2, None), 3, "abc", (2.0, 2, 3)])
def test_no_image_shapes(shape):
    assert [f"Received: image_shape={shape!r}" in said for said in arguments.image_shape(shape)] == [True]


def test_image_shapes_of_numbers_and_multiples():
    assert arguments.image_shape((None, 8, 3), open_size=False)[0].startswith("image_shape must be three positive int")
    assert arguments.image_shape((8, 12, 3), multiple=4) == []
    assert arguments.image_shape((8, 10, 3), multiple=4, why="the network halves twice") == [
        "the network halves twice, so its height and width must be multiples of 4 (or None for any such size). "
        "Received: image_shape=(8, 10, 3)"
    ]


@pytest.mark.parametrize("value", [0.3, 0, 0.0, None, False])
def test_what_is_by_default_and_nothing_need_no_effect(value):
    assert arguments.idle(built, "top", dropout=value, size=(1, 2)) == []


def test_what_is_asked_for_must_have_an_effect():
    assert arguments.idle(built, "top=True", dropout=0.4, size=(2, 2)) == [
        "dropout is of no effect without top=True. Received: dropout=0.4",
        "size is of no effect without top=True. Received: size=(2, 2)",
    ]


@arguments.plain
def built(classes, size=(1, 2), *, dropout=0.3):
    """Build."""
    return classes, size, dropout


def test_numpys_numbers_become_pythons():
    found = built(np.int64(5), (np.int32(3), [np.True_, "a", None]), dropout=np.float32(0.25))
    assert found == (5, (3, [True, "a", None]), 0.25)
    assert [type(x) for x in (found[0], found[1][0], found[1][1][0], found[2])] == [int, int, bool, float]
    assert built(dropout=1, classes=True) == (True, (1, 2), 1)
    assert (built.__doc__, list(inspect.signature(built).parameters)) == ("Build.", ["classes", "size", "dropout"])
    assert built("a", np.array([4, 5]))[:2] == ("a", [4, 5])


def test_all_at_once_or_nothing():
    arguments.refuse([], [])
    with pytest.raises(ValueError, match=r"^a\nb\nc$"):
        arguments.refuse(["a", "b"], [], ["c"])


def test_activations():
    assert arguments.activations(activation="silu", last="tanh") == []
    for value in ("swishy", None, 3):
        (said,) = arguments.activations(activation=value)
        assert said == f"activation must be one of Keras', such as 'relu'. Received: activation={value!r}"
