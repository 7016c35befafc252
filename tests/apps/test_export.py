import resource

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfzoo
from apps import RunFailed, VerificationFailed, export


def served(path, signature="serving_default", **inputs):
    """Run a SavedModel through the TF1 session loader, as TensorFlow Serving does."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def[signature]
        assert set(loaded.inputs) == set(inputs)
        fetches = {name: tensor.name for name, tensor in loaded.outputs.items()}
        return session.run(fetches, {loaded.inputs[name].name: value for name, value in inputs.items()})


def test_what_is_served_is_the_model(trained, invoke, tmp_path):
    result = invoke("export", trained, "-o", tmp_path / "models")
    assert result.exit_code == 0, result.stderr
    assert f"wrote {tmp_path / 'models' / '1'}" in result.stdout
    image = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    expected = keras.models.load_model(trained / "best.keras").predict(image, verbose=0)
    logits = served(tmp_path / "models" / "1", image=image)["logits"]
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_versions_go_up_and_are_never_overwritten(trained, invoke, tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    assert invoke("export", trained, "-o", tmp_path).exit_code == 0
    assert invoke("export", trained, "-o", tmp_path, "--version", "3").exit_code == 0
    before = sorted(tmp_path.rglob("*"))
    result = invoke("export", trained, "-o", tmp_path, "--version", "8")
    assert result.exit_code == 2 and "a version is never overwritten. Received:" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "7", "8", "notes"]
    assert sorted(tmp_path.rglob("*")) == before


def test_images_of_any_size(tmp_path):
    model = tfzoo.build("unet", size="tiny", image_shape=(None, None, 3))
    assert export.export(model, tmp_path / "1") <= export.TOLERANCE
    image = np.random.default_rng(1).random((1, 20, 12, 3), np.float32)
    np.testing.assert_allclose(served(tmp_path / "1", image=image)["logits"], model(image), rtol=1e-5, atol=1e-6)


def test_several_inputs_and_outputs_keep_their_names(tmp_path):
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    both = keras.layers.Concatenate(name="both")([a, b])
    model = keras.Model([a, b], [keras.layers.Dense(3, name="first")(both), keras.layers.Dense(1, name="second")(a)])
    assert export.export(model, tmp_path / "1") <= export.TOLERANCE
    rng = np.random.default_rng(1)
    x, y = rng.random((5, 4), np.float32), rng.random((5, 2), np.float32)
    outputs = served(tmp_path / "1", a=x, b=y)
    for name, expected in zip(("first", "second"), model([x, y]), strict=True):
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-5)


def test_another_model_is_seen(tmp_path):
    model = tfzoo.build("unet", size="tiny")
    export.export(model, tmp_path / "1")
    kernel = model.get_layer("bottom_conv0").kernel
    kernel.assign(kernel * 1.001)
    assert export.difference(model, tmp_path / "1") > export.TOLERANCE


@pytest.mark.parametrize("difference", [1e-3, np.nan])
def test_what_differs_is_not_published(difference, trained, invoke, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "difference", lambda model, path: difference)
    with pytest.raises(VerificationFailed, match="differs from its model by"):
        export.export(tfzoo.build("unet", size="tiny"), tmp_path / "1")
    assert invoke("export", trained, "-o", tmp_path / "deep" / "er").exit_code == 1
    assert not list(tmp_path.iterdir())


def test_no_room_for_a_version_leaves_nothing(tmp_path):
    model = tfzoo.build("unet", size="tiny")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(RunFailed, match=rf"no room left to write in {tmp_path}/models \(File too large\)"):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # the weights are larger: TensorFlow's own error
            export.export(model, tmp_path / "models" / "1")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_model_of_dictionaries_keeps_its_names(tmp_path):
    b, a = keras.Input((4,), name="b"), keras.Input((2,), name="a")
    outputs = {"z": keras.layers.Dense(3, name="first")(b), "y": keras.layers.Dense(1, name="second")(a)}
    model = keras.Model({"b": b, "a": a}, outputs)
    assert export.export(model, tmp_path / "1") <= export.TOLERANCE
    given = {"a": np.ones((5, 2), np.float32), "b": np.ones((5, 4), np.float32)}
    got, expected = served(tmp_path / "1", **given), model(given)
    np.testing.assert_allclose(got["first"], expected["z"], rtol=1e-5)
    np.testing.assert_allclose(got["second"], expected["y"], rtol=1e-5)


def dense(bias):
    image = keras.Input((4,), name="image")
    layer = keras.layers.Dense(2, kernel_initializer="zeros", name="logits")
    model = keras.Model(image, layer(image), name="mine")
    layer.bias.assign([bias, 0])
    return model


def test_an_output_of_nothing_but_zeros_is_equal(tmp_path):
    assert export.export(dense(0), tmp_path / "1") == 0


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_refused(bias, tmp_path):
    with pytest.raises(ValueError, match="on random input are finite. Received: mine, whose output logits is not"):
        export.export(dense(bias), tmp_path / "models" / "1")
    assert not list(tmp_path.iterdir())


def test_open_sizes_that_must_be_large(tmp_path):
    model = tfzoo.build("unet", widths=(1,) * 8, image_shape=(None, None, 3))
    inputs, outputs = export.example(model)
    assert inputs["image"].shape == (2, 128, 128, 3) and outputs["logits"].shape == (2, 128, 128, 1)


def test_open_sizes_that_none_fits():
    image = keras.Input((None,), name="image")
    fixed = keras.layers.Dense(1)(keras.layers.Reshape((7, 11))(image))
    with pytest.raises(ValueError, match=r"mine takes none of the sizes \(.*Export a model of fixed sizes"):
        export.example(keras.Model(image, fixed, name="mine"))


def test_the_next_command_can_be_pasted(trained, invoke, tmp_path):
    result = invoke("export", trained, "-o", tmp_path / "my models")
    assert f"--dir '{tmp_path}/my models/1'\n" in result.stdout


@pytest.mark.parametrize("how", ["empty", "cut short", "a bit flipped", "text"])
def test_a_damaged_model_is_refused(how, damaged, invoke, tmp_path):
    result = invoke("export", damaged(how), "-o", tmp_path / "models")
    assert result.exit_code == 2 and "cannot be read as a Keras model" in result.stderr
    assert not (tmp_path / "models").exists()


def test_a_place_that_cannot_be_written(trained, invoke, tmp_path):
    (tmp_path / "file").touch()
    result = invoke("export", trained, "-o", tmp_path / "file")
    assert result.exit_code == 2 and "a folder that can be written. Received:" in result.stderr
    assert "(Not a directory)" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
