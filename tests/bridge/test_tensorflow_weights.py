"""Checkpoints of TensorFlow's own into Keras models of other names: all of it, or nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import bridge
from bridge import tensorflow_weights, weights
from tests.bridge._command import run

layers = keras.layers


def network(prefix, units=5):
    """Layers inside others, and a model in the model; every name begins with `prefix`."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name=f"{prefix}a")], name=f"{prefix}inner")
    image = keras.Input((6, 6, 3))
    x = layers.BatchNormalization(name=f"{prefix}n")(layers.Conv2D(4, 3, name=f"{prefix}c")(image))
    x = layers.Reshape((16, 4))(x)
    x = layers.Bidirectional(layers.LSTM(2), name=f"{prefix}b")(x)
    x = layers.Dense(4, name=f"{prefix}e")(layers.Dense(units, name=f"{prefix}d")(x))
    return keras.Model(image, inner(x), name=f"{prefix}net")


@pytest.fixture(scope="module")
def saved(check, tmp_path_factory):
    """A compiled model and the prefixes of three checkpoints of it."""
    folder, model = tmp_path_factory.mktemp("tf"), check.randomise(network("x"))
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    made = {
        "model": tf.train.Checkpoint(model=model),
        "with more": tf.train.Checkpoint(net=model, optimizer=model.optimizer, step=tf.Variable(3)),
    }
    made["root"] = tf.train.Checkpoint(root=keras.models.clone_model(model))
    made["root"]._root.set_weights(model.get_weights())
    return model, {name: one.save(str(folder / name.replace(" ", "_") / "k")) for name, one in made.items()}


@pytest.mark.parametrize("kind", ["model", "with more", "root"])
def test_into_a_model_of_other_names(saved, kind):
    model, prefixes = saved
    other = network("z")
    plan = weights.plan(other, prefixes[kind])
    assert len(plan.rows()) == len(other.weights) and "cannot be run" in plan.notes[0]
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    assert np.abs(other(x) - model(x)).max() > 1e-3
    plan.fill()
    np.testing.assert_array_equal(other(x), model(x))


def test_what_does_not_fit_changes_nothing(saved, tmp_path):
    _, prefixes = saved
    other = network("z", units=6)
    before = other.get_weights()
    with pytest.raises(bridge.BridgeError, match="cannot be loaded into znet, by the order of its layers: as 'model'"):
        bridge.load_weights(other, prefixes["model"])
    index = tmp_path / "k.index"
    index.write_bytes(b"damaged")
    with pytest.raises(bridge.BridgeError, match="k cannot be loaded into znet"):
        bridge.load_weights(other, tmp_path / "k")
    broken = network("w", units=6)
    broken.get_layer("wd").bias.assign([0, 0, np.inf, 0, 0, 0])
    prefix = tf.train.Checkpoint(model=broken).save(str(tmp_path / "inf" / "k"))
    with pytest.raises(bridge.BridgeError, match="cannot be loaded into znet: 1 with NaN or infinite numbers: zd/bias"):
        bridge.load_weights(other, prefix)
    for a, b in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_layers_between(tmp_path):
    """A model of the same layers with weights, but that a Dropout more lies between them: the numbers are others."""
    models = []
    for more in ([], [layers.Dropout(0.5)]):
        x = y = keras.Input((6, 6, 3))
        for layer in (layers.Conv2D(4, 3, padding="same"), *more, layers.BatchNormalization(), layers.Conv2D(4, 1)):
            y = layer(y)
        models.append(keras.Model(x, y))
    one, other = models
    other.compile("adam", "mse")
    other.fit(np.ones((2, 6, 6, 3)), np.ones((2, 6, 6, 4)), verbose=0)
    prefix = tf.train.Checkpoint(net=other).save(str(tmp_path / "k"))
    plan = weights.plan(one, prefix)
    assert "net/_operations/4/_kernel" in [row.source for row in plan.rows()]
    plan.fill()
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    one.layers[-1].kernel.assign(one.layers[-1].kernel * 0)
    wide = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.BatchNormalization()])
    with pytest.raises(
        bridge.BridgeError,
        match="as .net.: without a place in sequential.*: _operations/4/_kernel .1, 1, 4, 4., _operations/4/bias",
    ):
        bridge.load_weights(wide, prefix)


