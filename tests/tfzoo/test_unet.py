"""The U-Net: counted, wired as documented, trainable, and a plain Keras model once saved."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tfzoo


def randomize(model):
    """Give every weight, zero biases too, a random value of a size that keeps the signal alive."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        fan_in = max(int(np.prod(weight.shape[:-1])), 1)
        value = rng.normal(0, (2 / fan_in) ** 0.5 if len(weight.shape) > 1 else 0.2, weight.shape)
        weight.assign(abs(value) + 1 if weight.name in ("gamma", "moving_variance") else value)
    return model


def images(*shape):
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def level(x, weights, name):
    """Two 3x3 convolutions, each with ReLU and perhaps BatchNorm, in NumPy: `(H, W, C)` to `(H, W, width)`."""
    for j in range(2):
        kernel, bias = weights[f"{name}_conv{j}"]
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))  # (H, W, C, 3, 3)
        x = np.einsum("hwcij,ijco->hwo", windows, kernel) + bias
        if f"{name}_norm{j}" in weights:
            gamma, beta, mean, variance = weights[f"{name}_norm{j}"]
            x = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"size": "default"}, 1_941_105),
        ({"size": "default", "image_shape": (None, None, 3)}, 1_941_105),
        ({"size": "default", "batch_norm": True}, 1_946_993),
        ({"size": "default", "dropout": 0.5}, 1_941_105),
        ({"size": "paper"}, 31_031_745),
    ],
)
def test_count(options, count):
    assert tfzoo.build("unet", **options).count_params() == count


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("classes", [1, 5])
def test_any_depth_gives_a_logit_per_pixel_and_class(depth, classes):
    side = 3 * 2 ** (depth - 1)
    model = tfzoo.build("unet", image_shape=(side, 2 * side, 2), classes=classes, widths=(2, 3, 4, 5, 6, 7)[:depth])
    assert model(images(2, side, 2 * side, 2)).shape == (2, side, 2 * side, classes)
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize("batch_norm", [False, True])
def test_equals_the_same_network_in_numpy(batch_norm):
    options = {"image_shape": (6, 10, 3), "classes": 2, "widths": (4, 5), "batch_norm": batch_norm}
    model = randomize(tfzoo.build("unet", **options))
    x = images(1, 6, 10, 3)
    weights = {layer.name: layer.get_weights() for layer in model.layers}

    skip = level(x[0], weights, "down0")  # (6, 10, 4)
    half = skip.reshape(3, 2, 5, 2, 4).max((1, 3))  # (3, 5, 4)
    bottom = level(half, weights, "bottom")  # (3, 5, 5)
    kernel, bias = weights["up0_upsample"]  # (2, 2, out, in)
    up = np.einsum("hwc,ijoc->hiwjo", bottom, kernel).reshape(6, 10, 4) + bias
    joined = level(np.concatenate([skip, up], -1), weights, "up0")  # (6, 10, 4)
    kernel, bias = weights["logits"]
    np.testing.assert_allclose(model(x)[0], joined @ kernel[0, 0] + bias, rtol=1e-4, atol=1e-5)


def test_batch_norm_stands_between_convolution_and_relu():
    model = tfzoo.build("unet", "tiny", batch_norm=True)
    before = {layer.name: layer.input._keras_history.operation.name for layer in model.layers if "relu" in layer.name}
    assert before == {name: name.replace("relu", "norm") for name in before}
    assert len(before) == 2 * 5
    assert all(model.get_layer(name).activation is keras.activations.linear for name in ("down0_conv0", "up0_conv1"))


def test_dropout_acts_on_the_bottom_in_training_only():
    model = tfzoo.build("unet", "tiny", dropout=0.5)
    assert model.get_layer("bottom_dropout").input._keras_history.operation.name == "bottom_conv1"
    x = images(1, 32, 32, 3)
    np.testing.assert_array_equal(model(x, training=False), model(x, training=False))
    assert not np.array_equal(model(x, training=True), model(x, training=True))


