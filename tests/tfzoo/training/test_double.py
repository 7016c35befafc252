import random

import keras
import numpy as np
import tensorflow as tf

from tfzoo.training.double import Double, same_random_numbers


def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])


def drawn():
    """Random numbers of all three kinds."""
    return random.random(), np.random.rand(), float(keras.random.uniform(()))


def test_it_has_the_weights_of_the_latest_learn_and_a_life_of_its_own():
    model = build()
    double = Double(model, build)
    double.learn()
    before = [weight.copy() for weight in double.model.get_weights()]
    model.layers[0].kernel.assign_add(np.ones((3, 2)))
    for left, right in zip(before, double.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    double.learn()
    for left, right in zip(model.get_weights(), double.model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_it_is_made_late_once_and_in_no_strategy():
    made = []

    def count():
        made.append(build())
        return made[-1]

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        double = Double(build(), count)
    assert not made
    double.learn()
    double.learn()
    assert made == [double.model]
    assert double.model.distribute_strategy is not strategy


def test_a_run_draws_the_same_numbers_with_and_without_it():
    double = Double(build(), build)
    keras.utils.set_random_seed(3)
    expected = [drawn() for _ in range(2)]
    keras.utils.set_random_seed(3)
    first = drawn()
    double.learn()
    with same_random_numbers():
        assert drawn() == expected[1]
    assert [first, drawn()] == expected
