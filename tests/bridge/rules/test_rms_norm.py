"""Division by the root of the mean square, both ways."""

import copy
import pickle

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge import convert, torch_export

layers, ops = keras.layers, keras.ops
SINGLE = float(np.finfo("float32").eps)


def model_of(shape, **options):
    x = keras.Input(shape, name="x")
    return randomised(keras.Model(x, layers.RMSNormalization(name="n", **options)(x), name="net"))


def randomised(model):
    """`scale` of 1 hides what multiplies by it."""
    rng = np.random.default_rng(0)
    for w in model.weights:
        w.assign(rng.normal(0, 1, w.shape))
    return model


@pytest.mark.parametrize(
    "shape, axis, want",
    [
        ((5,), -1, "nn.RMSNorm(5, eps=1e-06)"),
        ((4, 5), -1, "nn.RMSNorm(5, eps=1e-06)"),
        ((4, 5), [1, 2], "nn.RMSNorm((4, 5), eps=1e-06)"),
        ((4, 4), [1, -1], "nn.RMSNorm((4, 4), eps=1e-06)"),
        ((None, 5), 2, "nn.RMSNorm(5, eps=1e-06)"),
        ((3, 4, 5), -1, "RMSNormOver((1,), eps=1e-06, shape=(5,))"),
        ((3, 4, 5), [-1, -2], "RMSNormOver((1, 3), eps=1e-06, shape=(5, 4))"),
        ((3, 4, 5), [1, 2, 3], "nn.RMSNorm((5, 3, 4), eps=1e-06)"),
        ((None, None, 5), [3], "RMSNormOver((1,), eps=1e-06, shape=(5,))"),
        ((2, 3, 4, 5), -1, "RMSNormOver((1,), eps=1e-06, shape=(5,))"),
        ((2, 3, 4, 5), [3, 4], "RMSNormOver((1, 4), eps=1e-06, shape=(5, 4))"),
    ],
)
def test_axes(check, shape, axis, want):
    model = model_of(shape, axis=axis)
    module, again = check.both_ways(model, randomised=False)
    text = convert.source(model).text
    assert f"self.n = {want}\n" in text and "permute" not in text
    assert again.get_layer("n").epsilon == 1e-6
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("axis", [-1, 1, (1, -1)])
def test_functions(check, shape, axis):
    """Without a scale any axes; the epsilon is Keras' own where none is given."""
    for epsilon in (None, 0.3):
        x = keras.Input(shape, name="x")
        y = ops.rms_normalization(x, axis=axis, epsilon=epsilon)
        model = keras.Model(x, y, name="net")
        module, again = check.both_ways(model, randomised=False, back="float32")
        assert next(module.children()).eps == (epsilon or 1e-7)
    given = torch.randn(2, shape[-1], *shape[:-1]) if len(shape) > 2 else torch.randn(2, *shape)
    check.same_graph(again, module, (given,))


def test_a_function_with_a_scale(check):
    x = keras.Input((4, 5), name="x")
    scale = np.random.default_rng(0).normal(size=5).astype("float32")
    model = keras.Model(x, ops.rms_normalization(x, scale=scale), name="net")
    module = bridge.to_torch(model)
    assert not any(p.requires_grad for p in module.parameters())
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    data = np.random.default_rng(1).normal(size=(2, 4, 5)).astype("float32")
    again = bridge.to_keras(module, (torch.from_numpy(data),))
    assert check.relative(again(data), model(data)) < 1e-6


