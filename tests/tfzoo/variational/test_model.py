"""Training by `fit`: the loss is the objective's, and the metrics are means over the examples."""

import keras
import numpy as np

import tfzoo
from tfzoo.variational.model import in_chunks, normal

X = np.random.default_rng(0).integers(0, 2, (10, 8, 8, 1)).astype("float32")


def made(**options):
    keras.utils.set_random_seed(0)
    return tfzoo.build("vae", "tiny", **options)


def test_the_loss_of_a_step_is_the_objectives():
    model = made(beta=3.0, warm_up=4)
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(X, batch_size=5, epochs=3, shuffle=False, verbose=0).history  # 2 steps each
    nats, elbo = np.array(history["divergence"]), np.array(history["elbo"])
    share = np.array([(0 + 0.25) / 2, (0.5 + 0.75) / 2, 1])
    np.testing.assert_allclose(history["loss"], -elbo - nats + 3 * share * nats, rtol=0.02)  # one beta for two steps
    judged = model.evaluate(X, batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(judged["loss"], -judged["elbo"] + 2 * judged["divergence"], rtol=1e-5)


def test_of_a_last_batch_that_is_smaller_every_example_counts_the_same():
    model = made()
    model.compile("sgd")
    zero = lambda shape: np.zeros((10, *shape), "float32")  # noqa: E731
    _, divergence = model.terms(X, zero)
    found = model.evaluate(X, batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["divergence"], np.sum(divergence, -1).mean(), rtol=1e-5)


def test_draws_are_new_at_every_step_and_the_same_by_the_seed():
    ends = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        model = tfzoo.build("vae", "tiny")
        model.set_weights(made().get_weights())
        model.compile(keras.optimizers.SGD(0.0))
        ends.append(model.fit(X, batch_size=10, epochs=2, shuffle=False, verbose=0).history["elbo"])
    assert ends[0] == ends[1] and ends[0][0] != ends[0][1] and ends[0] != ends[2]


def test_chunks_are_as_one():
    x = np.arange(1000.0).reshape(500, 2)
    np.testing.assert_array_equal(in_chunks(lambda a: a * 2, x), 2 * x)
    np.testing.assert_array_equal(normal(3, (2,), 5), normal(9, (2,), 5)[:3])
