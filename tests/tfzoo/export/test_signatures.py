import keras
import numpy as np
import pytest
import tensorflow as tf

import tfzoo
from tfzoo.export import signatures
from tfzoo.export.pictures import Pictures
from tfzoo.export.signatures import BYTES, DEFAULT, Signature

PICTURES = Pictures(None, 3)


def test_inputs_and_outputs_by_their_names():
    b, a = keras.Input((4,), name="b"), keras.Input((2,), name="a")
    model = keras.Model({"b": b, "a": a}, {"z": keras.layers.Dense(3, name="first")(b), "y": keras.layers.ReLU()(a)})
    made = signatures.of_model(model)[DEFAULT]
    assert {x.name: tuple(x.shape) for x in made.inputs} == {"a": (None, 2), "b": (None, 4)}
    given = {"a": tf.constant([[1.0, -1.0]]), "b": tf.ones([1, 4])}
    outputs, want = made.function(**given), model(given)
    assert outputs.keys() == {"z", "y"}  # by the keys, where there are any
    np.testing.assert_array_equal(outputs["z"], want["z"])


def test_a_layer_that_is_called_twice_has_two_outputs():
    x = keras.Input((4,), name="x")
    layer = keras.layers.Dense(4, name="d")
    model = keras.Model(x, [layer(x), layer(layer(x))])
    outputs = signatures.of_model(model)[DEFAULT].function(x=tf.ones([1, 4]))
    assert list(outputs) == ["d", "d_1"] and np.abs(outputs["d"] - outputs["d_1"]).max() > 0


@pytest.mark.parametrize(
    "names, want",
    [(["a", "b"], ["a", "b"]), (["a", "a", "a_1"], ["a", "a_1", "a_1_1"]), (["a"] * 3, ["a", "a_1", "a_2"])],
)
def test_names_that_differ(names, want):
    assert signatures.unique(names) == want


def test_names_are_the_same_in_every_process():
    keras.Input((1,))
    x = keras.Input((4,))
    (spec,) = signatures.of_model(keras.Model(x, keras.layers.ReLU()(x)))[DEFAULT].inputs
    assert spec.name == keras.Model(x, x).layers[0].name


def test_inputs_that_no_request_can_hold():
    a, b = keras.Input((4,), sparse=True, name="a"), keras.Input(batch_shape=(2, 4), name="b")
    model = keras.Model([a, b], keras.layers.Dense(1)(a), name="mine")
    with pytest.raises(ValueError, match=r"mine has inputs that no(?s:.*)a: sparse\n  b: shape \(2, 4\), whose"):
        signatures.of_model(model)


def test_files_for_a_model_of_pictures():
    unet = tfzoo.build("unet", size="tiny")
    served, notes = signatures.with_pictures(tfzoo.unet.signatures({"model": unet}), PICTURES)
    assert list(served) == [DEFAULT, BYTES] and not notes
    inputs, outputs = signatures.example(BYTES, served[BYTES])
    assert inputs["image_bytes"].shape == (2,) and outputs["mask"].shape == (2, 32, 32, 1)
    image = Pictures((32, 32), 3).decode(tf.constant(inputs["image_bytes"]))
    np.testing.assert_array_equal(outputs["mask"], tf.sigmoid(unet(image)))


def test_files_for_a_model_of_any_size():
    model = tfzoo.build("unet", size="tiny", image_shape=(None, None, 1))
    served, _ = signatures.with_pictures(tfzoo.unet.signatures({"model": model}), PICTURES)
    assert signatures.example(BYTES, served[BYTES])[1]["mask"].shape == (2, 16, 16, 1)  # the first that it can halve
    sized, _ = signatures.with_pictures(tfzoo.unet.signatures({"model": model}), Pictures((24, 20), 3))
    assert signatures.example(BYTES, sized[BYTES])[1]["mask"].shape == (2, 24, 20, 1)


def test_no_files_for_what_is_no_picture():
    x = keras.Input((5, 6, 2), name="x")
    served, notes = signatures.with_pictures(signatures.of_model(keras.Model(x, keras.layers.ReLU()(x))), PICTURES)
    assert list(served) == [DEFAULT]
    assert notes == [
        "There is no signature serving_bytes: it needs one input of pictures, floats of shape (B, H, W, 1 or 3); the "
        "model takes x: float32 (None, 5, 6, 2)."
    ]


def test_another_size_than_the_models():
    served = signatures.of_model(tfzoo.build("unet", size="tiny"))
    with pytest.raises(ValueError, match=r"the model takes pictures of \(32, 32\). Received: size=\(32, 33\)"):
        signatures.with_pictures(served, Pictures((32, 33), 3))


