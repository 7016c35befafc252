"""Files of Keras' weights: every number goes where the layers' names say, or nothing is changed."""

import h5py
import keras
import numpy as np
import pytest

from bridge import BridgeError, keras_weights

layers = keras.layers


def stack(names=(None, None), policy=None):
    """Two layers of a class and a shape."""
    layer = [layers.Dense(3, name=name, dtype=policy) for name in names]
    return keras.Sequential([keras.Input((3,)), *layer])


def mixed():
    """Layers in layers and models in models, with names and without, and what is no weight."""
    x = image = keras.Input((4, 3))
    x = layers.MultiHeadAttention(2, 2, dropout=0.1, name="mha")(x, x)
    x = layers.Bidirectional(layers.LSTM(3))(layers.Dropout(0.1)(x))
    x = stack(("b", None))(stack()(layers.Dense(3)(x)))
    return keras.Model(image, layers.Normalization(name="n")(layers.BatchNormalization()(x)))


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.a, self.inner = layers.Dense(3), [layers.Dense(3), layers.Dense(3, name="q"), stack()]
        self(np.ones((1, 3)))  # makes the weights

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return self.a(x)


def saved(model, path):
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return str(path)


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (make, ending)
        for make in (stack, mixed, lambda: stack(policy="bfloat16"), lambda: stack(("a", "b")), Own)
        for ending in (".keras", ".weights.h5", ".h5")
        if make is not Own or ending != ".h5"  # Keras does not write it
    ],
)
def test_weights_of_keras(tmp_path, check, make, ending):
    """Layers without names of their own have another number in every model."""
    model, other = check.randomise(make(), 0), check.randomise(make(), 1)
    if make is mixed:
        model.get_layer("n").finalize_state()
    keras_weights.load(other, saved(model, tmp_path / f"w{ending}"))
    assert len(model.weights) == {mixed: 31, Own: 10}.get(make, 4)
    for mine, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=mine.path)
    x = np.random.default_rng(2).normal(size=(2, 4, 3) if make is mixed else (2, 3))
    np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".h5"])
def test_weights_of_keras_go_where_the_names_are(tmp_path, check, ending):
    model, other = check.randomise(stack(("a", "b")), 0), check.randomise(stack(("b", "a")), 1)
    path = saved(model, tmp_path / f"w{ending}")
    keras_weights.load(other, path)
    for name in "ab":
        for mine, theirs in zip(other.get_layer(name).weights, model.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(BridgeError, match=r"2 missing: c/kernel, c/bias; 2 unexpected: b/0 \(3, 3\), b/1 \(3,\)"):
        keras_weights.load(stack(("a", "c")), path)


@pytest.mark.parametrize("layer", [layers.Dense(4), layers.EinsumDense("ab,bc->ac", 3, bias_axes="c")])
@pytest.mark.parametrize("ending", [".keras", ".weights.h5", ".h5"])
def test_layers_without_names_of_their_own_go_by_class_order_and_shape(tmp_path, ending, layer):
    path = saved(stack(), tmp_path / f"w{ending}")
    other = keras.Sequential([keras.Input((3,)), layers.Dense(3), layer])
    before = other.get_weights()
    with pytest.raises(BridgeError, match=r"2 of another shape: \S+ \(3, 3\), not|2 missing: \S+, \S+; 2 unexpected: "):
        keras_weights.load(other, path)
    for mine, theirs in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_name_that_another_layers_class_has(tmp_path, check, ending):
    def make():
        flat = layers.EinsumDense("ab,bc->ac", 3, bias_axes="c", name="dense")
        return keras.Sequential([keras.Input((3,)), flat, layers.Dense(3), layers.Dense(3)])

    model, other = check.randomise(make(), 0), check.randomise(make(), 1)
    keras_weights.load(other, saved(model, tmp_path / f"w{ending}"))
    for mine, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_file_without_names(tmp_path, check):
    """What can be compared is, and a warning says so."""
    model, path = check.randomise(stack(("a", "b")), 0), tmp_path / "w.weights.h5"
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.visititems(lambda name, item: item.attrs.pop("name", None) and None)
    other = check.randomise(stack(("c", "d")), 1)
    with pytest.warns(UserWarning, match="has no names of layers: their classes, order and shapes are all"):
        keras_weights.load(other, str(path))
    for mine, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.warns(UserWarning), pytest.raises(BridgeError, match="2 missing: dense_2/0, dense_2/1"):
        keras_weights.load(stack(("a", "b", "c")), str(path))


@pytest.mark.parametrize("shape", [(3,), (2**40,)])
def test_weights_that_are_somewhere_else_or_larger_than_the_file(tmp_path, shape):
    path = tmp_path / "w.weights.h5"
    stack(("a", "b")).save_weights(path)
    with h5py.File(path, "r+") as file:
        values = file["layers/dense/vars"]
        del values["1"]
        if shape == (3,):
            values["1"] = h5py.ExternalLink("/etc/passwd", "/")
        else:
            values.create_dataset("1", shape, "float32", chunks=True)
    with pytest.raises(BridgeError, match="is a link to another place|unpack to"):
        keras_weights.load(stack(("a", "b")), str(path))


def test_a_model_that_is_not_built(tmp_path):
    path = saved(stack(), tmp_path / "w.keras")
    with pytest.raises(BridgeError, match="not yet been built") as caught:
        keras_weights.load(keras.Sequential([layers.Dense(3)]), path)
    assert "damaged" not in str(caught.value)


def test_a_file_that_is_not_there():
    with pytest.raises(BridgeError, match="w.h5: no such file. Accepted: a .keras, .weights.h5 or .h5 file"):
        keras_weights.load(stack(), "w.h5")
