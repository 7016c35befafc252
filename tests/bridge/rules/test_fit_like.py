"""Fitting to open sizes: every way, at sizes other than the example's, in both directions."""

import inspect
import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge.rules import fit_like

SIZES = [(9, 11), (10, 12), (7, 14), (12, 5)]  # of which the first is the example's


class Network(nn.Module):
    """A function of an image between two convolutions."""

    def __init__(self, function, channels=4):
        super().__init__()
        self.first, self.last, self.function = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 2, 1), function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def larger(x):
    """As large as x, and one more where that is odd."""
    return F.interpolate(x[:, :, ::2, ::2], scale_factor=2)


def crop(x):
    y = larger(x).tanh()
    return x + y[:, :, : x.shape[2], : x.shape[3]]


def crop_behind(x):
    y = F.pad(x, (2, 3, 4, 5)).tanh()
    return x + y[:, :, 4 : 4 + x.shape[2], 2 : 2 + x.shape[3]] + y.narrow(2, 1, x.shape[2])[..., 3:-2]


def crop_middle(x):
    y = F.interpolate(x, scale_factor=2).tanh()
    top, left = (y.shape[2] - x.shape[2]) // 2, (y.shape[3] - x.shape[3]) // 2
    return x + y[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def crop_end(x):
    y = F.interpolate(x, scale_factor=2).tanh()
    return x + y[:, :, -x.shape[2] :, y.shape[3] - x.shape[3] :]


def pad_milesial(x):
    y = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
    dy, dx = x.size(2) - y.size(2), x.size(3) - y.size(3)
    return x + F.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])


