"""Transposed convolutions with a kernel of its own for each example: StyleGAN2's, which make an image larger."""

import inspect

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge

IMAGE = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
STYLE = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))


class Modulated(nn.Module):
    """As people write it."""

    def __init__(self, size=3, **options):
        super().__init__()
        self.weight, self.options = nn.Parameter(torch.randn(1, 3, 4, size, size)), options
        self.modulation = nn.Linear(5, 4)

    def forward(self, x, style):
        batch, channel, height, width = x.shape
        weight = self.weight * self.modulation(style).view(batch, 1, channel, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(batch, 3, 1, 1, 1)
        weight = weight.transpose(1, 2).reshape(batch * channel, 3, *weight.shape[3:])
        x = F.conv_transpose2d(x.reshape(1, batch * channel, height, width), weight, groups=batch, **self.options)
        return x.view(batch, 3, *x.shape[2:])


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"size": 4, "stride": (2, 1), "padding": 1},
        {"size": 2, "stride": 3, "padding": (1, 0), "output_padding": (1, 2)},
        {"padding": 1},
    ],
    ids=str,
)
def test_both_ways(check, options):
    module = Modulated(**options)
    model = check.from_torch(module, IMAGE, STYLE)
    assert not [x for x in model.operations if type(x).__name__ in ("Permute", "Transpose")]
    assert inspect.getsource(type(bridge.to_torch(model))).count("F.conv_transpose2d(") == 1


def test_training(tmp_path):
    """Proved with its training, saved, loaded, of any batch and back."""
    module = Modulated(stride=2).eval()
    model = bridge.to_keras(module, (IMAGE, STYLE))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    back = bridge.to_torch(model).eval()
    back.load_state_dict(module.state_dict(), strict=True)
    x, style = torch.randn(3, 4, 5, 6), torch.randn(3, 5)
    want = module(x, style).detach()
    have = model([np.moveaxis(x.numpy(), 1, -1), style.numpy()])
    np.testing.assert_allclose(np.moveaxis(have, -1, 1), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(back(x, style), want)


def test_each_example_has_its_own():
    """The seeded fault: with the styles of the batch the other way round the values are others."""
    module = Modulated(stride=2).eval()
    model = bridge.to_keras(module, (IMAGE, STYLE))
    x, want = np.moveaxis(IMAGE.numpy(), 1, -1), np.moveaxis(module(IMAGE, STYLE).detach().numpy(), 1, -1)
    np.testing.assert_allclose(model([x, STYLE.numpy()]), want, rtol=1e-4, atol=1e-5)
    assert np.abs(model([x, STYLE.numpy()[::-1]]) - want).max() > 0.1


def transposed(groups, **options):
    """A transposed convolution by a kernel that is an input."""

    def forward(m, x, kernel):
        batch = x.shape[0]
        y = F.conv_transpose2d(x.flatten(0, 1)[None], kernel.flatten(0, 1), groups=batch * groups, **options)
        return y.unflatten(1, (batch, -1)).squeeze(0)

    return forward


@pytest.mark.parametrize(
    "function, dynamic, said",
    [
        (transposed(2), None, "a transposed convolution of 2 groups for each example; convolve each group alone"),
        (transposed(1, dilation=2), None, "dilation (2, 2) with a kernel that is computed; leave the dilation out"),
        (transposed(1), [{0, 2, 3}, {0}], "several sizes are open, and its kernel is computed; fix all sizes but one"),
    ],
)
def test_refusals(check, function, dynamic, said):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(check.module_of(function), (IMAGE, torch.randn(2, 4, 3, 3, 3)), dynamic=dynamic)
    assert said in str(e.value)
