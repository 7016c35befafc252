"""Padding and cropping, both ways, and how convolutions take padding in."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize("kind", ["ZeroPadding", "Cropping"])
@pytest.mark.parametrize("rank, amount", [(1, (1, 2)), (2, ((1, 2), (0, 3))), (2, 1), (3, ((1, 0), (0, 2), (2, 1)))])
def test_layers(check, kind, rank, amount):
    x = keras.Input((*(6, 7, 8)[:rank], 3), name="x")
    layer = getattr(layers, f"{kind}{rank}D")(amount, name="p")
    _, again = check.both_ways(keras.Model(x, layer(x)), size=9)
    have, want = again.layers[-1].get_config(), layer.get_config()
    key = "padding" if kind == "ZeroPadding" else "cropping"
    assert type(again.layers[-1]) is type(layer)
    assert np.array_equal(have[key], want[key])


def test_channels_first(check):
    x = keras.Input((3, 6, 7), name="x")
    check.both_ways(keras.Model(x, layers.ZeroPadding2D(((1, 2), (0, 3)), data_format="channels_first")(x)))
    layer = layers.Cropping2D(((1, 2), (0, 3)), data_format="channels_first")
    image = np.random.default_rng(0).normal(size=(2, 3, 6, 7))
    have = bridge.to_torch(keras.Model(x, layer(x)))(torch.from_numpy(check.to_first(image)))
    np.testing.assert_array_equal(check.to_last(have.numpy()), image[:, :, 1:-2, :-3])


@pytest.mark.parametrize(
    "pads, value",
    [
        (((0, 0), (1, 2), (0, 3), (0, 0)), 0.0),
        (((0, 0), (1, 2), (0, 3), (2, 1)), 0.0),
        (((0, 0), (1, 2), (0, 3), (0, 0)), -1.5),
    ],
)
def test_functions(check, pads, value):
    x = keras.Input((6, 7, 3), name="x")
    check.both_ways(keras.Model(x, ops.pad(x, pads, constant_values=value) if value else ops.pad(x, pads)))


@pytest.mark.parametrize(
    "shape, nothing",
    [
        ((7, 3), layers.ZeroPadding1D(0)),
        ((6, 7, 3), layers.ZeroPadding2D(0)),
        ((7, 3), layers.Cropping1D(0)),
        ((6, 7, 3), layers.Cropping2D(0)),
        ((6, 7, 3), lambda x: ops.pad(x, [(0, 0)] * 4, constant_values=2.0)),
    ],
)
def test_nothing(check, shape, nothing):
    x = keras.Input(shape, name="x")
    model = keras.Model(x, layers.ReLU()(nothing(layers.LeakyReLU(0.1)(x))))
    module, again = check.both_ways(model)
    check.same_graph(model, module, (torch.randn(2, *shape).movedim(-1, 1 if len(shape) > 2 else -1),))
    assert [type(layer) for layer in again.layers[1:]] == [layers.LeakyReLU, layers.ReLU]


@pytest.mark.parametrize("pad", [(0, 0), (0, 0, 0, 0), (0,) * 8])
def test_nothing_from_torch(check, pad):
    class Module(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.pad(x, pad, value=2.0).relu() + x

    x = torch.randn(2, 3, 6, 7)
    model = bridge.to_keras(Module(), (x,))
    np.testing.assert_array_equal(check.to_first(np.asarray(model(check.to_last(x.numpy())))), Module()(x))
    check.same_graph(model, Module(), (x,))


def test_open_sizes(check):
    x = keras.Input((None, None, 3), name="x")
    y = layers.ZeroPadding2D(((1, 2), (0, 3)))(x)
    check.both_ways(keras.Model(x, layers.Cropping2D(((0, 1), (2, 1)))(layers.ReLU()(y))))


def test_convolutions_take_padding_in(check):
    """Caffe's and torchvision's padding is the convolution's own in torch, and asymmetric padding stays beside it."""
    x = keras.Input((9, 8, 3), name="x")
    y = layers.Conv2D(4, 7, strides=2, name="a")(layers.ZeroPadding2D(3)(x))
    y = layers.Conv2D(4, 3, padding="same", name="b")(layers.ZeroPadding2D(((1, 0), (0, 1)))(y))
    module, _ = check.both_ways(keras.Model(x, y))
    assert module.a.padding == (3, 3) and inspect.getsource(type(module)).count("F.pad") == 1


def test_padding_that_others_read_stays(check):
    x = keras.Input((9, 8, 3), name="x")
    y = layers.ZeroPadding2D(1, name="p")(x)
    module, _ = check.both_ways(keras.Model(x, [layers.Conv2D(4, 3, name="a")(y), y]))
    assert module.a.padding == (0, 0)


@pytest.mark.parametrize(
    "pad, options",
    [
        ((1, 2), {}),
        ((1, 2, 3, 0), {}),
        ((1, 2, 3, 0), {"value": 2.0}),
        ((-1, 2, 3, -2), {}),
        ((0, 1, 0, 0, 2, 1), {}),
        ((-1, -1, -2, 0), {}),
    ],
)
def test_from_torch_and_back(check, pad, options):
    class Module(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.pad(x, pad, **options)

    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    want = Module()(x).numpy()
    model = bridge.to_keras(Module(), (x,))
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-12
    assert check.relative(bridge.to_torch(model)(x).numpy(), want) < 1e-12


@pytest.mark.parametrize(
    "module", [torch.nn.ZeroPad2d((1, 2, 0, 3)), torch.nn.ConstantPad1d((2, 1), 0.5), torch.nn.ZeroPad3d(1)]
)
def test_modules(check, module):
    x = torch.randn((2, 3, 4, 5, 6)[: {"ConstantPad1d": 3, "ZeroPad3d": 5}.get(type(module).__name__, 4)])
    want = module(x).numpy()
    model = bridge.to_keras(torch.nn.Sequential(module), (x,))
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-6


def test_refusals():
    x = keras.Input((6, 7, 3), name="x")
    with pytest.raises(bridge.BridgeError, match="padding mode 'reflect'; pad with a constant"):
        bridge.to_torch(keras.Model(x, ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")))
    with pytest.raises(bridge.BridgeError, match="padding mode 'circular'; pad with a constant"):
        bridge.to_keras(
            torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")),
            (torch.randn(2, 3, 5, 5),),
        )
    with pytest.raises(bridge.BridgeError, match=r"negative padding .* of the batch or the channels; slice the tensor"):
        bridge.to_keras(
            type(
                "M", (torch.nn.Module,), {"forward": lambda self, x: torch.nn.functional.pad(x, (-1, 0, -1, 0, -1, 0))}
            )(),
            (torch.randn(2, 3, 5, 5),),
        )


def test_a_crop_between_convolutions_permutes_nothing(check):
    x = image = keras.Input((9, 8, 3), name="image")
    x = layers.Cropping2D(((1, 0), (0, 2)))(layers.Conv2D(4, 3, activation="relu")(x))
    module, again = check.both_ways(keras.Model(image, layers.Conv2D(2, 2)(x)))
    assert "permute" not in inspect.getsource(type(module))
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)


def test_a_crop_of_axes_in_another_order(check):
    x = image = keras.Input((9, 8, 3), name="image")
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3, activation="relu")(x))
    x = layers.Cropping2D(((1, 0), (0, 2)))(x)
    check.both_ways(keras.Model(image, x), limit=1e-7)
