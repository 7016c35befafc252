"""The quantiser gives the nearest vector, and the gradient goes straight through."""

import numpy as np
import pytest
import tensorflow as tf

from tfzoo.quantisation.codebook import quantiser, straight_through, vectors

RNG = np.random.default_rng


def made(trainable=True):
    network = quantiser((3, 5), 7, 4, trainable)
    vectors(network).assign(RNG(0).normal(size=(7, 4)))
    return network


def test_the_nearest_of_all():
    network, z = made(), RNG(1).normal(size=(2, 3, 5, 4)).astype("float32")
    book = np.asarray(vectors(network))
    found = network(z)
    wanted = np.square(z[..., None, :] - book).sum(-1).argmin(-1)
    assert len(np.unique(wanted)) > 4
    np.testing.assert_array_equal(found["codes"], wanted)
    np.testing.assert_array_equal(found["quantised"], book[wanted])


@pytest.mark.parametrize("trainable", [True, False])
def test_who_has_a_gradient(trainable):
    network, z = made(trainable), tf.constant(RNG(1).normal(size=(2, 3, 5, 4)).astype("float32"))
    assert [v.path.split("/")[-2] for v in network.trainable_variables] == ["codebook"] * trainable
    weights = RNG(2).normal(size=(2, 3, 5, 4)).astype("float32")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        quantised = network(z)["quantised"]
        through = tf.reduce_sum(tf.sin(straight_through(z, quantised)) * weights)
        loss = tf.reduce_sum(tf.square(quantised - tf.stop_gradient(z)))
    np.testing.assert_allclose(tape.gradient(through, z), np.cos(quantised) * weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(straight_through(z, quantised), quantised, atol=1e-6)
    assert tape.gradient(loss, z) is None or not np.any(tape.gradient(loss, z))
    if trainable:
        codes, book = np.asarray(network(z)["codes"]), np.asarray(vectors(network))
        wanted = np.stack([(2 * (book[k] - z.numpy()[codes == k])).sum(0) for k in range(7)])
        np.testing.assert_allclose(tape.gradient(loss, vectors(network).value), wanted, rtol=1e-4, atol=1e-4)