def test_open_sizes_equal_fixed_sizes():
    opened = randomize(tfzoo.build("unet", "tiny", image_shape=(None, None, 3)))
    for shape in ((32, 32), (12, 20)):
        fixed = tfzoo.build("unet", "tiny", image_shape=(*shape, 3))
        fixed.set_weights(opened.get_weights())
        x = images(2, *shape, 3)
        np.testing.assert_array_equal(opened(x), fixed(x))


def test_initial_kernels_are_he_normal():
    kernel = tfzoo.build("unet").get_layer("bottom_conv1").kernel
    np.testing.assert_allclose(np.std(kernel), (2 / (9 * 256)) ** 0.5, rtol=0.02)


def test_layer_names_do_not_depend_on_what_was_built_before():
    first, second = (tfzoo.build("unet", "tiny", batch_norm=True) for _ in range(2))
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert first.name == "unet"


@pytest.mark.parametrize("batch_norm", [False, True])
def test_saved_and_loaded_without_tfzoo(tmp_path, batch_norm):
    model = randomize(tfzoo.build("unet", "tiny", batch_norm=batch_norm, dropout=0.1))
    x = images(2, 32, 32, 3)
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "model.keras")
    code = (
        "import sys; sys.modules.update(tfzoo=None, apps=None, bridge=None)\n"
        "import keras, numpy as np\n"
        "np.save('y.npy', keras.models.load_model('model.keras')(np.load('x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(x))
    assert np.std(model(x)) > 0.01  # else the comparison could not fail


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        ({"image_shape": (100, 128, 3)}, [r"halves the image 4 times", "multiples of 16", r"\(100, 128, 3\)"]),
        ({"image_shape": (None, 100, 3)}, ["multiples of 16"]),
        ({"image_shape": (128, 128)}, [r"\(height, width, channels\). Received: image_shape=\(128, 128\)"]),
        ({"widths": ()}, [r"widths must be .* Received: widths=\(\)"]),
        (
            {"image_shape": (2, 2, 3), "classes": 0, "dropout": 1.0},
            ["multiples of 16", "Received: classes=0", "Received: dropout=1.0"],
        ),
        (
            {"image_shape": 32, "classes": 1.0, "widths": (4.0, 8), "batch_norm": "false", "dropout": "0.1"},
            [
                r"image_shape must be three positive.* Received: image_shape=32",
                r"classes must be an integer.* Received: classes=1\.0",
                r"widths must be .* Received: widths=\(4\.0, 8\)",
                r"batch_norm must be True or False. Received: batch_norm='false'",
                r"dropout must be a number.* Received: dropout='0\.1'",
            ],
        ),
        ({"classes": True, "widths": 4}, ["Received: classes=True", "Received: widths=4"]),
    ],
)
def test_refusals_name_everything(options, messages):
    with pytest.raises(ValueError) as error:
        tfzoo.build("unet", **options)
    for message in messages:
        error.match(message)


def test_build_finds_families_by_file_name():
    assert "unet" in tfzoo.names()
    assert tfzoo.sizes("unet")[0] == "default"
    assert "tiny" in tfzoo.sizes("unet")
    assert tfzoo.build("unet").input_shape == (None, 128, 128, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "messages"),
    [
        (["vnet"], {}, ["no model 'vnet'", "unet"]),
        (
            ["unet", "huge"],
            {"depth": 3},
            ["no size 'huge'.*default, tiny, paper", "no option depth.*image_shape.*widths"],
        ),
    ],
)
def test_build_says_what_there_is(arguments, options, messages):
    with pytest.raises(ValueError) as error:
        tfzoo.build(*arguments, **options)
    for message in messages:
        error.match(message)


def test_import_needs_no_framework():
    code = "import sys, tfzoo; tfzoo.names(); from apps.recipes import unet; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"tensorflow", "keras", "torch", "numpy"} & set(loaded)
