"""The importance-weighted bound: between the ELBO and the log-likelihood, which it comes to."""

import numpy as np

import tfzoo
from tfzoo.variational.bounds import active, bounds


def test_more_samples_come_closer_to_what_is_exact(check):
    """Of a decoder that does not look at its latent, the log-likelihood is known whatever the posterior is."""
    model = tfzoo.build("vae", "tiny", latents=1)
    check.randomize(model.encoder, 0.5)
    check.randomize(model.decoder, 0.5)
    for name in ("mean", "log_variance"):
        head = model.encoder.get_layer(name)
        head.set_weights([0.15 * w for w in head.get_weights()])
    first = model.decoder.get_layer("smallest")
    first.kernel.assign(np.zeros(first.kernel.shape))
    x = np.random.default_rng(0).integers(0, 2, (6, 8, 8, 1)).astype("float32")
    exact = model.likelihood.log_prob(model.decoder(np.zeros((6, 1), "float32")), x).numpy()
    few, many = bounds(model, x, 1), bounds(model, x, 400)
    np.testing.assert_allclose(few.elbo, few.importance_weighted, rtol=1e-12)
    gap = exact - many.elbo
    assert gap.max() > 0.02 and (many.importance_weighted > many.elbo).all()
    np.testing.assert_allclose(many.importance_weighted, exact, atol=0.1)
    divergence = np.sum(model.terms(x, lambda shape: np.zeros((6, *shape), "float32"))[1], -1)
    np.testing.assert_allclose(gap, divergence, atol=5 / 400**0.5)
    again = bounds(model, x, 400)
    np.testing.assert_array_equal(many.elbo, again.elbo)
    assert (bounds(model, x, 400, seed=1).elbo != many.elbo).all()


def test_examples_have_draws_of_their_own(check):
    model = tfzoo.build("vae", "tiny")
    check.randomize(model.encoder)
    check.randomize(model.decoder)
    x = np.zeros((600, 8, 8, 1), "float32")
    found = bounds(model, x, 1).elbo
    assert len(np.unique(found.round(5))) > 590


def test_latents_in_use():
    model = tfzoo.build("vae", "linear", image_shape=(1, 4, 1), latents=3, sigma=1.0)
    kernel = np.zeros((4, 3))
    kernel[0, 0], kernel[1, 2] = 1, 0.05
    model.encoder.get_layer("mean").set_weights([kernel, np.array([5, 6, 7])])
    x = np.random.default_rng(0).normal(size=(500, 1, 4, 1)).astype("float32")
    assert active(model, x) == 1  # a variance of .0025 is none
    assert active(model, 3 * x) == 2
