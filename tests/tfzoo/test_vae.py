"""The variational autoencoder against closed forms: counts, densities, probabilistic PCA and beta-VAE's linear law."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from scipy import stats

import bridge
import tfzoo
from tfzoo import vae
from tfzoo.variational.bounds import bounds

RNG = np.random.default_rng


def binary(count, *shape, seed=0):
    return RNG(seed).integers(0, 2, (count, *shape)).astype("float32")


def randomised(model, check):
    check.randomize(model.encoder, 0.1)
    check.randomize(model.decoder, 0.1)
    return model


def no_noise(shape):
    return np.zeros((1, *shape))


def test_counts_worked_out_by_hand(check):
    dense = lambda a, b: a * b + b  # noqa: E731
    conv = lambda k, a, b: k * k * a * b + b  # noqa: E731
    wanted = {
        "cvae_mnist": (
            conv(3, 1, 32) + conv(3, 32, 64) + 2 * dense(6 * 6 * 64, 2),
            dense(2, 7 * 7 * 32) + conv(3, 32, 64) + conv(3, 64, 32) + conv(3, 32, 1),
        ),
        "beta_64": (
            conv(4, 1, 32)
            + conv(4, 32, 32)
            + conv(2, 32, 64)
            + conv(2, 64, 64)
            + dense(1024, 256)
            + 2 * dense(256, 10),
            dense(10, 256) + dense(256, 1024) + conv(4, 64, 64) + conv(4, 64, 32) + conv(4, 32, 32) + conv(4, 32, 1),
        ),
        "digits": (dense(64, 256) + 2 * dense(256, 16), dense(16, 256) + dense(256, 64)),
        "linear": (2 * dense(64, 8), dense(8, 64) + 1),
    }
    assert wanted["cvae_mnist"] == (28_036, 41_953) and wanted["beta_64"] == (309_204, 381_313)
    for size, counts in wanted.items():
        model = tfzoo.build("vae", size)
        assert (check.trainable(model.encoder), check.trainable(model.decoder)) == counts, size
        assert sum(counts) == vae.PARAMETERS[size]


def test_the_divergence_is_the_closed_form_and_what_samples_give(check):
    with check.float64():
        model = randomised(tfzoo.build("vae", "tiny", activation="tanh"), check)
        x = binary(3, 8, 8, 1).astype("float64")
        found = model.encoder(x)
        mean, variance = np.asarray(found["mean"]), np.exp(found["log_variance"])
        wanted = (mean**2 + variance - 1 - np.log(variance)) / 2
        _, divergence = model.terms(x, no_noise)
        np.testing.assert_allclose(divergence, wanted, rtol=1e-12)
        assert wanted.std() > 0.01
        noise = RNG(0).normal(size=(4000, 3))
        tiled = np.repeat(x[:1], len(noise), 0)
        _, sampled = model.terms(tiled, lambda shape: noise, analytic=False)
        np.testing.assert_allclose(
            np.mean(sampled, 0), wanted[0], atol=5 * np.std(sampled, 0).max() / len(noise) ** 0.5
        )
        posterior, prior = model.posterior(x), model.prior()
        assert posterior.event_shape == prior.event_shape == [3]
        z = posterior.mean() + 0.3
        exact = stats.norm.logpdf(z, mean, variance**0.5).sum(-1)
        np.testing.assert_allclose(posterior.log_prob(z), exact, rtol=1e-12)
        np.testing.assert_allclose(prior.log_prob(z), stats.norm.logpdf(z).sum(-1), rtol=1e-12)


def principal(pictures, k):
    """Probabilistic PCA in closed form (Tipping & Bishop, 1999): mean, W, sigma^2 and each row's log-likelihood."""
    x = pictures.reshape(len(pictures), -1)
    mean, (values, vectors) = x.mean(0), np.linalg.eigh(np.cov(x.T, bias=True))
    variance = values[:-k].mean()
    weights = vectors[:, -k:] * np.sqrt(values[-k:] - variance)
    exact = stats.multivariate_normal(mean, weights @ weights.T + variance * np.eye(len(mean))).logpdf(x)
    return mean, weights, variance, exact


def at_the_optimum(x, k):
    """A linear VAE with the weights of probabilistic PCA, whose posterior is exact."""
    mean, w, variance, exact = principal(x, k)
    model = tfzoo.build("vae", "linear", image_shape=x.shape[1:], latents=k, beta=1.0)
    inverse = np.linalg.inv(w.T @ w + variance * np.eye(k))  # diagonal, as the columns of w are orthogonal
    model.encoder.get_layer("mean").set_weights([w @ inverse.T, -inverse @ w.T @ mean])
    logs = np.log(variance * np.diag(inverse))
    model.encoder.get_layer("log_variance").set_weights([np.zeros((len(mean), k)), logs])
    model.decoder.get_layer("pixels").set_weights([w.T, mean])
    model.decoder.get_layer("log_scale").set_weights([np.full((1, 1, 1), np.log(variance) / 2)])
    return model, exact


