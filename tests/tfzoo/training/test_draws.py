"""Draws for a batch; that several devices draw what one does is in test_distributed_fit.py and the matrix."""

import keras
import numpy as np
import tensorflow as tf

from tfzoo.training import draws


def test_a_draw_for_each_example():
    seed = keras.random.SeedGenerator(3)
    first, second = (draws.draw(keras.random.normal, (tf.zeros((5, 2)), tf.zeros((5,))), (3, 2), seed) for _ in "ab")
    assert first.shape == (5, 3, 2) and (first.numpy() != second.numpy()).all()
    again = draws.draw(keras.random.normal, tf.zeros((5, 1)), (3, 2), keras.random.SeedGenerator(3))
    np.testing.assert_array_equal(first, again)
    small = draws.draw(keras.random.uniform, tf.zeros((4, 1)), (), seed, minval=2.0, maxval=3.0)
    assert small.shape == (4,) and float(tf.reduce_min(small)) >= 2


def test_examples_are_counted_in_the_first_tensor():
    assert int(draws.examples({"a": tf.zeros((7, 2))})) == 7
