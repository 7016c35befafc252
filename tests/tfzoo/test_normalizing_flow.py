"""Normalizing flows of every kind: determinants, inverses, densities that integrate to one, and what torch says."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from scipy import stats

import bridge
import tfzoo
from tfzoo import normalizing_flow as flows

RNG = np.random.default_rng
SMALL = {"blocks": 3, "units": (7, 6), "activation": "tanh", "dropout": 0.0}
KINDS = pytest.mark.parametrize("kind", flows.KINDS)


def built(check, kind, shape=(3, 2, 1), scale=0.4, **options):
    model = tfzoo.build("normalizing_flow", shape=shape, kind=kind, **{**SMALL, **options})
    check.randomize(model.flow, scale)
    for weight in model.flow.trainable_variables:  # slopes as those of a trained spline: few, and not near to 0
        if kind == "spline" and any(name in weight.path for name in ("widths", "heights", "slopes")):
            weight.assign(0.3 * weight)
    return model


def data(count=4, shape=(3, 2, 1), seed=0):
    return RNG(seed).normal(size=(count, *shape))


def test_counts_worked_out_by_hand(check):
    dense = lambda a, b: a * b + b  # noqa: E731
    wanted = {
        "digits": 5 * (dense(64, 256) + 2 * dense(256, 64)),
        "realnvp": 8 * (dense(64, 256) + dense(256, 256) + 2 * dense(256, 64)),
        "planar": 32 * (64 + 64 + 1),
        "radial": 32 * (64 + 1 + 1),
        "plane": 2 * (dense(2, 128) + dense(128, 128) + 2 * dense(128, 2 * 16) + dense(128, 2 * 15)),
        "tiny": 2 * (dense(64, 16) + 2 * dense(16, 64)),
    }
    for size, count in wanted.items():
        assert check.trainable(tfzoo.build("normalizing_flow", size)) == count == flows.PARAMETERS[size], size


@KINDS
@pytest.mark.parametrize("shape", [(2,), (3, 2, 1), (5,)])
def test_the_determinant_is_that_of_the_jacobian(check, kind, shape):
    with check.float64():
        model, x = built(check, kind, shape), tf.Variable(data(shape=shape))
        with tf.GradientTape() as tape:
            found = model.flow(x)
        jacobian = np.asarray(tape.batch_jacobian(found["latent"], x)).reshape(4, math.prod(shape), -1)
        wanted = np.linalg.slogdet(jacobian)[1]
        np.testing.assert_allclose(found["log_determinant"], wanted, atol=1e-9)
        assert np.std(wanted) > 1e-3 and np.abs(wanted).max() > 0.1
        exact = stats.norm.logpdf(found["latent"]).sum(-1) + wanted
        np.testing.assert_allclose(model.log_prob(x.numpy()), exact, atol=1e-9)


@KINDS
def test_the_inverse_gives_back_what_went_in(check, kind):
    with check.float64():
        model, x = built(check, kind), data(300)  # more than is computed at once
        z = np.asarray(model.flow(x)["latent"])
        assert np.abs(z - x.reshape(z.shape)).max() > 0.1
        np.testing.assert_allclose(model.inverse(z), x, atol=1e-9)
    model, x = built(check, kind), data(300).astype("float32")
    back = model.inverse(np.asarray(model.flow(x)["latent"]))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, x, atol=1e-5)


@KINDS
def test_a_density_of_the_plane_integrates_to_one(check, kind):
    model = built(check, kind, (2,), bound=4.0 if kind == "spline" else 1.0)  # of no spikes that a grid would miss
    ends, points = 8.0, 161
    line = np.linspace(-ends, ends, points)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype("float32")
    density = np.exp(model.log_prob(grid).astype("float64"))
    assert density.sum() * (line[1] - line[0]) ** 2 == pytest.approx(1, abs=0.01)
    plain = stats.norm.pdf(grid).prod(-1)
    assert np.abs(density - plain).max() > 0.02  # else it would be of the base alone


@KINDS
def test_samples_are_of_the_density(check, kind):
    """An average over samples and one over the grid are the same."""
    bound = 4.0 if kind == "spline" else 0.3
    model = built(check, kind, (2,), scale=0.3, bound=bound)  # of moments that do not hang on a few samples
    line = np.linspace(-9, 9, 181)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype("float32")
    density = np.exp(model.log_prob(grid).astype("float64")) * (line[1] - line[0]) ** 2
    drawn = model.sample(4000, seed=1)
    wanted, spread = density @ grid, (density @ grid**2 - (density @ grid) ** 2) ** 0.5
    np.testing.assert_allclose(drawn.mean(0), wanted, atol=5 * spread.max() / 4000**0.5)
    np.testing.assert_allclose(drawn.std(0), spread, rtol=0.08)
    np.testing.assert_allclose(model.sample(5, seed=1), drawn[:5], atol=1e-5)
    assert np.abs(model.sample(5, seed=2) - drawn[:5]).max() > 0.01


def test_the_base_is_scipys(check):
    z = data(20, (6,))
    model = built(check, "planar")
    np.testing.assert_allclose(model.base().log_prob(z.astype("float32")), stats.norm.logpdf(z).sum(-1), rtol=1e-5)
    with check.float64():
        np.testing.assert_allclose(built(check, "planar").base().log_prob(z), stats.norm.logpdf(z).sum(-1), rtol=1e-12)


def test_maf_reverses_the_order_between_blocks(check):
    """Of one block the Jacobian is triangular; of two every number reaches every other."""
    for blocks, full in ((1, False), (2, True)):
        with check.float64():
            model, x = built(check, "maf", (5,), blocks=blocks), tf.Variable(data(2, (5,)))
            with tf.GradientTape() as tape:
                z = model.flow(x)["latent"]
            jacobian = np.asarray(tape.batch_jacobian(z, x))
        assert (jacobian[:, 0, -1] != 0).all() == full
        assert (np.triu(jacobian, 1) == 0).all() != full


@pytest.mark.parametrize("kind", ["realnvp", "spline"])
def test_both_networks_agree(check, kind):
    model, x = built(check, kind), data().astype("float32")
    z = model.flow(x)["latent"]
    np.testing.assert_allclose(model.inverse_network(z), x, atol=1e-5)
    np.testing.assert_allclose(model.inverse_network(z), model.inverse(np.asarray(z)), atol=1e-6)
    model.flow.trainable_variables[-1].assign_add(np.ones(model.flow.trainable_variables[-1].shape))
    np.testing.assert_allclose(model.inverse_network(model.flow(x)["latent"]), x, atol=1e-5)  # the same weights
    assert len(model.trainable_variables) == len(model.flow.trainable_variables)
    assert not hasattr(built(check, "maf"), "inverse_network")


@KINDS
def test_there_and_back_over_the_bridge_and_torchs_log_likelihood(check, kind):
    model, x = built(check, kind, shape=(3, 4, 2), blocks=2), data(5, (3, 4, 2)).astype("float32")
    networks = [model.flow] + ([model.inverse_network] if kind in ("realnvp", "spline") else [])
    for network in networks:
        module = bridge.to_torch(network)
        report = bridge.verify(network, module)
        assert report.passed, str(report)
        rows = torch.from_numpy(data(5, (24,), 1).astype("float32"))
        given = check.first(x) if network is model.flow else rows
        back = bridge.to_keras(module, (given,))
        before, behind = (
            sorted((tuple(v.shape), v.numpy().tobytes()) for v in of.trainable_variables) for of in (network, back)
        )  # in any order; what a mask becomes is not trained
        assert before == behind
    module = bridge.to_torch(model.flow)
    with torch.no_grad():
        found = module(check.first(x))
        base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(24), 1.0), 1)
        nats = base.log_prob(found["latent"]) + found["log_determinant"]
    np.testing.assert_allclose(model.log_prob(x), nats, rtol=1e-5, atol=1e-5)


def test_fit_is_by_the_likelihood(check):
    model, x = built(check, "realnvp", (2,)), data(64, (2,)).astype("float32") * 0.3 + 2
    model.compile(keras.optimizers.Adam(1e-2))
    before = model.evaluate(x, verbose=0, return_dict=True)
    np.testing.assert_allclose(before["loss"], -model.log_prob(x).mean(), rtol=1e-5)
    np.testing.assert_allclose(before["log_likelihood"], -before["loss"], rtol=1e-5)
    model.fit(x, epochs=20, verbose=0)
    assert model.evaluate(x, verbose=0, return_dict=True)["loss"] < before["loss"] - 1


def test_dropout_is_of_training_alone(check):
    for kind in ("maf", "realnvp"):
        model, x = built(check, kind, dropout=0.5), data().astype("float32")
        np.testing.assert_array_equal(model(x, training=False), model(x))
        assert np.abs(np.asarray(model(x, training=True)) - model(x)).max() > 1e-3


@KINDS
def test_mixed_precision_can_sample(check, kind):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = built(check, kind)
    finally:
        keras.config.set_dtype_policy(before)
    drawn = model.sample(3)
    assert drawn.dtype == np.float32 and np.isfinite(drawn).all()
    assert model.log_prob(drawn).dtype == np.float32


@pytest.mark.parametrize(
    "options, text",
    [
        ({"shape": (8, 0)}, r"shape must be one or more integers from 1. Received: shape=\(8, 0\)"),
        ({"shape": 8}, "shape must be one or more integers from 1. Received: shape=8"),
        ({"bins": 4}, "bins is of no effect without kind='spline'. Received: bins=4"),
        ({"kind": "spline", "bins": 1}, "bins must be an integer from 2 to 500. Received: bins=1"),
        ({"kind": "spline", "shape": (1,)}, "spline leaves half of the numbers as they are, so it takes two or more"),
        ({"shape": (1,)}, "realnvp leaves half of the numbers as they are, so it takes two or more"),
        ({"kind": "glow"}, "kind must be one of 'planar', 'radial', 'realnvp', 'spline', 'maf'. Received: kind='glow'"),
        ({"blocks": 0}, "blocks must be an integer from 1. Received: blocks=0"),
        ({"units": ()}, r"units must be one or more integers from 1. Received: units=\(\)"),
        ({"activation": "tanhh"}, "activation must be one of Keras', such as 'relu'. Received: activation='tanhh'"),
        ({"bound": 0}, "bound must be a number above 0. Received: bound=0"),
        ({"levels": 1}, "levels must be an integer from 2. Received: levels=1"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\). Received: dropout=1.0"),
    ],
)
def test_what_cannot_be_built(options, text):
    with pytest.raises(ValueError, match=text):
        tfzoo.build("normalizing_flow", "tiny", **options)
    with pytest.raises(ValueError, match=text) as raised:  # with all else that is wrong
        tfzoo.build("normalizing_flow", "tiny", **{"dropout": -1, **options})
    assert "dropout must be" in str(raised.value)


@pytest.mark.parametrize(
    "given, text",
    [
        (np.full((4, 8, 8, 1), np.nan, "float32"), "256 value.s. of the data are NaN or infinite: leave those out"),
        (data(4, (8, 9, 1)).astype("float32"), r"takes arrays of the shape \(8, 8, 1\). Received: \(8, 9, 1\)"),
        (RNG(0).integers(0, 255, (4, 8, 8, 1)).astype("uint8"), "add noise of a level's width .* uint8 of whole"),
        (RNG(0).integers(0, 255, (4, 8, 8, 1)).astype("float32"), "add noise of a level's width .* float32 of whole"),
    ],
)
def test_data_that_no_density_is_of(given, text):
    model = tfzoo.build("normalizing_flow", "tiny")
    model.compile("adam")
    before = model.get_weights()
    for some in (given, tf.data.Dataset.from_tensors((given,))):
        with pytest.raises(ValueError, match=text):
            model.fit(some, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
