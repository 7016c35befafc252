"""Inference for each picture against what is exact: linear models, and one latent by quadrature."""

import numpy as np
import pytest
from scipy import optimize, special, stats

import tfzoo
from tfzoo.variational import per_example as module
from tfzoo.variational.per_example import per_example

RNG = np.random.default_rng


def linear(shift=0.0):
    """A linear model, pictures, and what is exact of each: log p(x), mean and variance of the posterior.

    Its encoder is exact, but for random weights of the size `shift`.
    """
    w, sigma = np.linalg.qr(RNG(0).normal(size=(6, 2)))[0] * (1.5, 0.7), 0.6
    x = RNG(1).normal(size=(20, 6)) * np.linspace(0.5, 2, 6)
    inverse = np.linalg.inv(w.T @ w + sigma**2 * np.eye(2))  # diagonal, as the columns of w are orthogonal
    model = tfzoo.build("vae", "linear", image_shape=(2, 3, 1), latents=2, sigma=sigma)
    model.decoder.get_layer("pixels").set_weights([w.T, np.zeros(6)])
    variance = sigma**2 * np.diag(inverse)
    exact = {"mean": [w @ inverse, np.zeros(2)], "log_variance": [np.zeros((6, 2)), np.log(variance)]}
    for i, (name, weights) in enumerate(exact.items()):
        disturbed = [value + shift * RNG(i).normal(size=value.shape) for value in weights]
        model.encoder.get_layer(name).set_weights(disturbed)
    nats = stats.multivariate_normal(cov=w @ w.T + sigma**2 * np.eye(6)).logpdf(x)
    return model, x.reshape(-1, 2, 3, 1).astype("float32"), nats, x @ w @ inverse, variance


def test_the_gap_of_a_linear_model_is_the_divergence_from_the_exact_posterior(monkeypatch):
    """And fitted to each picture the posterior is the exact one, to 1e-4 of its deviation."""
    monkeypatch.setattr(module, "AT_ONCE", 8 * module.DRAWS)  # 20 pictures are three fits
    model, x, exact, mean, variance = linear(shift=0.2)
    found, samples = per_example(model, x, samples=2000), 2000
    np.testing.assert_allclose(found.mean, mean, atol=1e-4 * variance.min() ** 0.5)
    np.testing.assert_allclose(found.log_variance, np.tile(np.log(variance), (20, 1)), atol=1e-4)
    np.testing.assert_allclose(found.per_example.elbo, exact, atol=2e-5)
    np.testing.assert_allclose(found.per_example.importance_weighted, exact, atol=2e-5)
    given = {name: np.asarray(value, "float64") for name, value in model.encoder(x).items()}
    ratio, apart = np.exp(given["log_variance"]) / variance, (given["mean"] - mean) ** 2 / variance
    divergence = (ratio + apart - 1 - np.log(ratio)).sum(1) / 2
    assert divergence.min() > 0.02 and divergence.std() > 0.1
    noise = ((ratio - 1) ** 2 / 2 + apart * ratio).sum(1) ** 0.5 / samples**0.5  # of the mean of log p(x, z) / q(z|x)
    gap = found.per_example.elbo - found.amortised.elbo
    assert (np.abs(gap - divergence) / noise).max() < 4
    np.testing.assert_allclose(gap.mean(), divergence.mean(), atol=3 * np.linalg.norm(noise) / 20)


def test_an_exact_encoder_has_no_gap():
    model, x, exact, _, _ = linear()
    found = per_example(model, x, samples=5, steps=50)
    np.testing.assert_allclose(found.amortised.elbo, exact, atol=2e-5)
    np.testing.assert_allclose(found.per_example.elbo - found.amortised.elbo, 0, atol=2e-5)


def binary(count, *shape):
    return RNG(3).integers(0, 2, (count, *shape)).astype("float32")


def test_the_best_normal_posterior_by_quadrature(check):
    """Of a posterior that is not normal; its latent is one, so all integrals can be had."""
    model, x = tfzoo.build("vae", "tiny", latents=1, activation="tanh"), binary(3, 8, 8, 1)
    check.randomize(model.encoder, 0.3)
    check.randomize(model.decoder, 0.3)
    given = {name: np.asarray(value, "float64")[:, 0] for name, value in model.encoder(x).items()}
    places, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()

    def log_joint(z, picture):
        z = np.asarray(z, "float32")[:, None]
        pictures = np.repeat(picture[None], len(z), 0)
        return np.asarray(model.likelihood.log_prob(model.decoder(z), pictures)) + stats.norm.logpdf(z[:, 0])

    def elbo(mean, log_variance, picture):
        entropy = (1 + np.log(2 * np.pi) + log_variance) / 2
        return weights @ log_joint(mean + np.exp(log_variance / 2) * places, picture) + entropy

    found = per_example(model, x, samples=4000)
    grid = np.linspace(-8, 8, 4001)
    for i, picture in enumerate(x):
        start = given["mean"][i], given["log_variance"][i]
        best = optimize.minimize(lambda q, p=picture: -elbo(*q, p), start, method="Nelder-Mead")
        nats = special.logsumexp(log_joint(grid, picture)) + np.log(grid[1] - grid[0])
        assert -best.fun - elbo(*start, picture) > 1 and nats + best.fun > 0.01  # neither gap is nothing
        assert elbo(found.mean[i, 0], found.log_variance[i, 0], picture) == pytest.approx(-best.fun, abs=3e-3)
        assert found.per_example.elbo[i] == pytest.approx(-best.fun, abs=0.01)
        assert found.amortised.elbo[i] == pytest.approx(elbo(*start, picture), abs=0.3)
        assert found.per_example.elbo[i] < found.per_example.importance_weighted[i] == pytest.approx(nats, abs=0.1)


def test_the_model_is_as_it_is_judged_and_stays_as_it_is(check):
    """Without dropout, and the same seed gives the same."""
    model, x = tfzoo.build("vae", "digits", dropout=0.9), binary(3, 8, 8, 1)
    before = model.get_weights()
    one, same, other = (per_example(model, x, samples=2, steps=3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.mean, same.mean)
    np.testing.assert_array_equal(one.per_example.elbo, same.per_example.elbo)
    assert (one.mean != other.mean).any() and (one.amortised.elbo != other.amortised.elbo).all()
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_pictures_that_the_decoder_cannot_give():
    model = tfzoo.build("vae", "tiny")
    with pytest.raises(ValueError, match="a Bernoulli decoder is of pixels that are 0 or 1"):
        per_example(model, 255 * binary(2, 8, 8, 1))
