"""Transposed convolution over the product of its options, both ways."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import convert, keras_reader
from bridge.rules import transposed_convolution as rule

layers = keras.layers
CONFIG = ("kernel_size", "strides", "padding", "output_padding", "dilation_rate", "use_bias", "activation")


def from_torch(check, module, *shape, dtype="float64", limit=1e-12):
    """Carry a module to Keras and back to torch, and compare all three; return the Keras layers that have a name."""
    torch.manual_seed(0)
    module = module.to(getattr(torch, dtype)).eval()
    x = torch.randn(2, *shape, dtype=getattr(torch, dtype))
    model = check.to_keras(module, (x,))
    want = module(x).detach().numpy()
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < limit
    again = bridge.to_torch(model)
    assert check.relative(again(x).detach().numpy(), want) < limit
    check.same_graph(model, again, (x,))
    return model


@pytest.mark.parametrize(
    "kernel, stride, extra", [(k, s, p) for k in range(1, 6) for s in range(1, 5) for p in (None, *range(s))]
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_crops_are_what_tensorflow_cuts(padding, kernel, stride, extra):
    extra = None if extra is None else (extra,)
    if padding == "same" and kernel % 2 == 0 and extra == (0,):
        extra = None  # TensorFlow itself refuses it
    layer = layers.Conv1DTranspose(2, kernel, stride, padding, output_padding=extra, dtype="float64")
    x = np.random.default_rng(0).normal(size=(1, 3, 2))
    have = np.asarray(layer(x))[0]
    full = np.zeros((2 * stride + kernel + 8, 2))  # room for what is added after
    for i in range(3):
        full[i * stride : i * stride + kernel] += np.asarray(layer.kernel) @ x[0, i]
    ((before, after),) = rule.keras_crops(padding, extra, (kernel,), (stride,))
    np.testing.assert_allclose(have, full[before : 2 * stride + kernel - after], atol=1e-12)


@pytest.mark.parametrize(
    "kernel, stride, extra",
    [
        (3, 1, None),
        (2, 2, None),
        (3, 2, None),
        (4, 2, None),
        (5, 3, None),
        (1, 2, None),
        (5, 4, 2),
        (4, 3, 1),
        (2, 4, 3),
    ],
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_options(check, padding, kernel, stride, extra):
    x = keras.Input((5, None, 3), name="image")
    layer = layers.Conv2DTranspose(4, kernel, stride, padding, output_padding=extra, use_bias=stride < 3, name="up")
    model = keras.Model(x, layer(x))
    module, again = check.both_ways(model, size=4)
    check.same_graph(model, module, (torch.randn(2, 3, 5, 4),), [{0, 3}])
    if (kernel, extra) not in [(1, None), (2, None), (2, 3)]:  # there "same" is "valid"
        have, want = ({k: v.get_config()[k] for k in CONFIG} for v in (again.get_layer("up"), layer))
        assert have == want


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rank, kernel, stride", [(1, 4, 2), (1, 3, 2), (3, 2, 2), (3, (3, 2, 4), (2, 1, 3))])
def test_ranks(check, rank, kernel, stride, padding):
    x = keras.Input((*[3] * (rank - 1), 4, 3), name="image")
    layer = getattr(layers, f"Conv{rank}DTranspose")
    check.both_ways(keras.Model(x, layer(2, kernel, stride, padding, name="up")(x)))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rank, kernel", [(1, 3), (2, 4), (2, (2, 3)), (3, 2)])
def test_dilation(check, rank, kernel, padding):
    """TensorFlow has no float64 kernel for it on the CPU."""
    x = keras.Input((*[5] * (rank - 1), 4, 3), name="image")
    layer = getattr(layers, f"Conv{rank}DTranspose")(2, kernel, dilation_rate=2, padding=padding, name="up")
    model = check.randomise(keras.Model(x, layer(x)))
    array = np.random.default_rng(0).normal(size=(2, *x.shape[1:])).astype("float32")
    module = bridge.to_torch(model)
    tensor = torch.from_numpy(check.to_first(array))
    want = np.asarray(model(array))
    assert check.relative(check.to_last(module(tensor).detach().numpy()), want) < 2e-6
    again = bridge.to_keras(module, (tensor,))
    np.testing.assert_array_equal(np.asarray(again(array)), want)
    assert again.get_layer("up").get_config()["dilation_rate"] == layer.dilation_rate
    assert again.get_layer("up").padding == padding
    check.same_graph(model, module, (tensor,))


def test_unet_is_idiomatic(check):
    """The up-convolution of the U-Net is one plain module, its activation fused again on the way back."""
    x = keras.Input((6, None, 8), name="image")
    layer = layers.Conv2DTranspose(4, 2, strides=2, padding="same", activation="relu", name="up")
    model = keras.Model(x, layer(x))
    assert "self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)\n" in convert.source(model).text
    module, again = check.both_ways(model)
    assert type(module.up) is nn.ConvTranspose2d
    assert [type(v) for v in again.layers] == [layers.InputLayer, layers.Conv2DTranspose]
    assert again.layers[1].padding == "valid"
    assert again.layers[1].activation is keras.activations.relu


def test_odd_pixel_is_cropped(check):
    x = keras.Input((None, None, 2), name="image")
    text = convert.source(keras.Model(x, layers.Conv2DTranspose(2, 5, 2, "same", name="up")(x))).text
    assert "nn.ConvTranspose2d(2, 2, 5, stride=2, padding=1)" in text
    assert "F.pad(self.up(image), (0, -1, 0, -1))" in text


@pytest.mark.parametrize("cropping", [((1, 1), (1, 1)), ((0, 1), (2, 0)), ((3, 3), (0, 0))])
@pytest.mark.parametrize("stride, extra", [(2, None), (3, 2)])
def test_crop_that_follows(check, cropping, stride, extra):
    x = keras.Input((5, 4, 3), name="image")
    y = layers.Conv2DTranspose(2, 4, stride, output_padding=extra, name="up")(x)
    model = keras.Model(x, layers.Cropping2D(cropping)(y))
    assert [n.operator for n in keras_reader.read(model).nodes] == ["transposed_convolution"]
    module = check.both_ways(model).module
    check.same_graph(model, module, (torch.randn(2, 3, 5, 4),))


def test_crop_of_an_output_that_others_read(check):
    x = keras.Input((5, 4, 3), name="image")
    y = layers.Conv2DTranspose(2, 3, 2, name="up")(x)
    check.both_ways(keras.Model(x, [y, layers.Cropping2D(1)(y)]))


@pytest.mark.parametrize("dtype, limit", [("float64", 1e-12), ("float32", 2e-6)])
@pytest.mark.parametrize(
    "kernel, stride, padding, extra",
    [
        (3, 2, 1, 1),
        (3, 2, 1, 0),
        (4, 2, 1, 0),
        (2, 2, 0, 0),
        (2, 2, 1, 0),
        (3, 1, 1, 0),
        (3, 3, 0, 2),
        (2, 3, 0, 0),
        (5, 2, 4, 0),
        ((2, 4), (2, 1), (0, 2), (1, 0)),
    ],
)
def test_from_torch(check, kernel, stride, padding, extra, dtype, limit):
    module = nn.ConvTranspose2d(3, 4, kernel, stride, padding, extra, bias=stride != 3)
    from_torch(check, module, 3, 5, 4, dtype=dtype, limit=limit)


@pytest.mark.parametrize("rank", [1, 3])
def test_from_torch_ranks(check, rank):
    module = getattr(nn, f"ConvTranspose{rank}d")(3, 2, 3, stride=2, padding=1, output_padding=1)
    model = from_torch(check, module, 3, *[4, 3, 5][:rank])
    assert any(isinstance(v, getattr(layers, f"Conv{rank}DTranspose")) for v in model.layers)


def test_from_torch_dilated(check):
    model = from_torch(check, nn.ConvTranspose2d(3, 4, 3, padding=2, dilation=2), 3, 5, 4, dtype="float32", limit=2e-6)
    assert model.layers[1].padding == "same"


@pytest.mark.parametrize(
    "rank, groups, filters, options",
    [
        (1, 2, 6, {"stride": 2, "padding": 1, "output_padding": 1}),
        (2, 4, 8, {"stride": 2, "padding": 1, "bias": False}),
        (2, 2, 2, {"stride": 3, "output_padding": (2, 0)}),
        (3, 2, 4, {"stride": (1, 2, 1)}),
    ],
)
def test_groups(check, rank, groups, filters, options):
    """Keras has none: each group is a layer of its own, with its part of the weights."""
    module = nn.Sequential()
    module.add_module("up", getattr(nn, f"ConvTranspose{rank}d")(4, filters, 3, groups=groups, **options))
    model = from_torch(check, module, 4, *[4, 3, 5][:rank])
    names = [v.name for v in model.layers if v.weights]
    assert sorted(names) == [f"up_group{i}" for i in range(groups)]
    parts = [np.asarray(model.get_layer(f"up_group{i}").kernel) for i in range(groups)]  # (..., O / g, I / g)
    want = np.moveaxis(module.up.weight.detach().numpy(), (1, 0), (-2, -1))
    np.testing.assert_array_equal(np.concatenate(parts, -1), want)
    assert isinstance(model.get_layer("up"), layers.Concatenate)


@pytest.mark.parametrize("frozen", [False, True])
def test_groups_are_verified(frozen):
    """Not a weight more is trained: a kernel with zeros between the groups would be another model in training."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=3).requires_grad_(not frozen), nn.ReLU()).eval()
    model = bridge.to_keras(module, (torch.randn(2, 6, 4, 5),))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert len(report.gradients) == (0 if frozen else 6)
    assert model.count_params() == sum(p.numel() for p in module.parameters())
    assert bridge.verify(model, bridge.to_torch(model)).passed
    other = nn.Sequential(nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=3), nn.ReLU()).eval()
    assert not bridge.verify(model, other).passed


