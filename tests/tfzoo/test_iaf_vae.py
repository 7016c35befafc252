"""Autoencoders with an inverse autoregressive flow: counts, densities by the Jacobian, and torch's word for them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import bridge
import tfzoo
from apps.run_folder import networks
from tfzoo import iaf_vae
from tfzoo.iaf_vae import inferred
from tfzoo.variational.bounds import bounds

RNG = np.random.default_rng
LADDER = {"kind": "ladder", "latents": 2, "levels": (1, 1), "width": 6, "context": 3, "flow_units": (5,)}
LADDER = {"size": "ladder", **LADDER}
KINDS = pytest.mark.parametrize("options", [{"size": "tiny"}, LADDER], ids=["dense", "ladder"])


def binary(count, *shape, seed=0):
    return RNG(seed).integers(0, 2, (count, *shape)).astype("float32")


def build(check, options, **more):
    model = tfzoo.build("iaf_vae", **{**options, **more})
    for network in networks(model).values():
        check.randomize(network, 0.1)
    return model


def noise_of(model, count, seed=1):
    return RNG(seed).normal(size=(count, *model.decoder.input_shape[1:])).astype("float32")


def test_counts_worked_out_by_hand(check):
    dense = lambda a, b: a * b + b  # noqa: E731
    model = tfzoo.build("iaf_vae")
    assert check.trainable(model.encoder) == dense(64, 256) + 2 * dense(256, 16) + dense(256, 32)
    assert check.trainable(model.flow) == 2 * (dense(16, 128) + 32 * 128 + 2 * dense(128, 16))
    assert check.trainable(model.decoder) == dense(16, 256) + dense(256, 64)
    assert check.trainable(model) == iaf_vae.PARAMETERS["digits"]


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
def test_the_density_of_a_latent_is_that_of_the_noise(check, blocks):
    """log q = log N(noise) - log |det d latent / d noise|, whatever is turned around between the steps."""
    with check.float64():
        model = build(check, {"size": "tiny"}, blocks=blocks)
        x, noise = tf.constant(binary(3, 8, 8, 1), "float64"), tf.Variable(RNG(1).normal(size=(3, 3)))
        with tf.GradientTape() as tape:
            latent = inferred(model.networks(), x, noise)["latent"]
        jacobian = np.asarray(tape.batch_jacobian(latent, noise))
        _, divergence = model.terms(x, lambda shape: noise)
        latent, noise = np.asarray(latent), np.asarray(noise)
    log_normal = lambda z: -(z**2 + np.log(2 * np.pi)).sum(-1) / 2  # noqa: E731
    wanted = log_normal(noise) - np.linalg.slogdet(jacobian)[1] - log_normal(latent)
    np.testing.assert_allclose(np.sum(divergence, -1), wanted, rtol=1e-9)
    full = (np.abs(jacobian) > 0).all()
    assert full == (blocks > 1)  # one step is triangular; turned around, a second one joins all with all
    np.testing.assert_allclose(np.sum(divergence, -1), divergence.numpy().sum(-1))


def test_without_a_flow_it_is_the_ordinary_one(check):
    """The same weights, the same noise: tfzoo.vae's terms."""
    model = build(check, {"size": "tiny"}, blocks=0)
    plain = tfzoo.build(
        "vae", "tiny", encoder=(), encoder_units=(16,), decoder_units=(16,), decoder=None, divergence="monte_carlo"
    )
    for name in ("dense0", "mean", "log_variance"):
        plain.encoder.get_layer(name).set_weights(model.encoder.get_layer(name).get_weights())
    plain.decoder.set_weights(model.decoder.get_weights())
    x, noise = binary(4, 8, 8, 1), noise_of(model, 4)
    for a, b in zip(
        model.terms(x, lambda s: tf.constant(noise)), plain.terms(x, lambda s: noise, analytic=False), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@KINDS
def test_xla_computes_the_same(check, options):
    model, x = build(check, options), binary(5, 8, 8, 1)
    noise = tf.constant(noise_of(model, 5))
    plain, fused = (
        tf.function(lambda x: model.terms(x, lambda shape: noise), jit_compile=j)(tf.constant(x)) for j in (False, True)
    )
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@KINDS
def test_torch_distributions_say_the_same(check, options):
    model, x = build(check, options), binary(4, 8, 8, 1)
    noise = noise_of(model, 4)
    log_likelihood, divergence = model.terms(tf.constant(x), lambda shape: tf.constant(noise))
    parts = {name: bridge.to_torch(network) for name, network in networks(model).items()}
    for name, network in networks(model).items():
        assert bridge.verify(network, parts[name]).passed, name
    given, noise = torch.from_numpy(np.moveaxis(x, -1, 1).copy()), torch.from_numpy(noise)
    normal = torch.distributions.Normal
    with torch.no_grad():
        if "inference" in parts:
            made = parts["inference"](image=given, noise=noise)
            start, prior = normal(made["start_mean"], made["start_log_scale"].exp()), made["prior_log_scale"]
        else:
            found = parts["encoder"](given)
            start, prior = normal(found["mean"], (found["log_variance"] / 2).exp()), 0
            begun = start.mean + start.stddev * noise
            made = parts["flow"](start=begun, context=found["context"])
            made = {**made, "start": begun, **parts["decoder"](made["latent"])}
        log_q = start.log_prob(made["start"]) - made["log_determinant"]
        log_p = normal(0.0, 1.0).log_prob(made["latent"]) - prior
        over = torch.distributions.Bernoulli(logits=made["logits"])
        np.testing.assert_allclose(log_likelihood, over.log_prob(given).sum((1, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(np.sum(divergence, -1), (log_q - log_p).sum(-1), rtol=1e-5, atol=1e-4)


@KINDS
def test_what_it_makes_of_pictures(check, options):
    model, x = build(check, options), binary(300, 8, 8, 1)
    latents = model.encode(x)
    assert latents.shape == (300, *model.decoder.input_shape[1:])
    nothing = tf.zeros(latents[:5].shape)
    np.testing.assert_allclose(
        latents[:5], inferred(model.networks(), tf.constant(x[:5]), nothing)["latent"], atol=1e-5
    )
    back = model.reconstruct(x)
    np.testing.assert_allclose(back, keras.ops.sigmoid(model.decoder(latents)["logits"]), atol=1e-6)
    assert np.std(back, axis=0).max() > 1e-3
    assert model.interpolate(x[0], x[1], 3).shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(model.sample(4, seed=3), model.sample(6, seed=3)[:4])
    assert np.abs(model.sample(4, seed=3) - model.sample(4, seed=4)).max() > 1e-3


@KINDS
def test_it_learns(check, options):
    """From pictures of two kinds the bound comes to 64 coins' at least, and near to ln 2."""
    keras.utils.set_random_seed(0)
    model = tfzoo.build("iaf_vae", **options, **({"warm_up": 100} if "kind" in options else {}))
    x = np.repeat(binary(2, 8, 8, 1), 50, 0)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(x, epochs=60, batch_size=25, verbose=0)
    found = bounds(model, x[::10], 20)
    assert -3 < found.elbo.mean() < -np.log(2) + 0.05  # 64 ln 2 = 44.4 before


@pytest.mark.parametrize(
    "options, text",
    [
        ({"kind": "deep"}, "kind must be one of 'dense', 'ladder'. Received: kind='deep'"),
        ({"latents": 0}, "latents must be an integer from 1. Received: latents=0"),
        ({"blocks": -1}, "blocks must be an integer from 0. Received: blocks=-1"),
        ({"flow_units": (0,)}, "flow_units must be one or more integers from 1"),
        ({"context": 0}, "context must be an integer from 1"),
        ({"forget_bias": float("inf")}, "forget_bias must be a finite number. Received: forget_bias=inf"),
        ({"levels": (3,)}, r"levels is of no effect without kind='ladder'. Received: levels=\(3,\)"),
        ({"width": 8}, "width is of no effect without kind='ladder'. Received: width=8"),
        ({"levels": ()}, "levels must be one or more integers from 1"),
        ({"activation": "swishy"}, "activation must be one of Keras'"),
        ({"likelihood": "poisson"}, "likelihood must be one of bernoulli, gaussian, discretised_logistic"),
        ({"grey_levels": 1}, "levels must be an integer from 2"),
        ({"free_bits": -1.0}, "free_bits must be a number from 0"),
    ],
)
def test_what_cannot_be_built(options, text):
    with pytest.raises(ValueError, match=text):
        tfzoo.build("iaf_vae", "tiny", **options)
    with pytest.raises(ValueError, match=text) as raised:  # with all else that is wrong
        tfzoo.build("iaf_vae", "tiny", **{"beta": -1, **options})
    assert "beta must be" in str(raised.value)


def test_a_ladder_that_cannot_be_built():
    with pytest.raises(ValueError, match="the ladder halves a picture 2 times, so its height and width must be"):
        tfzoo.build("iaf_vae", "ladder", levels=(1, 1), image_shape=(6, 8, 1))
    with pytest.raises(ValueError, match="encoder_units is of no effect without kind='dense'"):
        tfzoo.build("iaf_vae", "ladder", encoder_units=(8,))


def test_pictures_that_the_decoder_cannot_give():
    model = tfzoo.build("iaf_vae", "tiny")
    model.compile("adam")
    with pytest.raises(ValueError, match="a Bernoulli decoder is of pixels that are 0 or 1"):
        model.fit(255 * binary(4, 8, 8, 1), verbose=0)


@KINDS
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_comes_near(options, policy):
    """Of both kinds, as the matrix has the dense one alone: in training, and what pictures come back as."""
    x, back, before = binary(16, 8, 8, 1), [], keras.config.dtype_policy()
    for name in ("float32", policy):
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy(name)
        try:
            model = tfzoo.build("iaf_vae", **options)
            model.compile("sgd")
            back.append(model.reconstruct(x).astype("float32"))
            assert np.isfinite(model.fit(x, verbose=0).history["loss"]).all()
        finally:
            keras.config.set_dtype_policy(before)
    np.testing.assert_allclose(back[1], back[0], atol=0.05)
