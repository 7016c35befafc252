"""Convolution over the product of its options, both ways."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import convert, keras_reader

layers = keras.layers


@pytest.mark.parametrize("size", [8, 9, None])
@pytest.mark.parametrize(
    "stride, dilation, groups, kernel", [(1, 1, 1, 3), (2, 1, 1, 3), (3, 1, 2, 4), (1, 2, 1, 2), (2, 1, 1, 1)]
)
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_options(check, rank, padding, stride, dilation, groups, kernel, size):
    x = keras.Input((*[size] * (rank - 1), size and size + 2, 4), name="image")
    layer = getattr(layers, f"Conv{rank}D")(
        6,
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        groups=groups,
        use_bias=stride != 3,
        name="c",
    )
    model = keras.Model(x, layer(x))
    _, again = check.both_ways(model, size=9)
    if stride == 1 or size is None or padding == "valid":
        assert {
            k: v
            for k, v in again.get_layer("c").get_config().items()
            if k in ("strides", "padding", "dilation_rate", "groups")
        } == {k: v for k, v in layer.get_config().items() if k in ("strides", "padding", "dilation_rate", "groups")}


@pytest.mark.parametrize(
    "rank, kernel, strides, dilation, padding, groups",
    [
        (1, 3, 2, 3, 2, 1),
        (2, 3, 2, 2, 2, 2),
        (2, (2, 3), (1, 3), (2, 1), (0, 1), 1),
        (2, 4, (3, 2), (1, 2), "valid", 1),
        (3, 2, 2, (2, 1, 3), (1, 0, 2), 1),
        (3, (1, 2, 2), (1, 2, 1), 2, 0, 4),
    ],
)
def test_strides_with_dilation(check, rank, kernel, strides, dilation, padding, groups):
    """Keras has one or the other in a layer: what the strides leave out is sliced off, and is the same node."""
    options = {"padding": padding, "dilation": dilation, "groups": groups}
    module = nn.Sequential(getattr(nn, f"Conv{rank}d")(4, 8, kernel, strides, **options), nn.Tanh())
    model = check.from_torch(module, torch.randn(2, 4, *[9, 8, 10][:rank]))
    layer = model.get_layer("0")
    assert set(layer.strides) == {1} and layer.activation is keras.activations.linear
    again = bridge.to_torch(model)
    ours, theirs = (next(m for m in part.modules() if isinstance(m, type(module[0]))) for part in (module, again))
    assert (ours.stride, ours.dilation, ours.groups) == (theirs.stride, theirs.dilation, theirs.groups)
    assert [n.operator for n in keras_reader.read(model).nodes if n.operator != "permute"] == [
        "convolution",
        "activation",
    ]


def test_strides_with_dilation_are_verified():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 2, 2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=2, dilation=2)).eval()
    x = torch.randn(2, 3, 9, 10)
    model = bridge.to_keras(module, (x,), [{0, 2, 3}])
    assert bridge.verify(model, module).passed
    assert bridge.verify(model, bridge.to_torch(model)).passed
    x[0, 0, 0, 0] = torch.nan
    want = np.isnan(module(x).detach().numpy())
    np.testing.assert_array_equal(
        np.isnan(np.asarray(model(x.permute(0, 2, 3, 1).numpy()))), want.transpose(0, 2, 3, 1)
    )


def test_slices_that_are_no_strides(check):
    """They begin or end elsewhere, are of the channels, or of an output that others read."""
    x = keras.Input((9, 8, 3), name="image")
    convolve = [layers.Conv2D(4, 2, dilation_rate=2, name=f"c{i}") for i in range(4)]
    y = [c(x) for c in convolve]
    outputs = [y[0][:, 1::2], y[1][:, :5:2], y[2][..., ::2], y[3], y[3][:, ::2]]
    model = keras.Model(x, outputs)
    module = check.both_ways(model).module
    assert all(module.get_submodule(f"c{i}").stride == (1, 1) for i in range(4))
    check.same_graph(model, module, (torch.randn(2, 3, 9, 8),))


def test_slices_that_are_strides(check):
    x = keras.Input((None, 8, 3), name="image")
    y = layers.Conv2D(4, 3, dilation_rate=2, padding="same", name="c")(x)
    model = keras.Model(x, layers.ReLU()(y[:, ::2, ::3]))
    assert "self.c = nn.Conv2d(3, 4, 3, stride=(2, 3), padding=2, dilation=2)\n" in convert.source(model).text
    check.both_ways(model, size=9)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("rank, stride, groups", [(1, 1, 1), (2, 2, 2), (3, 1, 1)])
def test_padding_modes_of_torch(check, rank, stride, groups, mode):
    module = nn.Sequential()
    options = {"groups": groups, "padding_mode": mode}
    module.add_module("c", getattr(nn, f"Conv{rank}d")(4, 6, 3, stride, 2, **options))
    model = check.from_torch(module, torch.randn(2, 4, *[5, 4, 6][:rank]))
    assert type(model.get_layer("c")) is getattr(layers, f"Conv{rank}D")


def test_no_batch_is_refused():
    with pytest.raises(bridge.BridgeError, match="has no batch; give it a batch"):
        bridge.to_keras(nn.Conv2d(4, 2, 3), (torch.randn(4, 5, 5),), [set()])
