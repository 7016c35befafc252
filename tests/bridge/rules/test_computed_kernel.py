"""Convolutions whose kernel is computed, both ways: weight standardisation above all."""

import inspect

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import bridge
from bridge import keras_reader, torch_reader

layers, ops = keras.layers, keras.ops
IMAGE = torch.randn(2, 6, 7, 5, generator=torch.Generator().manual_seed(0))
INPUTS = {1: IMAGE[:, :, 0], 2: IMAGE, 3: torch.randn(2, 6, 4, 5, 3, generator=torch.Generator().manual_seed(0))}


def kinds(n):
    """Three ways in which people write weight standardisation (Qiao et al., 2019, https://arxiv.org/abs/1903.10520)."""
    base, conv = getattr(nn, f"Conv{n}d"), getattr(F, f"conv{n}d")
    axes = tuple(range(1, n + 2))

    class Plain(base):
        def kernel(self):
            centered = self.weight - self.weight.mean(axes, keepdim=True)
            return centered / (self.weight.std(axes, keepdim=True) + 1e-5)

        def forward(self, x):
            return conv(x, self.kernel(), self.bias, self.stride, self.padding, self.dilation, self.groups)

    class Variance(Plain):  # of big transfer
        def kernel(self):
            variance, mean = self.weight.var(axes, keepdim=True, unbiased=False), self.weight.mean(axes, keepdim=True)
            return (self.weight - mean) * torch.rsqrt(variance + 1e-10)

    class Norm(Plain):  # of timm
        def kernel(self):
            rows = self.weight.reshape(1, self.out_channels, -1)
            return F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)

    class Gain(Norm):  # of timm, for networks without normalisation
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.gain = nn.Parameter(torch.empty(self.out_channels, *[1] * (n + 1)))

        def kernel(self):
            rows, gain = self.weight.reshape(1, self.out_channels, -1), (self.gain * 0.3).view(-1)
            return F.batch_norm(rows, None, None, gain, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)

    return {"plain": Plain, "variance": Variance, "norm": Norm, "gain": Gain}


KINDS = [(1, "gain"), (2, "plain"), (2, "variance"), (2, "norm"), (2, "gain"), (3, "norm")]
OPTIONS = (
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "dilation": 2, "bias": False},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 1, "groups": 2},
    {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2, "groups": 2},
)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    "n, kind", [(1, "plain"), (2, "plain"), (2, "variance"), (2, "norm"), (2, "gain"), (3, "norm")]
)
def test_standardised(check, n, kind, options):
    options = {k: 2 if (k, v) == ("kernel_size", 3) and n == 3 else v for k, v in options.items()}
    module = kinds(n)[kind](6, 4, **options)
    model = check.from_torch(module, INPUTS[n])
    if n > 1:  # what has three axes stays in their order at the boundary
        assert not {type(x).__name__ for x in model.operations if None in x.output.shape} & {"Permute", "Transpose"}
    assert sum(p.numel() for p in module.parameters()) == sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def test_it_depends_on_the_standardisation(check):
    """The seeded fault: without it the values are others."""
    module = kinds(2)["plain"](6, 4, 3)
    model = check.from_torch(module, IMAGE)
    plain = nn.Conv2d(6, 4, 3).double()
    plain.load_state_dict(module.state_dict())
    report = bridge.verify(model, plain)
    assert not report.passed and not np.allclose(
        model(check.to_last(IMAGE.double().numpy())), check.to_last(plain(IMAGE.double()).detach().numpy())
    )


@pytest.mark.parametrize("kind", ["plain", "variance", "norm", "gain"])
def test_a_network_of_them(check, kind):
    """Proved as a whole, ten steps of training included, and no permutation anywhere."""
    make = kinds(2)[kind]
    module = nn.Sequential(make(6, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), make(8, 4, 3, 2, bias=False))
    model = check.from_torch(module, IMAGE)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    again = bridge.to_torch(model)
    assert bridge.verify(model, again).passed and "permute" not in inspect.getsource(type(again))


