"""The importance-weighted bound: between the ELBO and the log-likelihood, which it comes to."""

import numpy as np
import pytest
import tensorflow as tf

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


def test_in_several_calls_every_draw_is_another(check, monkeypatch):
    """Pictures and samples that do not fit at once: 5 pictures, 9 samples, 7 rows at a time."""
    monkeypatch.setattr("tfzoo.variational.bounds.AT_ONCE", 7)
    model = tfzoo.build("vae", "tiny")
    check.randomize(model.encoder)
    check.randomize(model.decoder)
    seen, terms = [], type(model).terms

    def recorded(self, pictures, draw, **options):
        found = terms(self, pictures, draw, **options)
        tf.py_function(lambda a, b: seen.append(a.numpy() - b.numpy().sum(-1)), found, [])
        return found

    monkeypatch.setattr(type(model), "terms", recorded)
    x = np.zeros((16, 8, 8, 1), "float32")
    found = bounds(model, x, 9)
    drawn = np.concatenate(seen)
    assert len(np.unique(drawn.round(5))) > 0.95 * len(drawn) >= 0.95 * 16 * 9
    assert found.elbo.shape == found.importance_weighted.shape == (16,)
    monkeypatch.setattr("tfzoo.variational.bounds.AT_ONCE", 4096)
    many = bounds(model, x, 400)
    np.testing.assert_allclose(found.elbo.mean(), many.elbo.mean(), atol=5 * drawn.std() / 12)


def test_a_mean_is_of_as_many_samples_as_were_asked_for(monkeypatch):
    """Of weights 0, 1, 2, ... by the rows in which they come."""

    class Counting:
        count = 0

        def terms(self, pictures, draw, analytic):
            return tf.reshape(pictures, (-1,)) + draw(()) * 0 + self.rows(pictures), tf.zeros(
                (tf.shape(pictures)[0], 1)
            )

        def rows(self, pictures):
            def number(n):
                self.count += int(n)
                return np.arange(self.count - int(n), self.count, dtype="float32")

            found = tf.py_function(number, [tf.shape(pictures)[0]], tf.float32)
            return tf.ensure_shape(found, [None])

    monkeypatch.setattr("tfzoo.variational.bounds.AT_ONCE", 8)
    found = bounds(Counting(), np.zeros((2, 1, 1, 1), "float32"), 5)  # 4 samples at once, so of 8 three are left out
    np.testing.assert_allclose(found.elbo, [np.mean([0, 2, 4, 6, 8]), np.mean([1, 3, 5, 7, 9])])


@pytest.mark.parametrize("count, samples", [(0, 5), (3, 0)])
def test_bounds_of_nothing_are_refused(count, samples):
    with pytest.raises(ValueError, match="bounds are of one sample or more of one picture or more"):
        bounds(tfzoo.build("vae", "tiny"), np.zeros((count, 8, 8, 1)), samples)


def test_latents_in_use():
    model = tfzoo.build("vae", "linear", image_shape=(1, 4, 1), latents=3, sigma=1.0)
    kernel = np.zeros((4, 3))
    kernel[0, 0], kernel[1, 2] = 1, 0.05
    model.encoder.get_layer("mean").set_weights([kernel, np.array([5, 6, 7])])
    x = np.random.default_rng(0).normal(size=(500, 1, 4, 1)).astype("float32")
    assert active(model, x) == 1  # a variance of .0025 is none
    assert active(model, 3 * x) == 2
    assert active(model, 2.2 * x) == 2  # 1.21 times the limit of .01
    assert active(model, 1.9 * x) == 1
