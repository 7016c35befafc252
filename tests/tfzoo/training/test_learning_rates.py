import keras
import numpy as np
import pytest

from tfzoo.training.learning_rates import LearningRates, rates
from tfzoo.training.two_optimizers import TwoOptimizers


def small():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def test_the_rate_that_every_epoch_ends_with():
    model = small()
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=1, decay_rate=0.5)
    model.compile(keras.optimizers.SGD(decay), "mse")
    history = model.fit(
        np.ones((6, 2)), np.ones((6, 1)), batch_size=2, epochs=2, callbacks=[LearningRates()], verbose=0
    )
    np.testing.assert_allclose(history.history["learning_rate"], [0.1 * 0.5**3, 0.1 * 0.5**6], rtol=1e-6)


def test_a_scaled_loss_hides_no_rate():
    model = small()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.25)), "mse")
    assert rates(model) == {"learning_rate": 0.25}


def test_two_optimizers_by_their_names():
    model = TwoOptimizers(small(), small())
    model.compile(keras.optimizers.SGD(0.5), keras.optimizers.Adam(0.125))
    assert rates(model) == {"generator_learning_rate": 0.5, "critic_learning_rate": 0.125}


def test_a_list_of_optimizers_by_their_numbers():
    model = small()
    model.both = [keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.25)]
    assert rates(model) == {"optimizer_0_learning_rate": 0.5, "optimizer_1_learning_rate": 0.25}


@pytest.mark.parametrize("compiled", [False, True])
def test_without_an_optimizer_there_is_no_rate(compiled):
    model = small()
    if compiled:
        model.compile(optimizer=None, loss="mse")
    assert rates(model) == {}