def pad_ceil(x):
    y = F.avg_pool2d(x, 3, 2)
    dy, dx = x.size(2) - y.size(2), x.size(3) - y.size(3)
    return x + F.pad(y, [dx - dx // 2, dx // 2, dy - dy // 2, dy // 2], value=0.5)


def pad_behind(x):
    y = F.interpolate(F.max_pool2d(x, 2), scale_factor=2)
    return x + F.pad(y, [0, x.size(3) - y.size(3), x.size(2) - y.size(2), 0], value=-2.0)


def pad_some(x):
    y = F.max_pool2d(x, 2)
    return x + F.pad(y, [1, x.size(3) - y.size(3) - 1, -1, x.size(2) - y.size(2) + 1])


def pad_cropping(x):
    y = F.interpolate(x, scale_factor=2)
    dx = x.size(3) - y.size(3)
    return x + F.pad(y, [dx // 2, dx - dx // 2])[:, :, : x.size(2)]


def pad_and_fixed(x):
    y = F.max_pool2d(x, 2)
    padded = F.pad(y, [0, x.size(3) - y.size(3), 2, 1])
    return F.avg_pool2d(x, 2).repeat(1, 1, 1, 1).mean((2, 3), keepdim=True) + padded


def half(x):
    return x[:, :, : x.shape[2] // 2] + x[:, :, -(x.shape[2] // 2) :].tanh()


def thirds(x):
    n = 2 * x.shape[3] // 3 + 1
    return x[..., :n] + x.narrow(3, x.shape[3] - n, n).tanh()


def but_one(x):
    return x[:, :, : x.shape[2] - 1] + x[:, :, 1 : x.shape[2]].tanh()


def last_two(x):
    return x[:, :, x.shape[2] - 2 :]


def chunks(x):
    first, second = x.chunk(2, 3)
    return first[..., :3] * second.mean(3, keepdim=True)


def quarters(x):
    h, w = x.shape[2:]
    middle = x[:, :, h // 4 : h - h // 4, w // 3 : 3 * w // 4]
    return middle.mean((2, 3), keepdim=True) * x[:, :, -(h // 3) :] + x[:, :, h // 2][:, :, None].tanh()


def so_many(x):
    h = x.shape[2]
    return x[:, :, h // 4 : h // 4 + 2] * x[:, :, h // 2 : h // 2 + 1] + x.narrow(2, torch.sym_max(h // 2 - 2, 1), 1)


def thirds_of_it(x):
    a, b, c = x.chunk(3, 3)
    d, e, f = x.tensor_split(3, dim=2)
    return (a.mean(3) + b.amax(3) * c.mean(3))[..., None] + d.mean(2, True) - torch.cat([f, e], 2).amax(2, True)


def uneven(x):
    h, w = x.shape[2:]
    a, b, c = x.split([h // 4, h // 2, h - h // 4 - h // 2], 2)
    return torch.cat([c, a, b * 2], 2) + x[..., : torch.sym_min(w, h)].mean(3, keepdim=True)


def crop_third(x):
    y = F.interpolate(x, scale_factor=2).tanh()
    top = (y.shape[2] - x.shape[2]) // 3
    return x + y[:, :, top : top + x.shape[2], : x.shape[3]]


def windows(x):
    """Swin's: windows of a padded image that is shifted, and all of it back."""
    h, w = x.shape[2:]
    y = F.pad(x, (0, (8 - w % 8) % 8, 0, (8 - h % 8) % 8), value=0.5).permute(0, 2, 3, 1)
    b, height, width, c = y.shape
    y = torch.roll(y, (-3, -2), (1, 2)).view(b, height // 8, 8, width // 8, 8, c)
    y = y.transpose(2, 3).reshape(-1, 64, c)
    y = (y - y.mean(1, keepdim=True)).view(b, height // 8, width // 8, 8, 8, c).transpose(2, 3)
    y = torch.roll(y.reshape(b, height, width, c), (3, 2), (1, 2))
    return x * y.permute(0, 3, 1, 2)[:, :, :h, :w]


def to_a_multiple(x):
    """One size on both sides, which no tensor has until then, and one that the module rounds by itself."""
    h, w = x.shape[2:]
    y = F.pad(x, (-w % 6 // 2, -w % 6 - -w % 6 // 2, 0, math.ceil(h / 4) * 4 - h))
    return F.avg_pool2d(y, 2).tanh() + F.max_pool2d(y, 2)


def borders(x):
    h, w = x.shape[2:]
    y = F.pad(x, (w // 4, w // 3, 0, 1), mode="circular")
    y = F.pad(y, (0, -w % 4, h // 2, -h % 4), mode="reflect")
    return F.pad(y, (1, 0, w // 2, 2), mode="replicate")


def masked(x):
    """What is padded, and the last cell, counts as nothing."""
    w = x.shape[3]
    y = F.pad(x, (0, -w % 4, 0, 0), mode="replicate")
    return y * (torch.arange(y.shape[3]) < w - 1) / x.new_full((), w)


def square(x):
    h, w = x.shape[2:]
    n = torch.sym_max(h, w)
    y = F.pad(x, (n - w, 0, (n - h) // 2, n - h - (n - h) // 2))
    return y * y.transpose(2, 3).tanh() + F.pad(x.mean((2, 3), keepdim=True), (w // 2, n - 1 - w // 2, 0, n - 1))


def to_a_number(x):
    return F.pad(x, (0, 16 - x.shape[3], 0, 0), value=1.0).flatten(3) * torch.linspace(0, 1, 16, dtype=x.dtype)


def batch(x):
    return x[: x.shape[0] // 2] * x[-(x.shape[0] // 2) :].tanh()


CASES = [crop, crop_behind, crop_middle, crop_end, pad_milesial, pad_ceil, pad_behind, pad_some, pad_cropping]
CASES += [pad_and_fixed, half, thirds, but_one, last_two, chunks, batch]
CUTS = [quarters, so_many, thirds_of_it, uneven, crop_third]
PADS = [windows, to_a_multiple, borders, masked, square, to_a_number]
CASES += CUTS + PADS


def image(height, width, batch=2):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def carried(check, module, *sizes):
    """Carry a module with open sizes to Keras and back: right at all of `SIZES`, and at these."""
    module = check.live_torch(module).double()
    dynamic = [{0, 2, 3}]
    model = bridge.to_keras(module, (image(*SIZES[0]),), dynamic)
    back = bridge.to_torch(model)
    for size in (*SIZES, *sizes):
        x = image(*size, batch=4)
        want = module(x).detach()
        assert check.relative(check.to_first(model(check.to_last(x.numpy())).numpy()), want) < 1e-9
        assert check.relative(back(x).detach(), want) < 1e-9
    check.same_graph(model, module, (image(*SIZES[0]),), dynamic)


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_other_sizes(check, function):
    carried(check, Network(function), *([(16, 8), (3, 24)] if function in PADS else ()))


@pytest.mark.parametrize("function", [to_a_multiple, masked, square], ids=lambda f: f.__name__)
def test_the_same_again(check, function):
    """Sizes that are computed are written in one way, whatever torch.export makes of it."""
    x, dynamic = (image(*SIZES[0]).float(),), [{0, 2, 3}]
    model = bridge.to_keras(Network(function), x, dynamic)
    check.same_graph(model, bridge.to_torch(model), x, dynamic)


@pytest.mark.parametrize(
    "function", [crop, pad_milesial, half, quarters, so_many, thirds_of_it, windows], ids=lambda f: f.__name__
)
def test_verify(check, function):
    module = check.live_torch(Network(function))
    model = bridge.to_keras(module, (image(*SIZES[0]).float(),), [{0, 2, 3}])
    report = bridge.verify(model, module)
    assert report.passed, str(report)


class Steps(nn.Module):
    """A block of WaveNet: the convolution shortens what goes past it to its last steps."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(4, 4, 2, dilation=2)

    def forward(self, x):
        y = self.c(x)
        return torch.tanh(y) + x[:, :, -y.size(2) :]


def test_last_cells_counted_from_the_end():
    """x[:, :, -n:] is the slice that x[:, :, size - n :] is, where that is a number."""
    module = Steps().eval()
    model = bridge.to_keras(module, (torch.randn(2, 4, 12),), [{0, 2}])
    again = bridge.to_torch(model)
    assert bridge.verify(model, module).passed and bridge.verify(model, again).passed
    assert ".shape" not in inspect.getsource(type(again))


def test_source(check):
    module = check.live_torch(Network(crop_middle))
    source = inspect.getsource(type(bridge.to_torch(bridge.to_keras(module, (image(9, 11).float(),), [{0, 2, 3}]))))
    assert re.search(r"\.narrow\(2, \((\w+)\.shape\[2\] - (\w+)\.shape\[2\]\) // 2, \2\.shape\[2\]\)", source), source


@pytest.mark.parametrize(
    "function, reason",
    [
        (
            lambda x: x[:, :, x.shape[2] // 2 - 2 : x.shape[2] // 2 + 2],
            r"is below 0 at some sizes; take no less than 0: torch.sym_max\(n, 0\)",
        ),
        (lambda x: x[:, :, x.shape[2] ** 2 // 100 :], r"its bounds are n0 \*\* 2 // 100 .*of open sizes; use \+"),
        (lambda x: F.pad(x, (0, x.shape[2] ** 2 // 100)), r"it pads by 0 and n0 \*\* 2 // 100 of open sizes; use \+"),
        (lambda x: F.pad(x, (0, x.shape[2] * x.shape[3])), "it pads by .* sizes; pad by no more than some times"),
        (lambda x: F.pad(x, (x.shape[2] // 2 - 2, 0, 0, 0), mode="replicate"), "is below 0 at some sizes; pad by no"),
        (lambda x: x[:, :, : x.shape[2] // 2 : 2], "every nth cell"),
    ],
)
def test_refused(function, reason):
    with pytest.raises(bridge.BridgeError, match=reason):
        bridge.to_keras(Network(function, 8), (image(9, 11).float(),), [{0, 2, 3}])


def test_seen_fault(check, monkeypatch):
    """A half that is rounded to the other side is found at sizes where it is not whole."""
    monkeypatch.setitem(fit_like.MODELS, "fit_like", lambda *x, start, **rest: fit_like.fit(*x, start="ceil", **rest))
    with pytest.raises(AssertionError):
        carried(check, Network(pad_milesial))


def test_seen_edge(check, monkeypatch):
    """An edge that is repeated instead of the cells behind it is found."""
    filled = fit_like._filled
    monkeypatch.setattr(fit_like, "_filled", lambda *x: filled(*x[:-1], "edge" if x[-1] == "reflect" else x[-1]))
    with pytest.raises(AssertionError):
        carried(check, Network(borders))
