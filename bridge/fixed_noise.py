"""The same random numbers on both sides, for a comparison of networks that draw them.

The numbers go by the shape alone, so that it does not matter who draws first. With four or five axes they are those
of Keras' order of axes.
"""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
import torch
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = {"randn": "normal", "randn_like": "normal", "rand": "uniform", "rand_like": "uniform"}


def numbers(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, or such between 0 and 1, always the same."""
    rng = np.random.default_rng([len(shape), *shape])
    return (rng.standard_normal if kind == "normal" else rng.random)(shape, "float32")  # no twin has others


@contextlib.contextmanager
def in_keras() -> Iterator[None]:
    """Let keras.random draw these."""
    backend = keras.src.backend.random
    drawn = backend.normal, backend.uniform

    def cast(x, dtype):
        return keras.ops.cast(x, dtype or keras.config.floatx())

    def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        if not tf.executing_eagerly():  # Keras asks for a shape alone
            return drawn[0](shape, mean, stddev, dtype, seed)
        return cast(numbers("normal", tuple(map(int, shape))), dtype) * stddev + mean

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        if not tf.executing_eagerly():
            return drawn[1](shape, minval, maxval, dtype, seed)
        return cast(numbers("uniform", tuple(map(int, shape))), dtype) * (maxval - minval) + minval

    backend.normal, backend.uniform = normal, uniform
    try:
        yield
    finally:
        backend.normal, backend.uniform = drawn


def in_torch(nodes) -> contextlib.AbstractContextManager:
    """Let torch draw these, if any node of a graph does: to look at each call takes time."""
    return InTorch() if any(n.operator == "random" for n in nodes) else contextlib.nullcontext()


class InTorch(TorchDispatchMode):
    """Let torch draw these."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        kind = KINDS.get(function._schema.name.removeprefix("aten::"))
        if kind is None:
            return made
        shape = tuple(made.shape)
        last = (shape[0], *shape[2:], shape[1]) if len(shape) in (4, 5) else shape
        given = numbers(kind, last)
        given = np.moveaxis(given, -1, 1) if last is not shape else given
        return made.copy_(torch.from_numpy(np.ascontiguousarray(given)))