def test_what_is_a_checkpoint(saved, tmp_path):
    _, prefixes = saved
    prefix = prefixes["model"]
    folder = prefix.rpartition("/")[0]
    assert all(map(tensorflow_weights.is_checkpoint, (prefix, f"{prefix}.index", folder)))
    assert not tensorflow_weights.is_checkpoint(str(tmp_path))
    network("q").save(tmp_path / "q.keras")
    done = run(tmp_path, "weights", folder, "--into", "q.keras", "-o", "filled.keras")
    assert done.returncode == 0, done.stderr
    x = np.ones((2, 6, 6, 3), "float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "filled.keras")(x), saved[0](x))


def dense(*units, norm=False):
    x = y = keras.Input((4,))
    for width in units:
        y = layers.Dense(width)(y)
    return keras.Model(x, layers.LayerNormalization()(y) if norm else y)


@pytest.mark.parametrize("way", ["save", "write"])
def test_all_of_it_must_find_a_place(tmp_path, way):
    prefix = getattr(tf.train.Checkpoint(net=dense(4, 4, 4)), way)(str(tmp_path / "k"))
    other = dense(4, 4)
    with pytest.raises(bridge.BridgeError, match="as .net.: without a place in .*_operations/3/_kernel .4, 4., _op"):
        bridge.load_weights(other, prefix)
    with pytest.raises(bridge.BridgeError, match="not filled: .*gamma"):
        bridge.load_weights(dense(4, 4, norm=True), prefix)


def test_several_objects(tmp_path):
    one, other = dense(4, 4), dense(4, 4)
    alike = tf.train.Checkpoint(first=one, second=other).save(str(tmp_path / "alike"))
    with pytest.raises(bridge.BridgeError, match="has 2 objects that .* may be: first, second. Restore the one"):
        bridge.load_weights(dense(4, 4), alike)
    prefix = tf.train.Checkpoint(small=dense(4), large=one).save(str(tmp_path / "two"))
    target = dense(4, 4)
    with pytest.warns(UserWarning, match="has more, which is left out: small .2 variables."):
        bridge.load_weights(target, prefix)
    for a, b in zip(target.get_weights(), one.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_optimizer_is_restored(tmp_path):
    model = dense(4, 4)
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 4)), verbose=0)
    prefix = tf.train.Checkpoint(net=model).save(str(tmp_path / "k"))
    other = dense(4, 4)
    other.compile("adam", "mse")
    other.optimizer.build(other.trainable_variables)
    weights.plan(other, prefix)
    assert int(other.optimizer.iterations) == 0
    bridge.load_weights(other, prefix)
    assert int(other.optimizer.iterations) == 0 and not np.any(other.optimizer._momentums[0])
    for a, b in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_saved_model(tmp_path):
    model, other = dense(4, 4), dense(4, 4)
    tf.saved_model.save(model, str(tmp_path / "saved"))
    bridge.load_weights(other, tmp_path / "saved")
    for a, b in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_layers_than_ten_of_keras_2(tmp_path):
    import tf_keras

    old = tf_keras.Sequential(
        [tf_keras.Input((5, 4)), *(tf_keras.layers.GRU(4, return_sequences=True) for _ in "x" * 12)]
    )
    new = keras.Sequential([keras.Input((5, 4)), *(layers.GRU(4, return_sequences=True) for _ in "x" * 12)])
    rng = np.random.default_rng(0)
    old.set_weights([rng.normal(size=w.shape) for w in old.get_weights()])
    prefix = tf.train.Checkpoint(net=old).write(str(tmp_path / "k"))
    bridge.load_weights(new, prefix)
    x = rng.normal(size=(2, 5, 4)).astype("float32")
    np.testing.assert_allclose(new(x), old(x), rtol=1e-4, atol=1e-5)


def test_a_normalization_computes_with_what_it_was_given(tmp_path):
    models = []
    for scale in (1, 5):
        layer = layers.Normalization()
        layer.adapt(np.random.default_rng(scale).normal(scale, scale, (50, 4)))
        models.append(keras.Sequential([keras.Input((4,)), layer, layers.Dense(2)]))
    one, other = models
    x = np.ones((2, 4), "float32")
    bridge.load_weights(other, tf.train.Checkpoint(net=one).save(str(tmp_path / "k")))
    np.testing.assert_allclose(other(x), one(x), rtol=1e-6)


def test_layers_in_a_list(tmp_path):
    class Own(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inside = [layers.Dense(4), layers.Dense(4)]

        def call(self, x):
            return self.inside[1](self.inside[0](x))

    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(Own()(x)))
    prefix = tf.train.Checkpoint(net=model).save(str(tmp_path / "k"))
    with pytest.raises(bridge.BridgeError, match="do not hold what layers keep in lists or .*dense.*/kernel"):
        bridge.load_weights(model, prefix)
