"""Convolutions with a kernel of its own for each example: StyleGAN2's, CondConv's, those of trackers."""

import inspect

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge

IMAGE = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(0))
STYLE = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
MOVES = {"Permute", "Transpose", "Reshape"}  # what would move the pixels of an image


class Modulated(nn.Module):
    """A convolution of StyleGAN2, with demodulation, as people write it."""

    def __init__(self, **options):
        super().__init__()
        self.weight, self.options = nn.Parameter(torch.randn(1, 3, 4, 3, 3)), options
        self.modulation = nn.Linear(5, 4)

    def forward(self, x, style):
        batch, channel, height, width = x.shape
        weight = self.weight * self.modulation(style).view(batch, 1, channel, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + 1e-8).view(batch, 3, 1, 1, 1)
        weight = weight.view(batch * 3, channel, 3, 3)
        x = F.conv2d(x.reshape(1, batch * channel, height, width), weight, groups=batch, **self.options)
        return x.view(batch, 3, *x.shape[2:])


class Plain(nn.Module):
    """The same without demodulation, and with a weight that has no axis for the batch."""

    def __init__(self):
        super().__init__()
        self.weight, self.modulation = nn.Parameter(torch.randn(3, 4, 2, 2)), nn.Linear(5, 4)

    def forward(self, x, style):
        batch = x.shape[0]
        weight = self.weight.unsqueeze(0) * self.modulation(style).reshape(batch, 1, -1, 1, 1)
        x = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.reshape(-1, *weight.shape[2:]), groups=batch)
        return x.reshape(batch, -1, *x.shape[2:])


