"""The ladder: its shapes, that the way down is one, and that log q and log p are what they are said to be."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfzoo
from apps.run_folder import networks
from tfzoo.iaf_vae import inferred
from tfzoo.variational import ladder

RNG = np.random.default_rng
SMALL = {"image_shape": (8, 4, 1), "latents": 2, "width": 6, "context": 3, "flow_units": (5,), "blocks": 2}


def build(check, levels, **options):
    model = tfzoo.build("iaf_vae", "ladder", **{**SMALL, "levels": levels, **options})
    for network in networks(model).values():
        check.randomize(network, 0.1)
    return model


def test_shapes_and_channels():
    assert ladder.shapes((8, 4, 3), 2, (2, 1)) == [(4, 2, 2), (4, 2, 2), (2, 1, 2)]
    found = ladder.channels((8, 4, 3), 2, (1, 1))  # the higher level's 2x1 pixels first, then 4x2
    assert found.shape == (2 * 1 * 2 + 4 * 2 * 2, 4)
    np.testing.assert_array_equal(found.sum(0), [2, 2, 8, 8])
    np.testing.assert_array_equal(found[:5].argmax(1), [0, 1, 0, 1, 2])


@pytest.mark.parametrize("levels", [(1,), (2,), (2, 1), (1, 2)])
def test_the_decoder_makes_of_the_latents_what_was_inferred_with_them(check, levels):
    """Else the two ways down would not be one, or the prior's units wrong."""
    with check.float64():
        model = build(check, levels)
        x, noise = RNG(0).integers(0, 2, (3, 8, 4, 1)), RNG(1).normal(size=(3, *model.decoder.input_shape[1:]))
        made = inferred(model.networks(), tf.constant(x, "float64"), tf.constant(noise))
        given = model.decoder(made["latent"])
    np.testing.assert_allclose(made["logits"], given["logits"], rtol=1e-9, atol=1e-9)
    assert np.std(given["logits"], axis=0).max() > 1e-3
    shared = {w.path for w in model.decoder.weights}
    assert len(model.weights) == len({id(w) for w in model.weights})
    assert shared <= {w.path for w in model.inference.weights}  # so that a module of torch has them by the same names


@pytest.mark.parametrize("levels, blocks", [((2,), 1), ((1, 1), 2), ((2,), 0)])
def test_the_density_of_the_latents_is_that_of_the_noise(check, levels, blocks):
    """log q = log N(noise) - log |det d latent / d noise|, with all levels and their priors in it."""
    with check.float64():
        model = build(check, levels, blocks=blocks)
        x = tf.constant(RNG(0).integers(0, 2, (2, 8, 4, 1)), "float64")
        noise = tf.Variable(RNG(1).normal(size=(2, *model.decoder.input_shape[1:])))
        with tf.GradientTape() as tape:
            latent = inferred(model.networks(), x, noise)["latent"]
        jacobian = np.asarray(tape.batch_jacobian(latent, noise))
        _, divergence = model.terms(x, lambda shape: noise)
        latent, noise = np.asarray(latent), np.asarray(noise)
    log_normal = lambda z: -(z**2 + np.log(2 * np.pi)).sum(-1) / 2  # noqa: E731
    wanted = log_normal(noise) - np.linalg.slogdet(jacobian)[1] - log_normal(latent)
    np.testing.assert_allclose(np.sum(divergence, -1), wanted, rtol=1e-9)
    assert divergence.shape == (2, 2 * sum(levels)) and np.std(wanted) > 1e-3


def test_counts_worked_out_by_hand(check):
    """Two levels of one size, W features, K latents, N channels of context."""
    w, k, n, h = 6, 2, 3, 5
    conv = lambda a, b: 9 * a * b + b  # noqa: E731
    up = conv(1, w) + conv(w, 2 * k + n + w) + conv(w, w) + conv(w, 2 * k + n)
    top = w + conv(w, w) + conv(w, 2 * k + n) + conv(w + k, w)
    low = conv(w, w + 2 * k) + conv(w, 2 * k + n) + conv(w + k, w)
    flow = 9 * k * h + h + n * h + 2 * (9 * h * k + k)
    model = build(check, (2,), blocks=1)
    assert check.trainable(model.inference) == check.trainable(model) == up + top + low + 2 * flow + conv(w, 1)
    assert check.trainable(model.decoder) == w + conv(w, w) + conv(w + k, w) * 2 + conv(w, w + 2 * k) + conv(w, 1)
    keras.backend.clear_session()
