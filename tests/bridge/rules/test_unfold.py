"""Patches of images, taken and put together, both ways."""

import keras
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize(
    "size, strides, dilation, padding",
    [(3, 1, 1, "same"), (2, None, 1, "valid"), ((2, 3), 2, 1, "same"), (3, 1, 2, "valid"), (2, 1, 2, "same")],
    ids=str,
)
def test_patches(check, size, strides, dilation, padding):
    x = keras.Input((7, 8, 3), name="image")
    y = ops.image.extract_patches(x, size, strides=strides, dilation_rate=dilation, padding=padding)
    check.both_ways(keras.Model(x, layers.ReLU()(y)))


UNFOLDED = [
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": (3, 2), "dilation": (1, 2), "stride": 2, "padding": 1},
]


@pytest.mark.parametrize("options", UNFOLDED, ids=str)
def test_functions(carried, options):
    cells = nn.Unfold(**options)(torch.zeros(1, 2, 5, 6)).shape
    carried(lambda x: ops.unfold(x, **options), (2, 5, 6), verified=options["kernel_size"] == 3)  # each takes its time
    carried(lambda x: ops.fold(x, (5, 6), **options), tuple(cells[1:]), verified=False)


def test_of_open_sizes_is_refused():
    y = keras.Input((12, None))
    with pytest.raises(bridge.BridgeError, match=r"a fold of shape \(None, 12, None\); fix all sizes but the batch"):
        bridge.to_torch(keras.Model(y, ops.fold(y, (4, 4), 2)))


class Layer(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) * 2


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3},
        {"kernel_size": (2, 3), "stride": (2, 1), "padding": (1, 0)},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 2, "dilation": 2, "padding": 1},
        {"kernel_size": (3, 2), "dilation": (1, 2), "stride": 2},
    ],
    ids=str,
)
def test_of_torch(check, options):
    image = torch.randn(2, 3, 7, 8)
    check.from_torch(Layer(nn.Unfold(**options)), image)
    cells = nn.Unfold(**options)(image)
    check.from_torch(Layer(nn.Fold((7, 8), **options)), torch.randn(cells.shape))


class Outlook(nn.Module):
    """What VOLO does: patches, something with each, and their sum where they overlap."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix = nn.Conv2d(3, 4, 1), nn.Linear(36, 36)
        self.unfold = nn.Unfold(3, padding=1, stride=2)
        self.fold = nn.Fold((6, 5), 3, padding=1, stride=2)

    def forward(self, x):
        x = self.unfold(self.embed(x)).transpose(1, 2)
        return self.fold(self.mix(x).transpose(1, 2))


def test_network():
    torch.manual_seed(0)
    module, x = Outlook().eval(), torch.randn(2, 3, 6, 5)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_refusals():
    x = keras.Input((None, 8, 3), name="image")
    with pytest.raises(bridge.BridgeError, match="padding='same' at a size that is open"):
        bridge.to_torch(keras.Model(x, ops.image.extract_patches(x, 3, strides=2, padding="same")))
    x = keras.Input((4, 4, 4, 3), name="volume")
    with pytest.raises(bridge.BridgeError, match="give it images in one batch"):
        bridge.to_torch(keras.Model(x, ops.image.extract_patches(x, (2, 2, 2))))
