"""Division by the norm, both ways."""

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


def model_of(function, *shape):
    x = keras.Input(shape, name="x")
    return keras.Model(x, function(x), name="net")


@pytest.mark.parametrize(
    "shape, axis, want",
    [
        ((5,), -1, "UnitNorm(1)"),
        ((5,), 0, "UnitNorm(0)"),
        ((4, 5), -1, "UnitNorm(2)"),
        ((4, 5), [1, 2], "UnitNorm((1, 2))"),
        ((3, 4, 5), -1, "UnitNorm(1)"),
        ((3, 4, 5), [1, -1], "UnitNorm((1, 2))"),
        ((None, None, 5), -1, "UnitNorm(1)"),
        ((None, None, 5), [1, 2], "UnitNorm((2, 3))"),
        ((2, 3, 4, 5), -1, "UnitNorm(1)"),
        ((2, 3, 4, 5), [1, 2, 3, 4], "UnitNorm((1, 2, 3, 4))"),
    ],
)
def test_axes(check, shape, axis, want):
    model = model_of(layers.UnitNormalization(axis, name="n"), *shape)
    module, again = check.both_ways(model)
    text = convert.source(model).text
    assert f"self.n = {want}\n" in text and "permute" not in text
    assert type(again.get_layer("n")) is layers.UnitNormalization
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize("order, axis", [(1, -1), (1, (1,)), (2, 1), (2, (1, 2)), (3, -1)])
@pytest.mark.parametrize("epsilon", [None, 1e-12, 3.0])
def test_functions(check, order, axis, epsilon):
    """An epsilon of 3 is above some of the norms."""
    model = model_of(lambda x: ops.normalize(x, axis=axis, order=order, epsilon=epsilon), 3, 4, 5)
    module = check.both_ways(model).module
    norm = next(module.children())
    assert norm.p == order and norm.eps == (epsilon or 1e-7)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize("scale", [1e-6, 1e-11, 1e-12, 1e-13, 1e-18, 0.0])
def test_small_norms(scale):
    """max(norm, 1e-12), not the root of max(norm^2, 1e-12)."""
    x = np.random.default_rng(0).normal(size=(2, 5)).astype("float32") * np.float32(scale)
    model = model_of(layers.UnitNormalization(), 5)
    have = bridge.to_torch(model)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(have, model(x), rtol=1e-5)
    norm = np.linalg.norm(x.astype("float64"), axis=-1, keepdims=True)
    np.testing.assert_allclose(have, x / np.maximum(norm, 1e-12), rtol=1e-5)


def test_between_convolutions(check):
    x = keras.Input((9, 7, 3), name="x")
    y = layers.UnitNormalization(name="n")(layers.Conv2D(4, 3, name="c")(x))
    model = keras.Model(x, layers.Conv2D(2, 1, name="e")(y), name="net")
    _, again = check.both_ways(model)
    assert "permute" not in convert.source(model).text
    assert [type(a) for a in again.layers] == [type(a) for a in model.layers]


def test_the_helper_survives():
    """deepcopy, half, double, pickle, torch.compile, and an export with open sizes."""
    module = bridge.to_torch(model_of(layers.UnitNormalization(name="n"), None, None, 5))
    x = torch.randn(2, 5, 4, 6)
    want = module(x)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), compiled):
        torch.testing.assert_close(other(x), want, rtol=0, atol=0)
    for dtype in (torch.float16, torch.float64):
        assert copy.deepcopy(module).to(dtype)(x.to(dtype)).dtype == dtype
    larger = torch.randn(3, 5, 7, 9)
    program = torch_export.export(module, (x,), [{0, 2, 3}])
    torch.testing.assert_close(program.module()(larger), module(larger), rtol=0, atol=0)


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.normalize(x, axis=None), "axis=None normalises the whole batch at once; name the axes"),
        (
            lambda x: ops.normalize(x, axis=(1, 2), order=1),
            "in Keras is a norm of matrices; give one axis, or order=2",
        ),
    ],
)
def test_refusals(function, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(model_of(function, 4, 5))
    assert text in str(e.value)


class Normalised(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, x):
        return F.normalize(x, **self.options)


@pytest.mark.parametrize("shape", [(2, 5), (2, 4, 5), (2, 5, 3, 4), (2, 5, 2, 3, 4)])
@pytest.mark.parametrize(
    "options",
    [{}, {"dim": -1}, {"dim": 0}, {"dim": (1, -1)}, {"p": 1.0}, {"p": 3, "dim": 1, "eps": 2.0}, {"eps": 0.5}],
    ids=str,
)
def test_functions_of_torch(check, shape, options):
    """torch.export would take them apart."""
    if options.get("dim") == (1, -1) and len(shape) == 2:
        options = {"dim": (1,)}
    model = check.from_torch(Normalised(**options), torch.randn(shape))
    if set(options) <= {"dim"}:
        assert layers.UnitNormalization in map(type, model.layers)


def test_between_convolutions_of_torch(check):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.d = nn.Conv2d(3, 6, 2), nn.Conv2d(6, 4, 2)

        def forward(self, x):
            return self.d(F.normalize(self.c(x)))

    module = Block()
    model = bridge.to_keras(module, (torch.randn(2, 3, 7, 9),))
    assert [type(a) for a in model.layers[1:]] == [layers.Conv2D, layers.UnitNormalization, layers.Conv2D]
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"p": 1.5}, "the norm of order 1.5; Keras has those of the orders 1, 2, 3, ..."),
        ({"p": float("inf")}, "the norm of order inf"),
        ({"p": 1, "dim": (1, 2)}, "order=1 over several axes, which in Keras is a norm of matrices"),
    ],
)
def test_refusals_from_torch(options, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(Normalised(**options), (torch.randn(2, 4, 5),))
    assert text in str(e.value)
