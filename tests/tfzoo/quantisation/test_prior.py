"""The PixelCNN sees what came before and nothing else, and is sampled as the chain rule says."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfzoo.quantisation.prior import ancestral, certain, nats, pixel_cnn, uniform

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def prior(check):
    return check.randomize(pixel_cnn((3, 4), 5, 6, 4))


def test_every_position_sees_all_before_it_and_nothing_else(prior):
    """By the gradient: of the logits of each position by what the codes are embedded as."""
    codes = RNG(0).integers(0, 5, (1, 3, 4)).astype("int32")
    embedding = prior.get_layer("embedding")
    rest = prior.__class__(embedding.output, prior.output)
    x = tf.constant(embedding(codes))
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = tf.reshape(tf.reduce_sum(tf.square(rest(x)), -1), (12,))
    support = np.abs(tape.jacobian(logits, x).numpy()).sum(-1).reshape(12, 12) > 0
    np.testing.assert_array_equal(support, np.tril(np.ones((12, 12), bool), -1))


def test_nats(prior):
    codes = RNG(0).integers(0, 5, (2, 3, 4)).astype("int32")
    logits = np.asarray(prior(codes), "float64")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = -np.log(np.take_along_axis(p, codes[..., None], -1))[..., 0]
    np.testing.assert_allclose(nats(prior(codes), codes), wanted, rtol=1e-5)


def test_samples_are_those_of_naive_ancestral_sampling(prior):
    numbers = RNG(0).random((20, 3, 4)).astype("float32")
    wanted = np.zeros((20, 3, 4), "int32")
    for i in range(3):
        for j in range(4):
            p = np.asarray(tf.nn.softmax(prior(wanted)[:, i, j]))
            wanted[:, i, j] = (p.cumsum(-1)[:, :-1] <= numbers[:, i, j, None]).sum(-1)
    np.testing.assert_array_equal(ancestral(prior, tf.constant(numbers)), wanted)
    assert len(np.unique(wanted)) == 5


def test_samples_are_as_frequent_as_they_are_probable(check):
    prior = check.randomize(pixel_cnn((1, 2), 3, 4, 2))
    pairs = np.stack(np.meshgrid(range(3), range(3), indexing="ij"), -1).reshape(9, 1, 2).astype("int32")
    probable = np.exp(-np.asarray(nats(prior(pairs), pairs)).sum((1, 2)))
    assert probable.sum() == pytest.approx(1, abs=1e-5)
    drawn = np.asarray(ancestral(prior, tf.constant(RNG(0).random((4000, 1, 2)).astype("float32")))).reshape(-1, 2)
    found = np.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9) / 4000
    np.testing.assert_allclose(found, probable, atol=4 * (0.25 / 4000) ** 0.5)


def test_numbers_are_uniform_and_each_of_its_own_seed_and_place():
    numbers = np.asarray(uniform(tf.constant([5, 5, 6]), tf.constant([0, 1, 0]), (30, 40)))
    assert numbers.shape == (3, 30, 40) and numbers.min() >= 0 and numbers.max() < 1
    for one in numbers:
        assert stats.kstest(one.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(numbers.reshape(3, -1))[np.triu_indices(3, 1)]).max() < 0.15
    alone = uniform(tf.constant([5]), tf.constant([1]), (30, 40))
    np.testing.assert_array_equal(alone[0], numbers[1])


def test_how_certain_codes_are(prior):
    """The codes stay the same by numbers less far off than that, and change by those further off."""
    numbers = RNG(1).random((1, 3, 4)).astype("float32")
    margin = float(certain(prior, tf.constant(numbers))[0])
    codes = np.asarray(ancestral(prior, tf.constant(numbers)))

    def same(far):
        around = np.stack(
            [numbers[0] + far * np.eye(12).reshape(12, 3, 4)[i] * sign for i in range(12) for sign in (-1, 1)]
        )
        found = np.asarray(ancestral(prior, tf.constant(around.astype("float32"))))
        return (found == codes).all()

    assert same(0.98 * margin) and not same(1.02 * margin)