def test_a_linear_model_is_probabilistic_pca(check):
    """There the posterior is exact, so one sample of any kind gives the log-likelihood itself."""
    x = RNG(0).normal(size=(50, 2, 3, 1)) * np.linspace(0.5, 2, 6).reshape(2, 3, 1) + 0.3
    with check.float64():
        model, exact = at_the_optimum(x, 2)
        noise = RNG(1).normal(size=(50, 2))
        log_likelihood, divergence = model.terms(x, lambda shape: noise, analytic=False)
        np.testing.assert_allclose(np.asarray(log_likelihood) - np.sum(divergence, -1), exact, rtol=1e-9)
    model, exact = at_the_optimum(x, 2)
    found = bounds(model, x.astype("float32"), 5)
    np.testing.assert_allclose(found.importance_weighted, exact, atol=2e-5)
    np.testing.assert_allclose(found.elbo, exact, atol=2e-5)


LAMBDA = np.array([4, 2, 1, 0.5, 0.2, 0.1])


@pytest.mark.parametrize("beta, nats", [(1.0, (1.386, 1.040, 0.693, 0.347, 0, 0)), (4.0, (0.693, 0.347, 0, 0, 0, 0))])
def test_the_linear_law_of_beta_vae(check, beta, nats):
    """Unit i is active iff lambda_i > beta sigma^2, with ln(lambda_i / (beta sigma^2)) / 2 nats; there it stays.

    From nothing, the loss falls along the decoder's weight of a unit iff it is to be active, by how much is known.
    """
    numbers = RNG(0).normal(size=(512, 12))
    numbers -= numbers.mean(0)
    numbers = numbers @ np.linalg.inv(np.linalg.cholesky(np.cov(numbers.T, bias=True))).T  # uncorrelated, exactly
    x, noise = (numbers[:, :6] * LAMBDA**0.5).reshape(-1, 1, 6, 1), numbers[:, 6:]
    floor = beta * 0.25  # what a unit's variance must be above
    with check.float64():
        model = tfzoo.build("vae", "linear", image_shape=(1, 6, 1), latents=6, sigma=0.5, beta=beta)
        mean, log_variance, pixels = (
            network.get_layer(name)
            for network, name in ((model.encoder, "mean"), (model.encoder, "log_variance"), (model.decoder, "pixels"))
        )

        def at(w):
            """Give the loss, its slopes and the divergence at a decoder's weights, of the best encoder for them."""
            pixels.set_weights([np.diag(w), np.zeros(6)])
            mean.set_weights([np.diag(w / (w**2 + floor)), np.zeros(6)])
            log_variance.set_weights([np.zeros((6, 6)), np.log(floor / (w**2 + floor))])
            return here()

        def here():
            with tf.GradientTape() as tape:
                log_likelihood, divergence = model.terms(x, lambda shape: noise)
                loss = tf.reduce_mean(model.objective.loss(log_likelihood, divergence))
            where = [layer.trainable_variables[i].value for layer, i in ((mean, 0), (log_variance, 1), (pixels, 0))]
            return float(loss), tape.gradient(loss, where), np.mean(divergence, 0)

        best, slopes, divergence = at(np.maximum(LAMBDA - floor, 0) ** 0.5)
        np.testing.assert_allclose(divergence, nats, atol=1e-3)
        for slope in slopes:
            np.testing.assert_allclose(slope, 0, atol=1e-9)
        log_variance.bias.assign(log_variance.bias + 0.5)
        assert np.abs(here()[1][1]).max() > 0.1  # else the comparison could not fail

        nothing = at(np.zeros(6))[0]
        for i, variance in enumerate(LAMBDA):
            found, slopes, _ = at(0.1 * np.eye(6)[i])
            change = beta / 2 * (np.log1p(0.01 / floor) + variance / (0.01 + floor) - variance / floor)
            np.testing.assert_allclose(found - nothing, change, atol=1e-9)
            assert (found < nothing) == (slopes[2][i, i] < 0) == (nats[i] > 0)
        assert best < nothing


def test_xla_computes_the_same(check):
    model, x = randomised(tfzoo.build("vae", "tiny"), check), binary(5, 8, 8, 1)
    noise = tf.constant(RNG(0).normal(size=(5, 3)).astype("float32"))
    plain, fused = (tf.function(lambda x: model.terms(x, lambda shape: noise), jit_compile=j)(x) for j in (False, True))
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_torch_distributions_say_the_same(check, likelihood):
    model = randomised(tfzoo.build("vae", "tiny", likelihood=likelihood), check)
    x, noise = binary(4, 8, 8, 1), RNG(0).normal(size=(4, 3)).astype("float32")
    log_likelihood, divergence = model.terms(x, lambda shape: noise)
    encoder, decoder = bridge.to_torch(model.encoder), bridge.to_torch(model.decoder)
    assert bridge.verify(model.encoder, encoder).passed and bridge.verify(model.decoder, decoder).passed
    given = torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    with torch.no_grad():
        found = encoder(given)
        posterior = torch.distributions.Normal(found["mean"], torch.exp(found["log_variance"] / 2))
        nats = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
        np.testing.assert_allclose(divergence, nats, rtol=1e-5, atol=1e-6)
        made = decoder(posterior.mean + posterior.stddev * torch.from_numpy(noise))
        if likelihood == "bernoulli":
            over = torch.distributions.Bernoulli(logits=made["logits"])
        else:
            mean, log_scale = made["mean_and_log_scale"].chunk(2, 1)
            over = torch.distributions.Normal(mean, log_scale.exp())
        np.testing.assert_allclose(log_likelihood, over.log_prob(given).sum((1, 2, 3)), rtol=1e-5)


