"""CenterCrop of larger and smaller images, at fixed and open sizes, both ways."""

import copy
import inspect
import pickle

import keras
import pytest
import torch

import bridge

layers = keras.layers


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("given", [(7, 8), (5, 5), (6, 9), (4, 5)])
def test_a_crop_of_known_sizes(check, given, data_format):
    x = keras.Input((*given, 3) if data_format == "channels_last" else (3, *given), name="image")
    model = keras.Model(x, layers.ReLU()(layers.CenterCrop(4, 5, data_format=data_format)(x)))
    module, again = check.both_ways(model, limit=1e-15)
    assert "CenterCrop" not in inspect.getsource(type(module))
    assert any(isinstance(layer, layers.Cropping2D) for layer in again.layers) == (given != (4, 5))


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("given", [(3, 8), (8, 3), (2, 4), (4, 3)])
def test_a_smaller_image_is_resized(check, given, data_format):
    x = keras.Input((*given, 3) if data_format == "channels_last" else (3, *given), name="image")
    model = keras.Model(x, layers.CenterCrop(4, 5, data_format=data_format)(x))
    module = check.both_ways(model, limit=1e-6).module
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize("given", [(None, None), (None, 9), (6, None)])
@pytest.mark.parametrize("size", [7, 8])
def test_open_sizes(check, given, size):
    x = keras.Input((*given, 3), name="image")
    y = layers.CenterCrop(5, 4, name="crop")(layers.Conv2D(3, 2, padding="same", name="a")(x))
    model = keras.Model(x, layers.Conv2D(2, 2, name="b")(y))
    module, again = check.both_ways(model, size=size)
    assert type(again.get_layer("crop")) is layers.CenterCrop and "permute" not in inspect.getsource(type(module))
    assert bridge.verify(model, module).passed


def test_the_helper():
    x = keras.Input((None, None, 3), name="image")
    module = bridge.to_torch(keras.Model(x, layers.CenterCrop(3, 4)(x)))
    image = torch.randn(2, 3, 6, 5)
    want = image[:, :, 1:4, 0:4]
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for other in (module, compiled, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(image), want)
    assert torch.equal(module.half()(image.half()), want.half())
    with pytest.raises(ValueError, match="an image of 2 x 5 is too small to be cropped"):
        module(image[:, :, :2])


def test_refusals():
    x = keras.Input((None, 3, 3), name="image")
    with pytest.raises(
        bridge.BridgeError, match=r"an image of \(None, 3\) is smaller than \(4, 4\); give the model an"
    ):
        bridge.to_torch(keras.Model(x, layers.CenterCrop(4, 4)(x)))