def test_between_convolutions(check):
    x = keras.Input((9, 7, 3), name="x")
    y = layers.RMSNormalization(name="n")(layers.Conv2D(4, 3, name="c")(x))
    model = randomised(keras.Model(x, layers.Conv2D(2, 1, name="e")(y), name="net"))
    _, again = check.both_ways(model, randomised=False)
    assert "permute" not in convert.source(model).text
    assert [type(a) for a in again.layers] == [type(a) for a in model.layers]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.n, self.d = nn.Conv2d(3, 6, 2), nn.RMSNorm(6, eps=1e-5), nn.Conv2d(6, 4, 2)

    def forward(self, x):
        return self.d(self.n(self.c(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_between_permutations_of_torch(check):
    model = check.from_torch(Block(), torch.randn(2, 3, 7, 9))
    assert [type(a) for a in model.layers[1:]] == [layers.Conv2D, layers.RMSNormalization, layers.Conv2D]


@pytest.mark.parametrize(
    "make, shape, permuted",
    [
        (lambda: nn.RMSNorm(5, eps=1e-6), (2, 5), False),
        (lambda: nn.RMSNorm([4, 5], eps=0.1), (2, 4, 5), False),
        (lambda: nn.RMSNorm(5, eps=0.1), (2, 3, 4, 5), True),
        (lambda: nn.RMSNorm([4, 5], eps=0.1), (2, 3, 4, 5), True),
        (lambda: nn.RMSNorm([3, 4, 5], eps=0.1), (2, 3, 4, 5), False),
        (lambda: nn.RMSNorm(5, eps=0.1, elementwise_affine=False), (2, 3, 4, 5), False),
        (lambda: nn.RMSNorm([3, 4, 5], eps=0.1, elementwise_affine=False), (2, 6, 3, 4, 5), False),
    ],
)
def test_modules(check, make, shape, permuted):
    """Keras' layer has its axes last, so that others are permuted."""
    module = nn.Sequential(make())
    model = check.from_torch(module, torch.randn(shape))
    assert (layers.Permute in map(type, model.layers)) == permuted
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_without_an_epsilon_torch_takes_that_of_the_dtype(check, dtype):
    module = nn.Sequential(nn.RMSNorm(5)).to(getattr(torch, dtype))
    small = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    model = bridge.to_keras(module, (small,))
    assert model.get_layer("0").epsilon == float(np.finfo(dtype).eps)
    small = small * 1e-4
    assert check.relative(model(small.numpy()), module(small).detach()) < (1e-6 if dtype == "float32" else 1e-12)
    assert bridge.to_torch(model).get_submodule("0").eps == float(np.finfo(dtype).eps)
    if dtype == "float32":
        report = bridge.verify(model, module)
        assert report.passed, str(report)


def test_half_precision_is_computed_in_float32():
    """1000 squared is more than float16 holds; torch's epsilon is that of float32."""
    x = np.linspace(-1000, 1000, 120).reshape(2, 3, 4, 5).astype("float16")
    model = model_of((3, 4, 5))
    have = bridge.to_torch(model).half()(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).detach().numpy()
    half = layers.RMSNormalization(dtype="float16")
    half.build(x.shape)
    half.scale.assign(model.weights[0])
    np.testing.assert_allclose(np.moveaxis(have, 1, -1), half(x), rtol=2e-3, atol=2e-3)
    small = torch.full((1, 4), 1e-3, dtype=torch.float16)
    want = 1e-3 / (1e-6 + SINGLE) ** 0.5
    torch.testing.assert_close(F.rms_norm(small, (4,)), torch.full_like(small, want), rtol=2e-3, atol=0)


def test_the_helper_survives():
    """deepcopy, double, pickle, torch.compile, and an export with open sizes."""
    module = bridge.to_torch(model_of((None, None, 5)))
    x = torch.randn(2, 5, 4, 6)
    want = module(x)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), compiled):
        torch.testing.assert_close(other(x), want, rtol=0, atol=0)
    assert copy.deepcopy(module).double()(x.double()).dtype == torch.float64
    larger = torch.randn(3, 5, 7, 9)
    program = torch_export.export(module, (x,), [{0, 2, 3}])
    torch.testing.assert_close(program.module()(larger), module(larger), rtol=0, atol=0)


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda x: layers.RMSNormalization(1, name="n")(x),
            "it normalises the axes [1], and Keras multiplies its scale ",
        ),
        (
            lambda x: layers.RMSNormalization(1, name="n")(x),
            "along the last ones; permute its input, and give axis=[-1]",
        ),
        (lambda x: ops.rms_normalization(x, axis=0), "it normalises axis 0, the batch"),
        (lambda x: ops.rms_normalization(x, scale=x), "its scale is a tensor that flows; normalise without it"),
        (lambda x: ops.rms_normalization(x, scale=np.float32(2)), "its scale has the shape (); give one of (5,)"),
    ],
)
def test_refusals_from_keras(function, text):
    x = keras.Input(batch_shape=(2, 5, 5), name="x")
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, function(x)))
    assert text in str(e.value)