def test_open_sizes_that_must_be_large():
    model = tfzoo.build("unet", widths=(1,) * 8, image_shape=(None, None, 3))
    inputs, outputs = signatures.example(DEFAULT, tfzoo.unet.signatures({"model": model})[DEFAULT])
    assert inputs["image"].shape == (2, 128, 128, 3) and outputs["mask"].shape == (2, 128, 128, 1)


def test_open_sizes_that_none_fits():
    image = keras.Input((None,), name="image")
    fixed = keras.layers.Dense(1)(keras.layers.Reshape((7, 11))(image))
    served = signatures.of_model(keras.Model(image, fixed, name="mine"))
    with pytest.raises(ValueError, match=r"serving_default takes none of the sizes \(.*Export a model of fixed sizes"):
        signatures.example(DEFAULT, served[DEFAULT])


def test_examples_of_every_kind():
    specs = [tf.TensorSpec([None, 3], kind, kind) for kind in ("float32", "int32", "bool", "string", "bfloat16")]
    signature = Signature(lambda **x: {"all": tf.stack([tf.cast(x["float32"][:, 0], tf.float32)])}, tuple(specs))
    inputs, _ = signatures.example("s", signature)
    assert {k: v.dtype.name for k, v in inputs.items()} == {x.name: x.name for x in specs} | {"string": "object"}
    assert all(len(set(map(str, x.ravel()))) > 1 for x in inputs.values())


def test_a_fixed_batch():
    signature = signatures.with_batch(signatures.of_model(tfzoo.build("unet", size="tiny"))[DEFAULT], 3)
    inputs, outputs = signatures.example(DEFAULT, signature)
    assert inputs["image"].shape[0] == outputs["logits"].shape[0] == signature.inputs[0].shape[0] == 3


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_an_output_that_is_not_finite(bias):
    image = keras.Input((4,), name="image")
    layer = keras.layers.Dense(2, kernel_initializer="zeros", name="logits")
    model = keras.Model(image, layer(image), name="mine")
    layer.bias.assign([bias, 0])
    with pytest.raises(ValueError, match="outputs are finite. Received: serving_default, whose output logits is"):
        signatures.example(DEFAULT, signatures.of_model(model)[DEFAULT])


def test_what_a_unet_serves():
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    for classes in (1, 4):
        model = tfzoo.build("unet", size="tiny", classes=classes)
        mask = tfzoo.unet.signatures({"model": model})[DEFAULT].function(image=tf.constant(image))["mask"]
        logits = np.asarray(model(image), np.float64)
        share = np.exp(logits) / (1 + np.exp(logits) if classes == 1 else np.exp(logits).sum(-1, keepdims=True))
        np.testing.assert_allclose(mask, share, rtol=1e-5)


class Own(keras.Model):
    """A model with a `call` of its own, that takes a dictionary and gives one."""

    def __init__(self):
        super().__init__(name="own")
        self.backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")])

    def call(self, given, scale=None):
        return {"sum": self.backbone(given["x"]) * (2 if scale is None else scale), "x": given["y"]}


class OfOne(Own):
    """The same without the second argument."""

    def call(self, given):
        return super().call(given)


def test_a_call_of_ones_own():
    model = OfOne()
    with pytest.raises(ValueError, match="built"):
        signatures.of_model(model)
    x, y = (tf.constant(np.random.default_rng(i).normal(size=(2, n)), "float32") for i, n in enumerate((4, 2)))
    want = model({"x": x, "y": y})
    made = signatures.of_model(model)[DEFAULT]
    assert {s.name: tuple(s.shape) for s in made.inputs} == {"given_x": (None, 4), "given_y": (None, 2)}
    outputs = made.function(given_x=x, given_y=y)
    assert outputs.keys() == {"sum", "x"}
    np.testing.assert_array_equal(outputs["sum"], want["sum"])


def test_an_argument_that_keras_has_not_noted():
    """It would be left out without a word."""
    model = Own()
    model({"x": tf.ones([1, 4]), "y": tf.ones([1, 2])}, scale=tf.ones([1, 1]))
    with pytest.raises(ValueError, match="the call of own takes given, scale, and Keras has noted 1 of them"):
        signatures.of_model(model)


def test_outputs_of_mixed_precision_are_float32():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, dtype="mixed_bfloat16", name="y")(x))
    made = signatures.in_float32(signatures.of_model(model)[DEFAULT])
    y = made.function(x=tf.ones([1, 4]))["y"]
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y, tf.cast(model(tf.ones([1, 4])), "float32"))
