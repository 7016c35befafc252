"""Functions of keras.ops.image, of both layouts."""

import keras
import numpy as np
import pytest
import torch

import bridge

ops, image = keras.ops, keras.ops.image

FIRST = {"data_format": "channels_first"}
CASES = {  # of an image with its channels last, and of one with its channels first
    "rgb_to_grayscale": (lambda x, f: image.rgb_to_grayscale(x, **f), (5, 6, 3), (3, 5, 6)),
    "rgb_to_hsv": (lambda x, f: image.rgb_to_hsv(ops.abs(x) + 0.1, **f), (5, 6, 3), (3, 5, 6)),
    "hsv_to_rgb": (lambda x, f: image.hsv_to_rgb(ops.sigmoid(x), **f), (5, 6, 3), (3, 5, 6)),
    "pad_images": (lambda x, f: image.pad_images(x, 1, 2, 0, 3, **f), (5, 6, 3), (3, 5, 6)),
    "pad_images to a size": (
        lambda x, f: image.pad_images(x, 1, None, None, 2, target_height=9, target_width=11, **f),
        *((5, 6, 3), (3, 5, 6)),
    ),
    "crop_images": (lambda x, f: image.crop_images(x, 1, 2, 0, 1, **f), (5, 6, 3), (3, 5, 6)),
    "crop_images to a size": (
        lambda x, f: image.crop_images(x, None, 2, 1, None, target_height=3, target_width=2, **f),
        *((5, 6, 3), (3, 5, 6)),
    ),
}
FILTERS = {
    "gaussian_blur": (lambda x, f: image.gaussian_blur(x, (3, 3), (1.0, 0.7), **f), (7, 6, 3), (3, 7, 6)),
    "gaussian_blur of two sizes": (lambda x, f: image.gaussian_blur(x, (3, 5), (2.0, 0.7), **f), (7, 6, 3), (3, 7, 6)),
    "sobel_edges": (lambda x, f: image.sobel_edges(x, **f), (7, 6, 3), (3, 7, 6)),
    "ssim": (lambda x, f: image.ssim(x, ops.tanh(x), 2.0, filter_size=5, **f), (7, 6, 3), (3, 7, 6)),
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_both_ways(carried, name, first):
    function, last, other = CASES[name]
    shape = other if first else last
    # TensorFlow has no gradient of hsv_to_rgb
    carried(lambda x: function(x, FIRST if first else {}), shape, verified=name != "hsv_to_rgb", single=1e-4)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", FILTERS)
def test_filters(name, first):
    """They are frozen convolutions, which Keras' function has no weight for."""
    function, last, other = FILTERS[name]
    x = keras.Input(other if first else last, dtype="float64")
    model = keras.Model(x, function(x, FIRST if first else {}))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert module.state_dict() and not [p for p in module.parameters() if p.requires_grad]
    array = np.random.default_rng(0).normal(size=(2, *x.shape[1:]))
    again = bridge.to_keras(module, (torch.from_numpy(np.moveaxis(array, -1, 1).copy()),))
    np.testing.assert_allclose(again(array), model(array), rtol=1e-9, atol=1e-12)


TRANSFORM = np.array([0.8, 0.3, -1.2, -0.25, 1.1, 0.7, 0.01, 0.02], "float32")
START = np.array([[0, 0], [0, 5], [6, 0], [6, 5]], "float32")
END = np.array([[1, 0.5], [0, 4], [5, 1], [6, 5]], "float32")
MODES = ("constant", "nearest", "reflect", "wrap")
MOVED = {
    **{
        f"affine {mode} {how}": lambda x, f, mode=mode, how=how: image.affine_transform(
            x, TRANSFORM, how, mode, 0.5, **f
        )
        for mode in MODES
        for how in ("nearest", "bilinear")
    },
    "perspective": lambda x, f: image.perspective_transform(x, START, END, fill_value=0.5, **f),
    "perspective nearest": lambda x, f: image.perspective_transform(x, START, END, "nearest", **f),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MOVED)
def test_moved_pixels(name, dtype):
    """TensorFlow computes in float32: in float64 only what is taken as it is can be the same."""
    first = FIRST if "reflect" in name else {}
    x = keras.Input((3, 7, 6) if first else (7, 6, 3), dtype=dtype)
    model = keras.Model(x, keras.layers.Dense(6 if first else 3, dtype=dtype)(MOVED[name](x, first)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    array = np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype(dtype)
    tensor = torch.from_numpy(np.moveaxis(array, -1, 1).copy())
    want = np.asarray(model(array))
    have = module(tensor).detach().numpy()
    limit = 1e-12 if "nearest" in name.split()[-1] and dtype == "float64" else 1e-6
    np.testing.assert_allclose(np.moveaxis(have, 1, -1), want, rtol=limit, atol=limit)
    np.testing.assert_allclose(bridge.to_keras(module, (tensor,))(array), want, rtol=limit, atol=limit)


def test_weights_before_moved_pixels():
    """TensorFlow's own gradient is another, which the report shows."""
    x = keras.Input((7, 6, 3))
    model = keras.Model(x, image.affine_transform(keras.layers.Dense(3)(x), TRANSFORM))
    report = bridge.verify(model, bridge.to_torch(model))
    assert {kind for kind, _ in report.failures} == {"gradients"}
    assert "weights before it are trained otherwise" in str(report.notes)


def test_single_precision():
    x = keras.Input((13, 12, 3))
    model = keras.Model(x, image.gaussian_blur(x, (5, 5), (1.3, 0.8)) * image.ssim(x, x * 0.5)[:, None, None, None])
    assert bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize("name", ["rgb_to_hsv", "hsv_to_rgb"])
def test_colours_at_the_edges(name):
    """Black, white, greys, pure and mixed colours, and hues of 0 and 1."""
    x = keras.Input((None, 1, 3), dtype="float64")
    model = keras.Model(x, getattr(image, name)(x))
    colours = np.stack(np.meshgrid(*[[0.0, 0.25, 0.5, 1.0]] * 3), -1).reshape(1, -1, 1, 3)
    tensor = torch.from_numpy(np.moveaxis(colours, -1, 1).copy()).requires_grad_()
    have = bridge.to_torch(model)(tensor)
    np.testing.assert_allclose(np.moveaxis(have.detach().numpy(), 1, -1), model(colours), rtol=1e-12, atol=1e-15)
    have.sum().backward()
    assert torch.isfinite(tensor.grad).all()


def test_whole_numbers():
    x = keras.Input((5, 6, 3), dtype="uint8")
    model = keras.Model(x, ops.cast(image.rgb_to_grayscale(x), "float32"))
    array = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), "uint8")
    have = bridge.to_torch(model)(torch.from_numpy(np.moveaxis(array, -1, 1).copy()))
    np.testing.assert_array_equal(np.moveaxis(have.numpy(), 1, -1), model(array))


def test_open_sizes():
    x = keras.Input((None, None, 3), dtype="float64")
    made = image.sobel_edges(image.gaussian_blur(image.pad_images(x, 1, 2, 3, 4)))[..., 0]
    model = keras.Model(x, image.crop_images(made, 1, 2, target_height=5, target_width=4))
    assert bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: image.affine_transform(x, TRANSFORM), "moves the pixels of an image of shape .*; fix all sizes but"),
        (lambda x: image.affine_transform(x, np.stack([TRANSFORM] * 2)), "moves the pixels of an image of shape"),
        (
            lambda x: image.affine_transform(x, ops.mean(x, (1, 2, 3))[:, None] * TRANSFORM[None]),
            "what it moves the pixels by is a tensor; give it as numbers",
        ),
        (lambda x: image.gaussian_blur(x[0]), r"images of shape \(None, None, 3\); give a batch of images"),
        (lambda x: image.sobel_edges(ops.cast(x, "float16")), "images of float16; cast them to float32 before"),
        (
            lambda x: image.pad_images(x, None, 1, 2, 3, target_height=300),
            "it pads an open size to a given one; fix that size, or say both paddings",
        ),
        (
            lambda x: image.crop_images(x, None, 1, 2, target_height=3, target_width=2),
            "it crops an open size from its end; fix that size, or say what is cut before",
        ),
    ],
)
def test_refused(function, text):
    x = keras.Input((None, None, 3))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
