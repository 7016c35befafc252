"""Resizing to another tensor's open size: torch's rules, at growing and shrinking sizes."""

import functools
import inspect

import keras
import pytest
import torch
import torch.nn.functional as F

import bridge
from bridge import composed
from bridge.rules import resizing_like

nn = torch.nn
MODES = [
    ("nearest", {}),
    ("nearest-exact", {}),
    ("bilinear", {"align_corners": False}),
    ("bilinear", {"align_corners": True}),
    ("bicubic", {"align_corners": False}),
    ("bicubic", {"align_corners": True}),
]


class Decoder(nn.Module):
    """Adds what comes from below to a skip connection."""

    def __init__(self, stride=2, size=lambda skip: skip.shape[2:], **options):
        super().__init__()
        self.size, self.options = size, options
        self.skip, self.down = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, stride, 1)

    def forward(self, x):
        skip = self.skip(x)
        return skip + F.interpolate(self.down(x), size=self.size(skip), **self.options)


@pytest.mark.parametrize("mode, options", MODES)
def test_a_decoder(check, mode, options):
    module = Decoder(mode=mode, **options).eval()
    x = torch.randn(2, 3, 9, 11)
    model = check.to_keras(module, (x,), [{0, 2, 3}])
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    back = bridge.to_torch(model)
    for shape in ((1, 3, 6, 6), (3, 3, 7, 12), (2, 3, 17, 5)):
        other = torch.randn(shape)
        torch.testing.assert_close(back(other), module(other), rtol=0, atol=1e-6)
    text = inspect.getsource(type(back)).replace('"', "'")
    assert f".shape[3]), mode='{mode}'" in text and "F.interpolate(down, size=(" in text


@functools.cache
def made(function, rule):
    """The model for all sizes: to make it takes longer than to use it."""
    tensors = [keras.KerasTensor((None, None, None, channels), "float64") for channels in (3, 1)]
    return composed.made("resize_like", {"function": function, "rule": rule, "like": ((1, 1), (1, 2))}, tensors)


@pytest.mark.parametrize("mode, options", MODES)
@pytest.mark.parametrize("given, size", [((5, 7), (9, 4)), ((1, 6), (3, 1)), ((8, 8), (16, 24)), ((9, 5), (3, 2))])
def test_values_and_gradients(mode, options, given, size):
    x = torch.randn(2, 3, *given, dtype=torch.float64, requires_grad=True)
    want = F.interpolate(x, size=size, mode=mode, **options)
    weight = torch.randn_like(want)
    (want * weight).sum().backward()
    function = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, "nearest")
    rule = "align_corners" if options.get("align_corners") else "asymmetric" if mode == "nearest" else "half_pixel"
    import tensorflow as tf

    model = made(function, rule)
    image = tf.Variable(x.detach().permute(0, 2, 3, 1).numpy())
    other = tf.zeros((2, *size, 1), "float64")
    with tf.GradientTape() as tape:
        have = model([image, other])
        loss = tf.reduce_sum(have * weight.permute(0, 2, 3, 1).numpy())
    torch.testing.assert_close(torch.tensor(have.numpy()).permute(0, 3, 1, 2), want.detach(), rtol=0, atol=1e-12)
    gradient = tf.convert_to_tensor(tape.gradient(loss, image)).numpy()
    torch.testing.assert_close(torch.tensor(gradient).permute(0, 3, 1, 2), x.grad, rtol=0, atol=1e-12)


