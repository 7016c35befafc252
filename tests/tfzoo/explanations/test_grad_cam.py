"""Grad-CAM is the class activation map where there is one; elsewhere its definition, by finite differences."""

import keras
import numpy as np
import pytest
from keras import layers

import tfzoo
from tfzoo.explanations.grad_cam import grad_cam, places

rng = np.random.default_rng(0)


def small(last="average"):
    image = keras.Input((9, 7, 2))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(image)
    x = layers.Conv2D(3, 2, name="second")(x)
    x = layers.GlobalAveragePooling2D()(x) if last == "average" else layers.Flatten()(layers.Activation("tanh")(x))
    model = keras.Model(image, layers.Dense(5)(x))
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def test_it_is_the_class_activation_map_of_a_network_that_averages():
    model, images = small(), rng.normal(size=(4, 9, 7, 2)).astype("float32")
    features = np.asarray(keras.Model(model.input, model.get_layer("second").output)(images))
    kernel = np.asarray(model.layers[-1].kernel)  # (3, 5)
    classes = [4, 0, 2, 2]
    expected = np.stack([f @ kernel[:, c] for f, c in zip(features, classes, strict=True)]) / features[0, ..., 0].size
    assert (expected > 0).any((1, 2)).all() and (expected < 0).any()
    np.testing.assert_allclose(grad_cam(model, images, classes), np.maximum(expected, 0), rtol=1e-4, atol=1e-6)
    likeliest = np.asarray(model(images)).argmax(-1)
    np.testing.assert_array_equal(grad_cam(model, images), grad_cam(model, images, likeliest))


def test_another_layer_by_finite_differences():
    model, images = small("flat"), rng.normal(size=(2, 9, 7, 2)).astype("float32")
    features = np.asarray(keras.Model(model.input, model.get_layer("first").output)(images), "float64")
    tail = keras.Model(model.get_layer("first").output, model.output)
    step, classes, expected = 1e-2, [1, 3], []
    for feature, c in zip(features, classes, strict=True):
        slopes = []
        for k in range(4):  # the sum over all places: along one direction
            there, back = feature.copy(), feature.copy()
            there[..., k] += step
            back[..., k] -= step
            high, low = np.asarray(tail(np.stack([there, back]).astype("float32")), "float64")[:, c]
            slopes.append((high - low) / (2 * step) / feature[..., 0].size)
        expected.append(np.maximum(feature @ slopes, 0))
    found = grad_cam(model, images, classes, layer="first")
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02 * np.max(expected))
    assert np.max(expected) > 0


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet", "layer3"),
        ("googlenet", "inception5b"),  # not one of the auxiliary heads'
        ("vit", "patch_embed_proj"),  # not its attention
        ("spatial_transformer", "classifier_pool1"),
    ],
)
def test_the_last_layer_with_places_of_each_family(name, last):
    model = tfzoo.build(name, size="tiny")
    assert list(places(model))[-1] == last
    images = rng.normal(size=(2, *model.input_shape[1:])).astype("float32")
    head = next(layer for layer in reversed(model.layers) if layer.weights and layer.name not in ("aux1", "aux2"))
    head.kernel.assign(rng.normal(size=head.kernel.shape))  # a Vision Transformer's begins with zeros
    found = grad_cam(model, images)
    assert found.shape == (2, *places(model)[last].shape[1:3]) and (found >= 0).all() and found.dtype == np.float32


def test_a_padded_map_is_none():
    model = tfzoo.build(
        "googlenet", size="tiny", variant="torchvision", image_shape=(32, 32, 1)
    )  # behind the padding of the last maximum there is one place
    assert list(places(model))[-1] == "inception4e"


def test_what_is_looked_at_are_layers_whose_names_are_always_the_same():
    one, two = (tfzoo.build("googlenet", size="tiny") for _ in range(2))
    assert list(places(one)) == list(places(two))
    for name in places(one):
        assert isinstance(one.get_layer(name), layers.Layer) and "pad" not in name
    assert {"conv1_conv", "maxpool1", "conv3_relu", "inception4a_branch2_0_conv", "inception3b"} <= places(one).keys()


def test_of_an_open_size_the_pictures_own_decides():
    opened = tfzoo.build("resnet", "18", image_shape=(None, None, 3), classes=4)
    images = rng.normal(size=(1, 32, 32, 3)).astype("float32")
    fixed = tfzoo.build("resnet", "18", image_shape=(32, 32, 3), classes=4)
    fixed.set_weights(opened.get_weights())
    found = grad_cam(opened, images)
    assert found.shape == (1, 2, 2) and np.ptp(found) > 0
    np.testing.assert_allclose(found, grad_cam(fixed, images), rtol=1e-4, atol=1e-6)
    assert list(places(opened, (1, 32, 32, 3))) == list(places(fixed))
    assert grad_cam(opened, rng.normal(size=(1, 64, 33, 3)).astype("float32")).shape == (1, 2, 2)
    with pytest.raises(ValueError, match=r"pictures of 32x32: .*layer3(, \w+)*\. Received: layer4"):
        grad_cam(opened, images, layer="layer4")


def test_layers_that_cannot_be_looked_at():
    with pytest.raises(ValueError, match=r"Accepted of .*: first, second. Received: dense"):
        grad_cam(small(), np.zeros((1, 9, 7, 2), "float32"), layer="dense")
    image = keras.Input((4, 4, 1))
    flat = keras.Model(image, layers.Dense(2)(layers.Flatten()(image)))
    with pytest.raises(ValueError, match="Accepted of .*: none, as it has no such layer. Received: no layer"):
        grad_cam(flat, np.zeros((1, 4, 4, 1), "float32"))