@pytest.mark.parametrize(
    "make",
    [
        lambda: weight_norm(nn.Conv2d(6, 4, 3, padding=1)),
        lambda: weight_norm(nn.Conv2d(6, 4, 3), dim=1),
        lambda: weight_norm(nn.Conv2d(6, 4, 3), dim=None),
        lambda: weight_norm(nn.Conv1d(6, 4, 3, dilation=2)),
        lambda: weight_norm(nn.Conv3d(6, 4, 2)),
        lambda: weight_norm(nn.Linear(5, 4)),
        lambda: weight_norm(nn.Linear(5, 4, bias=False), dim=None),
    ],
)
def test_weight_norm(check, make):
    """Salimans and Kingma, 2016, https://arxiv.org/abs/1602.07868."""
    layer = make()
    module = nn.Sequential(layer, nn.Tanh())
    n = next((n for n in (1, 3) if f"{n}d" in type(layer).__name__), 2)
    model = check.from_torch(module, INPUTS[n])
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def standardised(x, filters, groups=1, **options):
    """A convolution as somebody who writes Keras functions would standardise it."""
    total = ops.reshape(ops.ones_like(ops.sum(x)), (1, 1))
    shape = (3, 3, x.shape[-1] // groups, filters)
    kernel = ops.squeeze(layers.EinsumDense("ab,cdef->acdef", output_shape=shape)(total), 0)
    mean, variance = ops.mean(kernel, (0, 1, 2), keepdims=True), ops.var(kernel, (0, 1, 2), keepdims=True)
    return ops.conv(x, (kernel - mean) / ops.sqrt(variance + 1e-5), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same"},
        {"strides": 2, "padding": "same"},
        {"strides": (2, 1)},
        {"dilation_rate": 2, "padding": "same"},
        {"dilation_rate": (1, 2)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(7, 6), (None, None)])
def test_of_keras(check, options, size):
    if None in size and options.get("strides") and options.get("padding") == "same":
        x = keras.Input((*size, 3), name="x")
        with pytest.raises(bridge.BridgeError, match="padding='same' at a size that is open; fix the size"):
            bridge.to_torch(keras.Model(x, standardised(x, 4, **options)))
        return
    x = keras.Input((*size, 3), name="x")
    model = keras.Model(x, layers.ReLU()(standardised(x, 4, **options)))
    module = check.both_ways(model, same_layers=False).module
    assert bridge.verify(model, module).passed
    assert "permute" not in inspect.getsource(type(module)) and "F.conv2d(" in inspect.getsource(type(module))


class Own(layers.Layer):
    """A layer that convolves with a weight of its own."""

    def __init__(self, function):
        super().__init__(name="own")
        self.function = function

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 2, shape[-1], 4), name="kernel")

    def call(self, x):
        return self.function(x, self.kernel)


@pytest.mark.parametrize(
    ("function", "held"),
    [
        (lambda x, k: ops.conv(x, k, strides=2, padding="same"), 1),
        (lambda x, k: ops.conv(x, ops.cast(k, "float32"), dilation_rate=(1, 2), data_format="channels_last"), 1),
        (lambda x, k: ops.conv(x, k, strides=(2, 1)) + ops.conv(x, k, strides=(3, 1), padding="same")[:, :, 1:], 2),
        (lambda x, k: ops.conv(x, k) * ops.mean(k), 0),
    ],
    ids=["one", "cast", "two", "also a number"],
)
def test_a_weight_as_it_is_is_held(check, function, held):
    """It is that of an nn.Conv2d, unless it is computed with, too; both sides read the same."""
    x = keras.Input((6, 7, 3), name="x")
    model = check.randomise(keras.Model(x, Own(function)(x)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert sum(type(m) is nn.Conv2d for m in module.modules()) == held
    assert len(list(module.parameters())) == 1


def test_a_weight_of_a_mixed_policy_is_held(check):
    """It is converted on the way to each."""
    x = keras.Input((6, 7, 3), name="x")
    layer = Own(ops.conv)
    layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    model = check.randomise(keras.Model(x, layer(x)))
    made = keras_reader.read(model)
    assert [n.operator for n in made.nodes] == ["cast", "convolution"]
    assert [n.operator for n in torch_reader.read(bridge.to_torch(model), (torch.randn(2, 3, 6, 7),)).nodes] == [
        "cast",
        "convolution",
    ]


@pytest.mark.parametrize(
    "options", [{"mode": "log"}, {"mode": "angle", "padding": "same"}, {"mode": "stft", "expand_dims": True}], ids=str
)
def test_spectrogram(check, options):
    """keras.layers.STFTSpectrogram convolves with weights of its own."""
    x = keras.Input((61, 2), name="x")
    layer = layers.STFTSpectrogram(frame_length=16, frame_step=7, fft_length=16, name="s", **options)
    model = check.randomise(keras.Model(x, layer(x)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert sum(type(m) is nn.Conv1d for m in module.modules()) == 2


@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "same"}])
def test_a_constant_kernel_is_a_frozen_one(options):
    x = keras.Input((7, 6, 3), name="x", dtype="float64")
    model = keras.Model(x, ops.conv(x, np.random.default_rng(0).normal(size=(3, 2, 3, 4)), **options))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    (kernel,) = module.parameters()
    assert kernel.shape == (4, 3, 3, 2) and not kernel.requires_grad
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 7, 6).double(),)), module).passed


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: weight_norm(nn.Conv2d(64, 64, 3, groups=64)), "it has 64 groups, and keras.ops.conv has none"),
    ],
)  # fmt: skip
def test_refusals_from_torch(make, text):
    layer = make()
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(nn.Sequential(layer).eval(), (torch.randn(2, layer.in_channels, 5, 5),))
    assert text in str(e.value) and len(e.value.obstacles) == 1