def test_one_open_axis_and_two_tensors(check):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3, (2, 1)), nn.Conv2d(3, 2, 3, (1, 2))

        def forward(self, x):
            a, b, c = self.a(x), self.b(x), self.c(x)
            one = F.interpolate(a, size=(5, c.shape[3]), mode="bilinear").mean((2, 3))
            return one + F.interpolate(a, size=(b.shape[2], c.shape[3]), mode="bicubic").amax((2, 3))

    module, x = Module().eval(), torch.randn(2, 3, 9, 12)
    model = check.to_keras(module, (x,), [{0, 2, 3}])
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    other = torch.randn(1, 3, 14, 8)
    torch.testing.assert_close(bridge.to_torch(model)(other), module(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rank, mode", [(1, "linear"), (1, "nearest"), (3, "trilinear")])
def test_other_ranks(rank, mode):
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]

    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.skip, self.down = kind(2, 2, 1), kind(2, 2, 3, 2, 1)

        def forward(self, x):
            skip = self.skip(x)
            return skip + F.interpolate(self.down(x), size=skip.shape[2:], mode=mode)

    module, x = Module().eval(), torch.randn(2, 2, *(9, 7, 6)[:rank])
    model = bridge.to_keras(module, (x,), [{0, *range(2, rank + 2)}])
    other = torch.randn(2, 2, *(6, 11, 8)[:rank])
    torch.testing.assert_close(bridge.to_torch(model)(other), module(other), rtol=1e-5, atol=1e-6)


def test_it_is_known_by_what_it_computes():
    x, y = keras.Input((None, None, 2)), keras.Input((None, None, 3))
    options = {"function": "linear", "rule": "half_pixel", "like": ((1, 1), (1, 2))}
    model = composed.made("resize_like", options, [x, y])
    assert composed.known(model) == ("model.resize_like", options)
    other = keras.Model([x, y], resizing_like.resize(x, y, **options) + 1.0)
    assert composed.known(other) is None


def test_a_wrong_rule_is_seen():
    module = Decoder(mode="bilinear", align_corners=False).eval()
    model = bridge.to_keras(module, (torch.randn(2, 3, 9, 11),), [{0, 2, 3}])
    module.options["align_corners"] = True
    report = bridge.verify(model, module)
    assert not report.passed and "align_corners" in str(report)


def test_refusals():
    module = Decoder(size=lambda skip: (skip.shape[2] + 1, skip.shape[3]), mode="bilinear")
    with pytest.raises(bridge.BridgeError, match="it needs the size|cannot be exported"):
        bridge.to_keras(module, (torch.randn(2, 3, 9, 11),), [{0, 2, 3}])


class Scaled(nn.Module):
    """A picture by a factor, between convolutions."""

    def __init__(self, **options):
        super().__init__()
        self.options, self.first, self.last = options, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.last(F.interpolate(self.first(x), **self.options))


@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 1.5, "mode": "bilinear"},
        {"scale_factor": 1.5, "mode": "nearest"},
        {"scale_factor": (0.75, 2.5), "mode": "nearest-exact"},
        {"scale_factor": 1.25, "mode": "bicubic"},
        {"scale_factor": 2, "mode": "bicubic"},
        {"scale_factor": 0.5, "mode": "bicubic", "align_corners": True},
        {"scale_factor": 2, "mode": "bilinear", "align_corners": True},
        {"scale_factor": (1.5, 0.5), "mode": "bilinear", "align_corners": True},
        {"scale_factor": 1.5, "mode": "bilinear", "recompute_scale_factor": True},
    ],
    ids=str,
)
def test_factors(check, options):
    module, x = Scaled(**options).eval().double(), torch.randn(2, 3, 9, 11, dtype=torch.float64)
    model = check.to_keras(module, (x,), [{0, 2, 3}])
    back = bridge.to_torch(model)
    for shape in ((1, 3, 6, 6), (3, 3, 7, 12), (2, 3, 17, 5)):
        other = torch.randn(shape, dtype=torch.float64)
        want = module(other).detach()
        torch.testing.assert_close(back(other).detach(), want, rtol=0, atol=1e-9)
        assert check.relative(check.to_first(model(check.to_last(other.numpy())).numpy()), want) < 1e-9
    text = inspect.getsource(type(back))
    assert ("scale_factor=" in text) != ("recompute_scale_factor" in options)


@pytest.mark.parametrize("factor, mode", [(1.37, "bilinear"), (0.7, "bilinear"), (1.25, "nearest")])
def test_factors_that_are_refused(factor, mode):
    module = Scaled(scale_factor=factor, mode=mode)
    with pytest.raises(bridge.BridgeError, match="the scale factor|rounds to another pixel"):
        bridge.to_keras(module, (torch.randn(2, 3, 9, 11),), [{0, 2, 3}])


def test_parts_of_a_size(check):
    class Module(Scaled):
        def forward(self, x):
            x = self.first(x)
            return self.last(F.interpolate(x, size=(x.shape[2] * 3 // 4, x.shape[3] + 1), mode="bilinear"))

    module, x = Module().eval(), torch.randn(2, 3, 9, 11)
    model = check.to_keras(module, (x,), [{0, 2, 3}])
    assert bridge.verify(model, module).passed
    for shape in ((1, 3, 6, 6), (3, 3, 7, 12), (2, 3, 17, 5)):
        other = torch.randn(shape)
        torch.testing.assert_close(bridge.to_torch(model)(other), module(other), rtol=0, atol=1e-6)