def test_what_it_makes_of_pictures(check):
    model, x = randomised(tfzoo.build("vae", "tiny"), check), binary(300, 8, 8, 1)
    latents = model.encode(x)
    np.testing.assert_allclose(latents, model.encoder(x)["mean"], atol=1e-6)
    back = model.reconstruct(x)
    np.testing.assert_allclose(back, keras.ops.sigmoid(model.decoder(latents)["logits"]), atol=1e-6)
    check.depends_on_the_image(back)
    way = model.interpolate(x[0], x[1], 3)
    np.testing.assert_allclose(way, model.decode(np.array([latents[0], latents[:2].mean(0), latents[1]])), atol=1e-6)
    rows = model.traverse(x[0], [-2, 0, 2])
    assert rows.shape == (3, 3, 8, 8, 1)
    changed = latents[0].copy()
    changed[1] = 2
    np.testing.assert_allclose(rows[1, 2], model.decode(changed[None])[0], atol=1e-6)
    np.testing.assert_array_equal(model.sample(4, seed=3), model.sample(6, seed=3)[:4])
    assert np.abs(model.sample(4, seed=3) - model.sample(4, seed=4)).max() > 1e-3


def test_what_an_export_serves_is_what_the_model_makes(check):
    model, x = randomised(tfzoo.build("vae", "tiny"), check), binary(5, 8, 8, 1)
    served = vae.signatures({"encoder": model.encoder, "decoder": model.decoder})
    found = served["serving_default"].function(tf.constant(x))
    np.testing.assert_allclose(found["reconstruction"], model.reconstruct(x), atol=1e-6)
    np.testing.assert_allclose(found["mean"], model.encode(x), atol=1e-6)
    z = RNG(1).normal(size=(4, 3)).astype("float32")
    np.testing.assert_allclose(served["decode"].function(tf.constant(z))["picture"], model.decode(z), atol=1e-6)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"latents": 0}, "latents must be an integer from 1. Received: latents=0"),
        ({"likelihood": "poisson"}, "likelihood must be one of bernoulli, gaussian, discretised_logistic"),
        ({"sigma": 0}, "sigma must be a number above 0, or 'learned'"),
        ({"levels": 1}, "levels must be an integer from 2"),
        ({"beta": -1}, "beta must be a number from 0"),
        ({"warm_up": 1.5}, "warm_up must be a number of steps from 0"),
        ({"capacity": 5.0, "free_bits": 1.0}, "two ways to the same end"),
        ({"capacity_steps": 5}, "capacity_steps is of no effect without a capacity"),
        ({"divergence": "none"}, "divergence must be 'analytic' or 'monte_carlo'"),
        ({"encoder": ((8,),)}, "encoder must be pairs of integers from 1"),
        ({"decoder": (8,)}, "decoder must be None, or the channels of the smallest picture"),
        ({"image_shape": (9, 8, 1)}, "the decoder doubles a picture 1 times, so its height and width"),
        ({"encoder_units": (0,)}, "encoder_units must be one or more integers from 1"),
        ({"activation": "swishy"}, "activation must be one of Keras', such as 'relu'. Received: activation='swishy'"),
        ({"dropout": 1.0}, "dropout must be a number in \\[0, 1\\)"),
        ({"padding": "full"}, "padding must be one of 'valid', 'same'"),
    ],
)
def test_what_cannot_be_built(options, text):
    with pytest.raises(ValueError, match=text):
        tfzoo.build("vae", "tiny", **options)
    with pytest.raises(ValueError, match=text) as raised:  # with all else that is wrong
        tfzoo.build("vae", "tiny", **{"dropout": -1, **options})
    assert "dropout must be" in str(raised.value)


@pytest.mark.parametrize(
    "pictures, text",
    [
        (255 * binary(4, 8, 8, 1), "a Bernoulli decoder is of pixels that are 0 or 1: .* values from 0 to 255"),
        (np.full((4, 8, 8, 1), np.nan, "float32"), "256 value.s. of the pictures are NaN or infinite"),
        (binary(4, 8, 9, 1), r"vae takes pictures of the shape \(8, 8, 1\). Received: \(8, 9, 1\)"),
    ],
)
def test_pictures_that_the_decoder_cannot_give(pictures, text):
    model = tfzoo.build("vae", "tiny")
    model.compile("adam")
    before = model.get_weights()
    for given in (pictures, tf.data.Dataset.from_tensors((pictures,))):
        with pytest.raises(ValueError, match=text):
            model.fit(given, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
