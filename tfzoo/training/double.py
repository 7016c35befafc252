"""A second model beside one in training, to be looked at while `fit` lasts.

The model in training belongs to a strategy: where several workers train, one alone cannot run it without waiting for
the others for ever, and Keras has its functions compiled for that. Its double belongs to none, so the worker that
writes may draw samples of it; and the run's own random numbers are the same whether it does or not.
"""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras.src.random.seed_generator import global_seed_generator


class Double:
    """Another model of the same kind; it is made when it is first used, outside of any strategy's scope.

    Args:
        model: The one in training.
        build: Makes a model of the same kind.
    """

    def __init__(self, model: keras.Model, build: Callable[[], keras.Model]):
        self.original, self.build = model, build

    @functools.cached_property
    def model(self) -> keras.Model:
        """The other model; its weights are those of the latest `learn`."""
        with same_random_numbers():
            return self.build()

    def learn(self) -> None:
        """Take the weights that the original has now."""
        self.model.set_weights(self.original.get_weights())


@contextlib.contextmanager
def same_random_numbers() -> Iterator[None]:
    """Let Python's, NumPy's and Keras' random numbers go on behind the block as if it had drawn none."""
    state = global_seed_generator().state
    pythons, numpys, kerass = random.getstate(), np.random.get_state(), keras.ops.convert_to_numpy(state)
    try:
        yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)
        if (keras.ops.convert_to_numpy(state) != kerass).any():
            state.assign(kerass)