def test_groups_that_another_operator_shares_are_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 4, 3, groups=2)
            self.up.weight = self.down.weight

        def forward(self, x):
            return self.up(self.down(x))

    with pytest.raises(
        bridge.BridgeError, match="down.weight .*shared by operators that have other parts of it; untie"
    ):
        bridge.to_keras(Tied(), (torch.randn(2, 4, 5, 5),))


@pytest.mark.parametrize(
    "module, text",
    [
        (nn.ConvTranspose2d(4, 4, 3, stride=2, dilation=2), r"0 \(.*\): strides \(2, 2\) with dilation \(2, 2\)"),
        (
            nn.ConvTranspose2d(4, 4, 3, output_padding=1, dilation=2),
            r"output_padding \(1, 1\) with stride \(1, 1\); Keras wants less",
        ),
    ],
)
def test_refused(module, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(nn.Sequential(module), (torch.randn(2, 4, 5, 5),))


def test_no_batch_is_refused():
    with pytest.raises(bridge.BridgeError, match="has no batch; give it a batch"):
        bridge.to_keras(nn.ConvTranspose2d(4, 2, 3), (torch.randn(4, 5, 5),), [set()])


def test_channels_first(check):
    """Keras' channels-first layers are read; TensorFlow cannot run them on the CPU."""
    x = keras.Input((5, 4, 3), name="image")
    options = {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu", "name": "up"}
    want = check.randomise(keras.Model(x, layers.Conv2DTranspose(**options)(x)))
    y = layers.Conv2DTranspose(data_format="channels_first", **options)(layers.Permute((3, 1, 2))(x))
    model = keras.Model(x, layers.Permute((2, 3, 1))(y))
    model.set_weights(want.get_weights())
    tensor = torch.randn(2, 3, 5, 4)
    with torch.no_grad():
        np.testing.assert_array_equal(bridge.to_torch(model)(tensor), bridge.to_torch(want)(tensor))


def test_generated_source_is_clean(tmp_path):
    x = keras.Input((5, 4, 3), name="image")
    (tmp_path / "model.py").write_text(convert.source(keras.Model(x, layers.Conv2DTranspose(2, 3, 2, "same")(x))).text)
    command = [sys.executable, "-m", "ruff", "check", "--isolated", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
