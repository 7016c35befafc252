"""What a builder's arguments must be; each function gives the sentences about what is wrong, and none if nothing is."""

import functools
import inspect
from collections.abc import Callable, Iterable
from numbers import Integral, Real

import numpy as np


def plain(builder: Callable) -> Callable:
    """Let a builder take NumPy's numbers and arrays for Python's; Keras would take them for none."""

    def python(value):
        if isinstance(value, (tuple, list)):
            found = [python(one) for one in value]
            return found if isinstance(value, list) else tuple(found)
        return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value

    @functools.wraps(builder)
    def build(*given, **named):
        return builder(*map(python, given), **{k: python(value) for k, value in named.items()})

    return build


def refuse(*problems: Iterable[str]) -> None:
    """Raise one ValueError for all problems, if there are any."""
    if found := [problem for some in problems for problem in some]:
        raise ValueError("\n".join(found))


def is_positive(n) -> bool:
    """Tell whether a value is an integer from 1."""
    return isinstance(n, Integral) and not isinstance(n, bool) and n >= 1


def positive(**named) -> list[str]:
    """Integers from 1."""
    return [f"{k} must be an integer from 1. Received: {k}={n!r}" for k, n in named.items() if not is_positive(n)]


def positives(length: int | None = None, **named) -> list[str]:
    """One or more integers from 1, or `length` of them."""
    return [
        f"{k} must be {length or 'one or more'} integers from 1. Received: {k}={some!r}"
        for k, some in named.items()
        if not isinstance(some, (tuple, list))
        or len(some) != (length or max(len(some), 1))
        or not all(map(is_positive, some))
    ]


def switches(**named) -> list[str]:
    """True or False."""
    return [
        f"{k} must be True or False. Received: {k}={value!r}"
        for k, value in named.items()
        if not isinstance(value, bool)
    ]


def rates(**named) -> list[str]:
    """Numbers in [0, 1), such as Dropout's."""
    return [
        f"{k} must be a number in [0, 1). Received: {k}={value!r}"
        for k, value in named.items()
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < 1
    ]


def among(accepted: Iterable, **named) -> list[str]:
    """One of the values accepted."""
    accepted = list(accepted)
    return [
        f"{k} must be one of {', '.join(map(repr, accepted))}. Received: {k}={value!r}"
        for k, value in named.items()
        if value not in accepted
    ]


def idle(builder: Callable, needed: str, **named) -> list[str]:
    """Arguments that do nothing without something else; a builder's defaults, and nothing (0, None), need no effect."""
    defaults = inspect.signature(builder).parameters
    return [
        f"{k} is of no effect without {needed}. Received: {k}={value!r}"
        for k, value in named.items()
        if value and value != defaults[k].default
    ]


def image_shape(shape, *, open_size: bool = True, multiple: int = 1, why: str = "") -> list[str]:
    """`(H, W, C)`.

    Args:
        shape: What was given for `image_shape`.
        open_size: Whether H and W may be None, for any size.
        multiple: What H and W must be multiples of.
        why: The reason for that, a sentence without its end.
    """
    sizes = "three positive integers, of which the first two may be None" if open_size else "three positive integers"
    if (
        not isinstance(shape, (tuple, list))
        or len(shape) != 3
        or not is_positive(shape[2])
        or not all((open_size and n is None) or is_positive(n) for n in shape[:2])
    ):
        return [f"image_shape must be {sizes}: (height, width, channels). Received: image_shape={shape!r}"]
    if any(n is not None and n % multiple for n in shape[:2]):
        more = " (or None for any such size)" if open_size else ""
        return [
            f"{why}, so its height and width must be multiples of {multiple}{more}. Received: image_shape={shape!r}"
        ]
    return []


def factors(**named) -> list[str]:
    """Numbers above 0."""
    return [
        f"{k} must be a number above 0. Received: {k}={value!r}"
        for k, value in named.items()
        if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < float("inf")
    ]


def activations(**named) -> list[str]:
    """Names of Keras' activations."""
    import keras

    def known(name) -> bool:
        try:
            return isinstance(name, str) and callable(keras.activations.get(name))
        except ValueError:
            return False

    return [
        f"{k} must be one of Keras', such as 'relu'. Received: {k}={name!r}"
        for k, name in named.items()
        if not known(name)
    ]