class CondConv(nn.Module):
    """A mixture of kernels for each example, in the words of timm."""

    def __init__(self, filters, groups=1, size=3, **options):
        super().__init__()
        self.shape, self.groups, self.options = (filters, 4 // groups, *([size] * 2)), groups, options
        self.routing, self.weight = nn.Linear(4, 3), nn.Parameter(torch.randn(3, filters * 4 // groups * size**2))

    def forward(self, x):
        batch, channel, height, width = x.shape
        routing = torch.sigmoid(self.routing(x.mean((2, 3))))
        filters, *rest = self.shape
        weight = torch.matmul(routing, self.weight).view(batch * filters, *rest)
        x = x.reshape(1, batch * channel, height, width)
        x = F.conv2d(x, weight, groups=self.groups * batch, **self.options)
        return x.permute([1, 0, 2, 3]).view(batch, filters, x.shape[-2], x.shape[-1])


class Tracker(nn.Module):
    """One image, channel by channel, as the kernel of another (SiamRPN++, https://arxiv.org/abs/1812.11703)."""

    def forward(self, x, kernel):
        batch, channel = kernel.shape[:2]
        x, kernel = x.view(1, batch * channel, *x.shape[2:]), kernel.view(batch * channel, 1, *kernel.shape[2:])
        x = F.conv2d(x, kernel, groups=batch * channel)
        return x.view(batch, channel, *x.shape[2:])


class Line(nn.Module):
    """A filter of a line that is computed, with a bias that is, too."""

    def __init__(self):
        super().__init__()
        self.kernel, self.bias = nn.Linear(5, 4 * 2 * 3), nn.Linear(5, 2)

    def forward(self, x, style):
        b = x.shape[0]
        x, kernel, bias = x.flatten(0, 1)[None], self.kernel(style).view(b * 2, 4, 3), self.bias(style).flatten()
        return F.conv1d(F.pad(x, (2, 0)), kernel, bias, groups=b).unflatten(1, (b, 2)).squeeze(0)


CASES = {
    "StyleGAN2": (lambda: Modulated(padding=1), (IMAGE, STYLE)),
    "strides": (lambda: Modulated(stride=2, padding=1), (IMAGE, STYLE)),
    "dilation": (lambda: Modulated(padding=(0, 2), dilation=(1, 2)), (IMAGE, STYLE)),
    "same": (lambda: Modulated(padding="same"), (IMAGE, STYLE)),
    "both": (lambda: Modulated(padding=2, dilation=2, stride=(2, 1)), (IMAGE, STYLE)),
    "no demodulation": (Plain, (IMAGE, STYLE)),
    "CondConv": (lambda: CondConv(6, padding=1), (IMAGE,)),
    "CondConv of one pixel": (lambda: CondConv(3, size=1, stride=2), (IMAGE,)),
    "CondConv of groups": (lambda: CondConv(6, groups=2, stride=2), (IMAGE,)),
    "CondConv of channels": (lambda: CondConv(8, groups=4, padding=1, dilation=2), (IMAGE,)),
    "tracker": (Tracker, (IMAGE, IMAGE[:, :, 1:3, 2:5])),
    "line": (Line, (IMAGE[:, :, 0], STYLE)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways(check, name):
    make, inputs = CASES[name]
    module = make()
    model = check.from_torch(module, *inputs)
    back = inspect.getsource(type(bridge.to_torch(model)))
    assert back.count("F.conv") == 1
    if "Line" not in type(module).__name__:
        assert not [x for x in model.operations if type(x).__name__ in MOVES and len(x.output.shape) == 4]


@pytest.mark.parametrize("name", ["StyleGAN2", "CondConv of groups"])
def test_training(name, tmp_path):
    """Proved with its training, saved, loaded, of any batch and back."""
    make, inputs = CASES[name]
    module = make().eval()
    model = bridge.to_keras(module, inputs)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    back = bridge.to_torch(model).eval()
    back.load_state_dict(module.state_dict(), strict=True)
    for batch in (1, 5):
        x = [torch.randn(batch, *t.shape[1:]) for t in inputs]
        given, want = [np.moveaxis(t.numpy(), 1, -1) if t.ndim == 4 else t.numpy() for t in x], module(*x).detach()
        have = model(given if len(given) > 1 else given[0])
        np.testing.assert_allclose(np.moveaxis(have, -1, 1), want, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(back(*x), want)


@pytest.mark.parametrize("name", ["StyleGAN2", "no demodulation"])
def test_modulation_moves_no_axis(name):
    make, inputs = CASES[name]
    model = bridge.to_keras(make().eval(), inputs)
    assert not [x for x in model.operations if type(x).__name__ in MOVES - {"Reshape"}]
    assert "permute" not in inspect.getsource(type(bridge.to_torch(model)))


def test_each_example_has_its_own():
    """The seeded fault: with the kernels of the batch the other way round the values are others."""
    make, inputs = CASES["StyleGAN2"]
    module = make().eval()
    model = bridge.to_keras(module, inputs)
    x = [np.moveaxis(inputs[0].numpy(), 1, -1), inputs[1].numpy()]
    want = np.moveaxis(module(*inputs).detach().numpy(), 1, -1)
    np.testing.assert_allclose(model(x), want, rtol=1e-4, atol=1e-5)
    assert np.abs(model([x[0], x[1][::-1]]) - want).max() > 0.1


@pytest.mark.parametrize("name", ["CondConv", "CondConv of groups", "CondConv of channels"])
def test_open_sizes(name):
    make, (x,) = CASES[name]
    module = make().eval()
    model = bridge.to_keras(module, (x,), dynamic=[{0, 2, 3}])
    x = torch.randn(3, 4, 9, 8)
    have = model(np.moveaxis(x.numpy(), 1, -1))
    np.testing.assert_allclose(np.moveaxis(have, -1, 1), module(x).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bridge.to_torch(model)(x), module(x))


@pytest.mark.parametrize("pads", [((1, 1), (0, 0)), ((2, 0), (0, 1))])
def test_of_keras(check, pads):
    """The small model as somebody who writes Keras might take it, of a kernel that is a feature map."""
    from bridge import composed

    x, y = keras.Input((7, 7, 4), name="x"), keras.Input((3, 2, 2, 6), name="y")
    options = {"strides": (1, 2), "dilation": (2, 1), "pads": pads, "groups": 2}
    model = keras.Model([x, y], composed.made("own_kernel", options, [x, y])([x, y]))
    module = check.both_ways(model).module
    assert "F.conv2d(" in inspect.getsource(type(module))


def test_a_model_that_does_something_else_is_not_taken_for_it():
    from bridge import composed

    x, y = keras.Input((7, 7, 4)), keras.Input((3, 3, 4, 6))
    model = composed.made(
        "own_kernel", {"strides": (1, 1), "dilation": (1, 1), "pads": ((0, 0),) * 2, "groups": 1}, [x, y]
    )
    assert composed.known(model)[0] == "model.own_kernel"
    assert composed.known(keras.Model(model.inputs, model.output * 2.0)) is None


REFUSED = {
    "two batches": (
        lambda m, x, k: F.conv2d(x.flatten(0, 1)[None].expand(2, -1, -1, -1), k.flatten(0, 1), groups=x.shape[0]),
        "its image is of shape (2, None, 6, 7) and its kernel of shape (None, 4, 3, 3); give it one group",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(check, name):
    function, said = REFUSED[name]
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(check.module_of(function), (IMAGE, torch.randn(2, 4, 4, 3, 3)))
    assert said in str(e.value)
