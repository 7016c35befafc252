"""Training by `fit`: the loss is the objective's, and the metrics are means over the examples."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfzoo
from tfzoo.variational.model import in_chunks, normal

X = np.random.default_rng(0).integers(0, 2, (10, 8, 8, 1)).astype("float32")


def made(**options):
    keras.utils.set_random_seed(0)
    return tfzoo.build("vae", "tiny", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 3.0, "warm_up": 4},
        {"beta": 2.0, "warm_up": 4, "capacity": 6.0, "capacity_steps": 8},
        {"beta": 2.0, "free_bits": 8.0},
    ],
    ids=["warm-up", "capacity", "free bits"],
)
def test_the_loss_of_a_step_is_the_objectives(check, options):
    model = made(**options)
    check.randomize(model.encoder, 1.0)
    model.encoder.get_layer("mean").kernel.assign(3 * model.encoder.get_layer("mean").kernel)
    model.compile(keras.optimizers.SGD(0.0))
    _, divergence = model.terms(X, lambda shape: np.zeros((10, *shape), "float32"))
    each = np.mean(divergence, 0)
    assert each.sum() > 10 and each.min() < 8 < each.max()
    assert model.objective.analytic and divergence.shape == (10, 3)

    def loss(elbo, step):
        beta = options["beta"] * (min(step / options["warm_up"], 1) if "warm_up" in options else 1)
        if "capacity" in options:
            nats = abs(each.sum() - options["capacity"] * min(step / options["capacity_steps"], 1))
        else:
            nats = np.maximum(each, options.get("free_bits", 0)).sum()
        return beta * nats - (elbo + each.sum())

    history = model.fit(X, batch_size=10, epochs=3, shuffle=False, verbose=0).history  # a step each
    wanted = [loss(elbo, step) for step, elbo in enumerate(history["elbo"])]
    np.testing.assert_allclose(history["loss"], wanted, rtol=1e-5)
    assert model.optimizer.iterations == 3  # of 4 or more in which it rises
    judged = model.evaluate(X, batch_size=10, verbose=0, return_dict=True)
    np.testing.assert_allclose(judged["loss"], loss(judged["elbo"], 100), rtol=1e-5)


def test_the_divergence_of_a_step_is_of_one_sample_where_asked_for(check):
    model = made(divergence="monte_carlo")
    check.randomize(model.encoder, 0.3)
    model.compile(keras.optimizers.SGD(0.0))
    found = model.fit(X, batch_size=10, epochs=2, shuffle=False, verbose=0).history["divergence"]
    exact = np.sum(model.terms(X, lambda shape: np.zeros((10, *shape), "float32"))[1], -1).mean()
    assert found[0] != found[1] and all(abs(x - exact) > 1e-4 for x in found)


def test_a_step_in_float64(check):
    with check.float64():
        model = made(warm_up=3, capacity=2.0, capacity_steps=3)
        model.compile("sgd")
        assert np.isfinite(model.fit(X.astype("float64"), verbose=0).history["loss"]).all()
        assert model.sample(2).dtype == "float64"


def test_free_bits_and_capacity_are_of_the_whole_batch(tmp_path):
    """Of replicas with 6 and 5 examples, too."""
    script = pathlib.Path(__file__).with_name("_replicas.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"free_bits", "capacity"}
    for name, (moved, apart) in found.items():
        assert moved > 1e-3 and apart < 1e-6, name


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, i):
        return (255 * X,)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float32"])
def test_pictures_of_any_kind_of_numbers_are_learned_from(dtype):
    model = made()
    model.compile("sgd")
    assert np.isfinite(model.fit(X.astype(dtype), verbose=0).history["loss"]).all()


def test_what_is_refused_before_training():
    model = made()
    model.compile("sgd")
    refused = {"values from 0 to 255": [Sequence(), (255 * X).astype("uint8"), tf.data.Dataset.from_tensors(255 * X)]}
    refused["there are no pictures"] = [X[:0], tf.data.Dataset.from_tensor_slices(X[:0]).batch(2)]
    for text, some in refused.items():
        for data in some:
            with pytest.raises(ValueError, match=text):
                model.fit(data, verbose=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.fit(X, validation_data=(np.full_like(X, np.nan),), verbose=0)
    model = made(likelihood="gaussian")
    model.compile("sgd")
    with pytest.warns(UserWarning, match="values up to 255 in size may let the first steps overflow"):
        model.fit(255 * X, verbose=0)


def test_dropout_is_of_training_alone_in_both_networks(check):
    model = tfzoo.build("vae", "digits", dropout=0.5, activation="tanh")
    check.randomize(model.encoder, 0.3)
    check.randomize(model.decoder, 0.3)
    zero = lambda shape: np.zeros((10, *shape), "float32")  # noqa: E731
    plain = model.terms(X, zero)
    for a, b in zip(plain, model.terms(X, zero), strict=True):
        np.testing.assert_array_equal(a, b)
    _, divergence = model.terms(X, zero, training=True)
    assert np.abs(divergence - plain[1]).max() > 1e-3  # by the encoder
    for name in ("mean", "log_variance"):
        layer = model.encoder.get_layer(name)
        layer.kernel.assign(np.zeros(layer.kernel.shape))
    log_likelihood, _ = model.terms(X, zero, training=True)
    assert np.abs(log_likelihood - model.terms(X, zero)[0]).max() > 1e-3  # by the decoder


def test_of_nothing_nothing_is_made():
    model = made()
    for call in (lambda: model.sample(0), lambda: model.reconstruct(X[:0]), lambda: model.traverse(X[0], [])):
        with pytest.raises(ValueError, match="nothing can be made of no examples"):
            call()


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
