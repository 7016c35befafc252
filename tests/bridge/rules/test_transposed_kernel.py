"""Transposed convolutions whose kernel is computed: those of GANs and vocoders with weight_norm or spectral_norm."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import bridge

IMAGE = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
CASES = {
    "DCGAN": (lambda: nn.ConvTranspose2d(3, 4, 4, 2, 1), IMAGE),
    "vocoder": (lambda: nn.ConvTranspose1d(3, 4, 16, 8, 4), IMAGE[:, :, 0]),
    "all options": (lambda: nn.ConvTranspose2d(3, 4, (3, 2), (2, 3), (1, 0), output_padding=(1, 2)), IMAGE),
    "smaller than the stride": (lambda: nn.ConvTranspose2d(3, 4, 2, 3, bias=False), IMAGE),
    "volume": (lambda: nn.ConvTranspose3d(3, 2, 3, (1, 2, 1)), IMAGE[..., None].repeat(1, 1, 1, 1, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_layers(check, name):
    make, x = CASES[name]
    check.from_torch(nn.Sequential(weight_norm(make()), nn.Tanh()), x)


def test_training(check, tmp_path):
    """A generator as people write it: proved with its training, saved, loaded, and back."""
    layers = [spectral_norm(nn.ConvTranspose2d(3, 8, 4, 2, 1)), nn.BatchNorm2d(8), nn.ReLU(True)]
    module = nn.Sequential(*layers, spectral_norm(nn.ConvTranspose2d(8, 3, 4, 2, 1)), nn.Tanh()).eval()
    model = bridge.to_keras(module, (IMAGE,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    model.save(tmp_path / "model.keras")
    again = bridge.to_torch(keras.models.load_model(tmp_path / "model.keras", safe_mode=True))
    again.load_state_dict(module.state_dict(), strict=True)
    torch.testing.assert_close(again.eval()(IMAGE), module(IMAGE))


def test_another_length(check):
    module = nn.Sequential(weight_norm(nn.ConvTranspose1d(3, 4, 8, 4, 2))).eval()
    model = bridge.to_keras(module, (IMAGE[:, :, 0],), dynamic=[{0, 2}])
    for length in (3, 9):
        x = torch.randn(2, 3, length)
        np.testing.assert_allclose(model(x.numpy()), module(x).detach(), rtol=1e-4, atol=1e-6)
    assert bridge.verify(model, bridge.to_torch(model)).passed


class Groups(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.weight, self.options = nn.Parameter(torch.randn(4, 3, 2, 2)), options

    def forward(self, x):
        return F.conv_transpose2d(x, self.weight * 2, **self.options)


@pytest.mark.parametrize(
    "module, dynamic, said",
    [
        (Groups(groups=2), None, "its weight is computed, and it has 2 groups; keep the weight as a parameter"),
        (Groups(dilation=2), None, "dilation (2, 2) with a kernel that is computed; leave the dilation out"),
        (Groups(), [{0, 2, 3}], "several sizes are open, and its kernel is computed; fix all sizes but one"),
    ],
)
def test_refusals(module, dynamic, said):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(module.eval(), (torch.randn(2, 4, 5, 4),), dynamic=dynamic)
    assert said in str(e.value)


def test_why_keras_own_function_is_not_used():
    """When Keras runs this, the small model may go."""
    x, kernel = keras.Input((5, 5, 3)), keras.Input(batch_shape=(3, 3, 4, 3))
    model = keras.Model([x, kernel], keras.ops.conv_transpose(x, kernel))
    with pytest.raises(AttributeError):
        model([np.ones((1, 5, 5, 3), "float32"), np.ones((3, 3, 4, 3), "float32")])
