"""The vector-quantised autoencoder: counts, its loss term by term, what moves the codebook, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bridge
import tfzoo
from tfzoo import export, vq_vae
from tfzoo.export import session
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
    options = {"codebook": codebook, "commitment": 0.3} | ({"dead": 0} if codebook == "loss" else {})
    model, x = spread(tfzoo.build("vq_vae", "tiny", **options), check), greys(5, 8, 8, 1)
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


def test_dead_codes_of_a_learned_codebook_begin_again(check):
    """Codes that nothing uses are, after one step, each beside a vector of the batch; those in use where they were."""
    keras.utils.set_random_seed(0)
    model, x = spread(tfzoo.build("vq_vae", "tiny", codebook="loss"), check), greys(6, 8, 8, 1)
    book = vectors(model.quantiser).numpy()
    book[2], book[5] = 100.0, -100.0
    vectors(model.quantiser).assign(book)
    model.compile(keras.optimizers.SGD(0.0))
    z = np.asarray(model.encoder(x)).reshape(-1, 4)
    used = np.unique(model.encode(x))
    model.train_on_batch(x)
    moved = vectors(model.quantiser).numpy()
    again = np.setdiff1d(range(8), used)
    assert {2, 5} <= set(again)
    np.testing.assert_array_equal(moved[used], book[used])
    near = np.abs(moved[again][:, None] - z).max(-1).min(1)
    assert near.max() < 0.1 * np.abs(z).max()
    counts = model.averages.average_counts().numpy()
    np.testing.assert_allclose(counts[used], np.bincount(nearest(z, book), minlength=8)[used], rtol=1e-5)
    model.evaluate(x, verbose=0)
    np.testing.assert_array_equal(vectors(model.quantiser).numpy(), moved)
    never = tfzoo.build("vq_vae", "tiny", codebook="loss", dead=0)
    assert never.averages is None


def nearest(z, book):
    """Give the nearest of a codebook."""
    return np.square(z[:, None] - book).sum(-1).argmin(1)


def test_a_served_model_samples_as_it_does(check, tmp_path):
    """In a session of TensorFlow 1, as a server has it; each row of a request by its own seed."""
    model = spread(tfzoo.build("vq_vae", "tiny"), check)
    made = export.save(model, tmp_path / "vq", signatures=vq_vae.signatures, precision="float32")
    with session.load(made.path) as (_, run):
        found = run("sample", {"seed": np.array([7, 3, 7, 2**40]), "number": np.array([2, 0, 0, 1])})["picture"]
    seven = model.sample(3, seed=7)
    wanted = [seven[2], model.sample(1, seed=3)[0], seven[0], model.sample(2, seed=2**40)[1]]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert min(np.abs(a - b).max() for i, a in enumerate(found) for b in found[:i]) > 1e-3


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
        ({"codebook": "loss", "dead": 0, "decay": 0.9}, "decay is of no effect without codebook='ema' or dead"),
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


@pytest.mark.parametrize("given", ["counted", "generator", "endless"])
def test_a_codebook_larger_than_the_data_of_other_kinds(given):
    """A data set that does not know its size is counted; an endless one goes on, as its source alone knows."""
    data = tf.data.Dataset.from_tensor_slices((greys(3, 8, 8, 1),)).batch(2)
    if given == "generator":
        pictures = greys(3, 8, 8, 1)
        spec = (tf.TensorSpec((None, 8, 8, 1)),)
        data = tf.data.Dataset.from_generator(lambda: ((pictures[i : i + 1],) for i in range(3)), output_signature=spec)
        assert data.cardinality() == tf.data.UNKNOWN_CARDINALITY
    model = tfzoo.build("vq_vae", "tiny", codes=50)
    model.compile("adam")
    if given == "endless":
        assert np.isfinite(model.fit(data.repeat(), steps_per_epoch=2, verbose=0).history["loss"]).all()
        return
    with pytest.raises(ValueError, match="50 codes, and the pictures have 48 vectors"):
        model.fit(data, verbose=0)


def test_as_many_vectors_as_codes_are_enough():
    keras.utils.set_random_seed(0)
    model = tfzoo.build("vq_vae", "tiny", codes=48)
    model.compile("adam")
    assert np.isfinite(model.fit(greys(3, 8, 8, 1), verbose=0).history["loss"]).all()


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64"])
def test_pictures_of_any_kind_of_numbers_are_learned_from(dtype):
    pictures = np.random.default_rng(0).integers(0, 2, (16, 8, 8, 1))
    found = []
    for kind in (dtype, "float32"):
        keras.utils.set_random_seed(0)
        model = tfzoo.build("vq_vae", "tiny")
        model.compile("sgd")
        found.append(model.fit(pictures.astype(kind), shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*found, rtol=1e-6)
