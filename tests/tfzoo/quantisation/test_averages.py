"""The codebook that follows: two steps by hand, dead codes, and Lloyd and Max's quantiser of a normal distribution."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfzoo.quantisation.averages import Averages
from tfzoo.quantisation.codebook import quantiser, vectors

LLOYD_MAX = {2: 0.36338, 4: 0.11748, 8: 0.03455, 16: 0.00950}  # Max (1960), table I


def made(book, decay, dead=0.0, size=(1, 1)):
    book = np.asarray(book, "float32")
    network = quantiser(size, *book.shape, False)
    vectors(network).assign(book)
    return network, Averages(*book.shape, decay, dead)


def follow(network, averages, z):
    z = tf.constant(np.asarray(z, "float32").reshape(-1, *network.input_shape[1:]))
    averages.follow(network, z, network(z)["codes"])


def test_two_steps_by_hand():
    network, averages = made([[0.0, 0], [4, 4], [50, 50]], 0.75)
    follow(network, averages, [[1, 0], [3, 3], [0, 2]])
    np.testing.assert_allclose(averages.counts, [0.5, 0.25, 0])
    np.testing.assert_allclose(averages.average_counts(), [2, 1, 0])  # without the debiasing a quarter of it
    np.testing.assert_allclose(vectors(network), [[0.5, 1], [3, 3], [50, 50]])
    follow(network, averages, [[5, 3], [4, 4], [0, 0]])
    # counts: .75 * .5 + .25, .75 * .25 + .5, 0; sums: .75 * (.25, .5), .75 * (.75, .75) + .25 * (9, 7)
    np.testing.assert_allclose(averages.counts, [0.625, 0.6875, 0])
    np.testing.assert_allclose(averages.average_counts(), np.array([0.625, 0.6875, 0]) / (1 - 0.75**2))
    wanted = [[0.1875 / 0.625, 0.375 / 0.625], [2.8125 / 0.6875, 2.3125 / 0.6875], [50, 50]]
    np.testing.assert_allclose(vectors(network), wanted, rtol=1e-6)


def test_a_code_that_nobody_uses_begins_again_at_a_vector_of_the_batch():
    keras.utils.set_random_seed(0)
    network, averages = made([[0.0, 0], [4, 4], [50, 50]], 0.75, dead=0.1)
    batch = np.array([[1.0, 0], [3, 3], [0, 2]])
    follow(network, averages, batch)
    book = np.asarray(vectors(network))
    np.testing.assert_allclose(book[:2], [[0.5, 1], [3, 3]])
    assert np.abs(book[2] - batch).max(1).min() < 0.1  # beside one
    counts = np.asarray(averages.counts)
    np.testing.assert_allclose(counts, [0.5, 0.25, 0.25])
    np.testing.assert_allclose(np.asarray(averages.sums)[2] / counts[2], book[2])  # it stays there


def test_no_two_codes_begin_again_as_the_same():
    keras.utils.set_random_seed(0)
    network, averages = made(np.arange(10.0)[:, None] + 5, 0.75, dead=0.1)
    follow(network, averages, np.ones(20))
    assert len(np.unique(np.asarray(vectors(network)))) == 10


def test_of_a_learned_codebook_only_the_use_is_kept():
    """By hand as above: codes in use stay, the dead one moves, and there are no sums."""
    keras.utils.set_random_seed(0)
    network = quantiser((1, 1), 3, 2, True)
    vectors(network).assign([[0.0, 0], [4, 4], [50, 50]])
    averages, batch = Averages(3, 2, 0.75, 0.1, learned=True), np.array([[1.0, 0], [3, 3], [0, 2]])
    follow(network, averages, batch)
    np.testing.assert_allclose(averages.counts, [0.5, 0.25, 0.25])
    book = np.asarray(vectors(network))
    np.testing.assert_array_equal(book[:2], [[0, 0], [4, 4]])
    assert np.abs(book[2] - batch).max(1).min() < 0.1
    assert {v.name for v in averages.weights} == {"counts", "seen"}


@pytest.mark.parametrize("codes", LLOYD_MAX)
def test_lloyd_max(codes):
    """From a poor beginning, all codes within a tenth of one another; the batch is the distribution's quantiles."""
    keras.utils.set_random_seed(0)
    quantiles = stats.norm.ppf((np.arange(4096) + 0.5) / 4096).astype("float32")
    network, averages = made(np.linspace(0.1, 0.2, codes)[:, None], 0.5, dead=0.03, size=(64, 64))
    z = tf.constant(quantiles.reshape(1, 64, 64, 1))
    step = tf.function(lambda: averages.follow(network, z, network(z)["codes"]))
    for _ in range(600):
        step()
    found = np.square(quantiles - np.asarray(network(z)["quantised"]).ravel()).mean()
    assert found == pytest.approx(LLOYD_MAX[codes], rel=0.02)
