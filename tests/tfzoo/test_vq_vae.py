"""The vector-quantised autoencoder: counts, its loss term by term, what moves the codebook, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bridge
import tfzoo
from tfzoo import vq_vae
from tfzoo.quantisation.codebook import vectors

RNG = np.random.default_rng


def greys(count, *shape, seed=0):
    return RNG(seed).random((count, *shape)).astype("float32")


def spread(model, check):
    """Random weights, and a codebook as far apart as what it quantises."""
    for name in ("encoder", "decoder", "prior"):
        check.randomize(getattr(model, name))
    z = np.asarray(model.encoder(greys(64, 8, 8, 1, seed=5))).reshape(-1, 4)
    vectors(model.quantiser).assign(z[RNG(1).choice(len(z), model.codes, replace=False)])
    return model


def test_counts_worked_out_by_hand(check):
    def conv(k, a, b, bias=True):
        return k * k * a * b + b * bias

    residual = 2 * (conv(3, 128, 32, False) + conv(1, 32, 128, False))
    encoder = conv(4, 3, 64) + conv(4, 64, 128) + conv(3, 128, 128) + residual + conv(1, 128, 64)
    decoder = conv(3, 64, 128) + residual + conv(4, 128, 64) + conv(4, 64, 3)
    assert encoder + decoder + 512 * 64 == 694_851
    model = tfzoo.build("vq_vae", "paper")
    assert check.trainable(model.encoder) == encoder and check.trainable(model.decoder) == decoder
    assert check.trainable(model.quantiser) == 512 * 64
    layer = 6 * 64 * 128 + 128 + 2 * 64 * 128 + 128 + 128 * 128 + 128 + 64 * 64 + 64
    prior = 512 * 64 + 6 * layer + conv(1, 64, 64) + conv(1, 64, 512)
    assert check.trainable(model.prior) == prior
    assert vq_vae.PARAMETERS["paper"] == 694_851 + prior
    assert not tfzoo.build("vq_vae", "tiny").quantiser.trainable_variables  # it follows; no optimizer changes it


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_the_loss_and_its_gradients(check, codebook):
    model, x = spread(tfzoo.build("vq_vae", "tiny", codebook=codebook, commitment=0.3), check), greys(5, 8, 8, 1)
    model.compile("sgd")
    book = np.asarray(vectors(model.quantiser))
    with tf.GradientTape(persistent=True) as tape:
        found = model(x, training=True)
        tape.watch(found["z"])
        loss = model.compute_loss(x, y_pred=found)
        model_free = tf.reduce_mean(tf.square(x - found["picture"])) / 0.14
    z, codes = np.asarray(found["z"]), np.asarray(found["codes"])
    apart = np.square(z - book[codes]).mean()
    picture = np.square(x - np.asarray(model.decoder(book[codes]))).mean()
    nats = np.asarray(found["nats"]).mean()
    wanted = picture / 0.14 + (0.3 + (codebook == "loss")) * apart + nats
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    judged = model.compute_loss(x, y_pred=found, training=False)
    assert float(judged) == pytest.approx(wanted - nats, rel=1e-5)
    # Straight through: what reaches the encoder is the decoder's own gradient by its input.
    given = tf.constant(book[codes])
    with tf.GradientTape() as plain:
        plain.watch(given)
        alone = tf.reduce_mean(tf.square(x - model.decoder(given))) / 0.14
    with tf.GradientTape() as first:
        z = model.encoder(x)
        reached = tf.reduce_sum(z * tf.stop_gradient(plain.gradient(alone, given)))
    kernels = [v.value for v in model.encoder.trainable_variables]
    for a, b in zip(tape.gradient(model_free, kernels), first.gradient(reached, kernels), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    moved = np.abs(np.asarray(vectors(model.quantiser)) - book).max()
    assert moved > 1e-3 if codebook == "ema" else moved == 0
    prior = [v.value for v in model.prior.trainable_variables]
    assert all(g is not None for g in tape.gradient(loss, prior))
    assert all(g is None for g in tape.gradient(model_free, prior))


def test_judging_moves_nothing(check):
    model = spread(tfzoo.build("vq_vae", "tiny"), check)
    model.compile("sgd")
    before = [v.numpy() for v in (*model.averages.weights, *model.weights) if "seed" not in v.path]
    found = model.evaluate(greys(9, 8, 8, 1), batch_size=4, verbose=0, return_dict=True)
    for a, b in zip(
        before, (v for v in (*model.averages.weights, *model.weights) if "seed" not in v.path), strict=True
    ):
        if "metric" not in b.path and a.shape == b.shape and "counts" not in b.path:
            np.testing.assert_array_equal(a, b.numpy())
    codes = model.encode(greys(9, 8, 8, 1))
    share = np.bincount(codes.ravel(), minlength=8) / codes.size
    wanted = np.exp(-sum(p * np.log(p) for p in share if p))
    assert found["perplexity"] == pytest.approx(wanted, rel=1e-5)
    parts = [np.bincount(c.ravel(), minlength=8) / c.size for c in (codes[:4], codes[4:8], codes[8:])]
    each = [np.exp(-sum(p * np.log(p) for p in part if p)) for part in parts]
    assert found["batch_perplexity"] == pytest.approx(np.mean(each), rel=1e-5)
    assert {"squared_error", "commitment", "prior_nats"} <= found.keys()


def test_xla_computes_the_same(check):
    model, x = spread(tfzoo.build("vq_vae", "tiny", codebook="loss"), check), greys(5, 8, 8, 1)
    plain, fused = (tf.function(lambda x: model(x), jit_compile=j)(x) for j in (False, True))
    np.testing.assert_array_equal(plain["codes"], fused["codes"])
    for name in ("picture", "nats", "z"):
        np.testing.assert_allclose(fused[name], plain[name], rtol=1e-4, atol=1e-5)


def test_what_it_makes_of_pictures(check):
    model, x = spread(tfzoo.build("vq_vae", "tiny"), check), greys(300, 8, 8, 1)
    codes = model.encode(x)
    assert codes.shape == (300, 4, 4) and codes.dtype == np.int32 and len(np.unique(codes)) > 4
    back = model.reconstruct(x)
    np.testing.assert_allclose(back, model.decoder(model.quantiser(model.encoder(x))["quantised"]), atol=1e-5)
    check.depends_on_the_image(back)
    np.testing.assert_array_equal(model.decode(codes), back)
    np.testing.assert_allclose(model.sample(4, seed=3), model.sample(6, seed=3)[:4], atol=1e-6)
    assert np.abs(model.sample(4, seed=3) - model.sample(4, seed=4)).max() > 1e-3
    with pytest.raises(ValueError, match="codes must be from 0 to 7. Received: 0 to 8"):
        model.decode(np.array([[[0, 8]]]))


def test_the_networks_go_to_torch_and_back(check):
    model = spread(tfzoo.build("vq_vae", "tiny"), check)
    for network in (model.encoder, model.quantiser, model.decoder, model.prior):
        assert bridge.verify(network, bridge.to_torch(network)).passed


@pytest.mark.parametrize(
    "options, text",
    [
        ({"codes": 0}, "codes must be an integer from 1. Received: codes=0"),
        ({"codes": 1}, "codes must be 2 or more"),
        ({"dimensions": 2.5}, "dimensions must be an integer from 1"),
        ({"image_shape": (9, 8, 1)}, "the encoder halves a picture 1 times, so its height and width"),
        ({"commitment": 0}, "commitment must be a number above 0"),
        ({"variance": -1}, "variance must be a number above 0"),
        ({"codebook": "mean"}, "codebook must be one of 'ema', 'loss'"),
        ({"decay": 1}, r"decay must be a number in \[0, 1\)"),
        ({"dead": 2}, r"dead must be a number in \[0, 1\)"),
        ({"codebook": "loss", "decay": 0.9}, "decay is of no effect without codebook='ema'"),
        ({"prior_depth": 0}, "prior_depth must be an integer from 1"),
    ],
)
def test_what_cannot_be_built(options, text):
    with pytest.raises(ValueError, match=text):
        tfzoo.build("vq_vae", "tiny", **options)
    with pytest.raises(ValueError, match=text) as raised:  # with all else that is wrong
        tfzoo.build("vq_vae", "tiny", **{"prior_dropout": -1, **options})
    assert "prior_dropout must be" in str(raised.value)


@pytest.mark.parametrize(
    "pictures, text",
    [
        (np.full((4, 8, 8, 1), np.nan, "float32"), "256 value.s. of the pictures are NaN or infinite"),
        (greys(4, 8, 9, 1), r"vq_vae takes pictures of the shape \(8, 8, 1\). Received: \(8, 9, 1\)"),
        (greys(3, 8, 8, 1), "larger than the data: 50 codes, and the pictures have 48 vectors .* at most 48 codes"),
    ],
)
def test_pictures_that_it_cannot_learn_from(pictures, text):
    model = tfzoo.build("vq_vae", "tiny", codes=50)
    model.compile("adam")
    before = model.get_weights()
    for given in (pictures, tf.data.Dataset.from_tensor_slices((pictures,)).batch(2)):
        with pytest.raises(ValueError, match=text.replace("256", "(256|128)")):
            model.fit(given, verbose=0)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_as_many_vectors_as_codes_are_enough():
    keras.utils.set_random_seed(0)
    model = tfzoo.build("vq_vae", "tiny", codes=48)
    model.compile("adam")
    assert np.isfinite(model.fit(greys(3, 8, 8, 1), verbose=0).history["loss"]).all()
