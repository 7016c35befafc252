"""Group and instance normalisation, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import convert

layers = keras.layers


def model_of(shape, **options):
    x = keras.Input(shape, name="x")
    return keras.Model(x, layers.GroupNormalization(name="n", **options)(x), name="net")


@pytest.mark.parametrize(
    "shape, groups, axis, want",
    [
        ((6,), 2, -1, "nn.GroupNorm(2, 6, eps=0.001)"),
        ((5, 6), 3, -1, "nn.GroupNorm(3, 6, eps=0.001)"),
        ((6, 5), 2, 1, "nn.GroupNorm(2, 6, eps=0.001)"),
        ((5, 6), -1, -1, "nn.InstanceNorm1d(6, eps=0.001, affine=True)"),
        ((4, 5, 6), 2, -1, "nn.GroupNorm(2, 6, eps=0.001)"),
        ((4, 5, 6), 1, -1, "nn.GroupNorm(1, 6, eps=0.001)"),
        ((4, 5, 6), 6, -1, "nn.InstanceNorm2d(6, eps=0.001, affine=True)"),
        ((4, 5, 6), -1, -1, "nn.InstanceNorm2d(6, eps=0.001, affine=True)"),
        ((4, 6, 5), 3, -2, "nn.GroupNorm(3, 6, eps=0.001)"),
        ((6, 4, 5), 3, 1, "nn.GroupNorm(3, 6, eps=0.001)"),
        ((6, 4, 5), -1, 1, "nn.InstanceNorm2d(6, eps=0.001, affine=True)"),
        ((None, None, 6), 2, -1, "nn.GroupNorm(2, 6, eps=0.001)"),
        ((None, None, 6), -1, -1, "nn.InstanceNorm2d(6, eps=0.001, affine=True)"),
        ((3, 4, 5, 6), 2, -1, "nn.GroupNorm(2, 6, eps=0.001)"),
        ((3, 4, 5, 6), -1, -1, "nn.InstanceNorm3d(6, eps=0.001, affine=True)"),
    ],
)
def test_groups(check, shape, groups, axis, want):
    model = model_of(shape, groups=groups, axis=axis)
    module, again = check.both_ways(model)
    assert f"self.n = {want}\n" in convert.source(model).text
    layer = again.get_layer("n")
    assert layer.axis == -1 and layer.groups == (6 if groups == -1 else groups)  # other axes are permuted
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_options(check, groups, scale, center):
    module, again = check.both_ways(model_of((4, 5, 6), groups=groups, scale=scale, center=center, epsilon=0.3))
    layer, norm = again.get_layer("n"), module.n
    assert (layer.scale, layer.center, layer.epsilon, layer.groups) == (scale, center, 0.3, groups)
    assert (norm.weight is not None, norm.bias is not None, norm.eps) == (scale, center, 0.3)
    kind = "UnscaledGroupNorm" if center and not scale else "GroupNorm"
    assert type(norm).__name__ == (kind if groups == 2 else "InstanceNorm2d")


def test_between_convolutions_nothing_is_permuted(check):
    x = keras.Input((9, 7, 3), name="x")
    y = layers.GroupNormalization(2, name="g")(layers.Conv2D(4, 3, name="c")(x))
    y = layers.GroupNormalization(-1, name="i")(layers.Conv2D(6, 3, name="d")(layers.ReLU(name="r")(y)))
    model = keras.Model(x, layers.Conv2D(2, 1, name="e")(layers.ReLU(name="s")(y)), name="net")
    module, again = check.both_ways(model)
    assert "permute" not in inspect.getsource(type(module))
    assert [type(a) for a in again.layers] == [type(a) for a in model.layers]
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "make, shape, groups",
    [
        (lambda: nn.GroupNorm(2, 6), (2, 6), 2),
        (lambda: nn.GroupNorm(2, 6, affine=False), (2, 6, 5), 2),
        (lambda: nn.GroupNorm(3, 6, eps=0.1), (2, 6, 5, 4), 3),
        (lambda: nn.GroupNorm(3, 6, bias=False), (2, 6, 5, 4), 3),
        (lambda: nn.GroupNorm(6, 6), (2, 6, 5, 4), 6),
        (lambda: nn.GroupNorm(1, 6), (2, 6, 3, 5, 4), 1),
        (lambda: nn.InstanceNorm1d(6), (2, 6, 5), 6),
        (lambda: nn.InstanceNorm2d(6), (2, 6, 5, 4), 6),
        (lambda: nn.InstanceNorm2d(6, affine=True, eps=0.1), (2, 6, 5, 4), 6),
        (lambda: nn.InstanceNorm2d(6, affine=True, bias=False), (2, 6, 5, 4), 6),
        (lambda: nn.InstanceNorm3d(6, affine=True), (2, 6, 3, 5, 4), 6),
    ],
)
def test_modules(check, make, shape, groups):
    module = nn.Sequential(make())
    model = check.from_torch(module, torch.randn(shape))
    layer, norm = model.get_layer("0"), module[0]
    assert (layer.groups, layer.epsilon, layer.axis) == (groups, norm.eps, -1)
    assert (layer.scale, layer.center) == (norm.weight is not None, norm.bias is not None)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_frozen(check):
    model = model_of((4, 5, 6), groups=2)
    model.get_layer("n").trainable = False
    module, again = check.both_ways(model)
    assert not any(p.requires_grad for p in module.parameters()) and not again.trainable_weights


@pytest.mark.parametrize("groups", [2, -1])
def test_half_precision_is_computed_in_float32(groups):
    """1000 squared is more than float16 holds."""
    module = bridge.to_torch(model_of((3, 4, 6), groups=groups)).half()
    x = np.linspace(-1000, 1000, 144).reshape(2, 3, 4, 6).astype("float16")
    have = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).detach().numpy()
    want = np.asarray(layers.GroupNormalization(groups, dtype="float16")(x))
    np.testing.assert_allclose(np.moveaxis(have, 1, -1), want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "shape, options, text",
    [
        ((4, 6), {"axis": 0}, "n (GroupNormalization): axis=0 is the batch; normalise another axis"),
        ((6,), {"groups": 6}, "n (group_norm): groups=6 of 6 channels and one position: it normalises single numbers"),
        ((1, 1, 6), {"groups": -1}, "which makes 0 of them; give fewer groups, or larger images"),
    ],
)
def test_refusals_from_keras(shape, options, text):
    x = keras.Input(batch_shape=(2, *shape), name="x")
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, layers.GroupNormalization(**{"groups": 2, "name": "n"} | options)(x)))
    assert text in str(e.value)


def test_running_statistics_are_refused():
    """In eval mode it is a frozen batch normalisation, in training it is none."""
    module = nn.Sequential(nn.InstanceNorm2d(4, track_running_stats=True))
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(module, (torch.randn(2, 4, 5, 5),))
    assert "0 (InstanceNorm2d): track_running_stats=True: it uses running statistics at inference and" in str(e.value)
    assert "own in training; set track_running_stats=False, or use BatchNorm" in str(e.value)


def test_a_bias_alone_trains(check):
    x = keras.Input((6, 7, 8), name="x")
    model = check.randomise(keras.Model(x, layers.GroupNormalization(2, scale=False)(layers.Conv2D(8, 1)(x))))
    module = bridge.to_torch(model)
    module(torch.randn(2, 8, 6, 7)).sum().backward()
    assert bridge.verify(model, module).passed
