"""Dot, einsum and matmul, in any layout, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge.rules.einsum import canonical

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "axes"),
    [
        ((6,), (6,), 1),
        ((5, 6), (5, 6), 1),
        ((5, 6), (4, 6), 2),
        ((5, 6), (4, 6), -1),
        ((5, 6), (6, 4), (2, 1)),
        ((5, 6), (5,), 1),
        ((6,), (4, 6), (1, 2)),
        ((5, 4, 6), (5, 6), (1, 1)),
        ((5, 4, 6), (3, 4, 2), (2, 2)),
    ],
)
def test_dot(check, first, second, axes, normalize):
    a, b = keras.Input(first, name="a"), keras.Input(second, name="b")
    model = keras.Model([a, b], layers.Dot(axes, normalize=normalize, name="dot")([a, b]))
    module = check.both_ways(model, limit=1e-8).module
    tensors = tuple(torch.from_numpy(check.to_first(np.zeros((2, *s), "float32"))) for s in (first, second))
    check.same_graph(model, module, tensors)


def test_cosine_of_two_encodings(check):
    a, b = keras.Input((6, 5, 3), name="a"), keras.Input((6, 5, 3), name="b")
    x = keras.Input((6, 5, 3), name="x")
    encoder = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="c")(x)), name="encoder")
    model = check.randomise(keras.Model([a, b], layers.Dot(1, normalize=True)([encoder(a), encoder(b)])))
    assert bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bij,bjk->bik", [(4, 5), (5, 6)]),
        ("bqd,bkd->bqk", [(4, 6), (5, 6)]),
        ("bhwc,bhwc->bc", [(5, 4, 3), (5, 4, 3)]),
        ("bhwc,bc->bhwc", [(5, 4, 3), (3,)]),
        ("bhwc->bwc", [(5, 4, 3)]),
        ("bij,bjk,bk->bi", [(4, 5), (5, 6), (6,)]),
        ("bhqd,bhkd->bhqk", [(2, 4, 6), (2, 5, 6)]),
    ],
)
def test_einsum(check, equation, shapes):
    inputs = [keras.Input(s, name=f"x{i}") for i, s in enumerate(shapes)]
    module = check.both_ways(keras.Model(inputs, ops.einsum(equation, *inputs))).module

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return torch.einsum(equation, *tensors)

    assert ("matmul" in inspect.getsource(type(module))) == (equation == "bij,bjk->bik")
    check.from_torch(Module(), *(torch.randn(2, *s) for s in shapes))


def test_between_convolutions(check):
    """Spatial attention on images: the letters go where the axes are."""
    x = keras.Input((6, 5, 3), name="x")
    y = layers.Conv2D(4, 3, name="c")(x)
    z = ops.einsum("bhwc,bhwd->bcd", y, y)
    module = check.both_ways(keras.Model(x, ops.einsum("bhwc,bcd->bhwd", y, z))).module
    assert inspect.getsource(type(module)).count("permute") == 0  # not even of the result


class Products(torch.nn.Module):
    def forward(self, x, y):  # (B, 4, 5), (B, 5, 6)
        z = torch.bmm(x, y)
        return z + x @ y, torch.einsum("...ij,...jk", x, y), torch.einsum("bij->bi", z)


def test_the_ways_of_torch(check):
    check.from_torch(Products(), torch.randn(2, 4, 5), torch.randn(2, 5, 6))


class Function(torch.nn.Module):
    """A function of a sequence (B, 4, 5) and of a matrix (5, 5) and a vector (5) that are trained."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.m = torch.nn.Parameter(torch.zeros(5, 5))
        self.v = torch.nn.Parameter(torch.zeros(5))

    def forward(self, x):
        return self.function(x, self.m, self.v)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, m, v: x @ v + v @ m @ v,
        lambda x, m, v: v @ x.transpose(1, 2) + torch.dot(m[0], v),
        lambda x, m, v: torch.mv(x[:, 0], v) @ x[:, 0] + m.mv(v),
        lambda x, m, v: torch.addmm(v, x[:, 0], m) + v,
        lambda x, m, v: torch.addmm(x[:, 1], x[:, 0], m, beta=0.5, alpha=-2) * m.sum() + v,
        lambda x, m, v: torch.addmv(v, m, v, beta=3) + x,
        lambda x, m, v: torch.baddbmm(x[:, :1], x, x.transpose(1, 2)[..., :1] @ v[None], alpha=0.3) @ m,
        lambda x, m, v: torch.baddbmm(x, x, x.transpose(1, 2) @ x, beta=0, alpha=0.3) * m[0] + v,
        lambda x, m, v: torch.einsum("bij,jk,bik,k->bi", x, m, x, v),
        lambda x, m, v: torch.einsum("bij,j->i", x, torch.einsum("jk,k", m, v)),
    ],
)
def test_vectors_and_sums(check, function):
    check.from_torch(Function(function), torch.randn(2, 4, 5))


def test_sums_are_trained(check):
    module = Function(lambda x, m, v: torch.baddbmm(v, x, x.transpose(1, 2) @ x * m, beta=2, alpha=0.3))
    model = check.from_torch(module, torch.randn(2, 4, 5))
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize(("first", "second"), [((5, 6), (6,)), ((6,), (5, 6, 4)), ((5, 4, 6), (6,))])
def test_vectors_of_keras(check, first, second):
    """What has no batch is a vector here."""
    a, b = keras.Input(first, name="a"), keras.Input(second, name="b")
    vector = (ops.sum(a, 0), b) if len(first) == 1 else (a, ops.sum(b, 0))
    module = check.both_ways(keras.Model([a, b], ops.matmul(*vector))).module
    assert "einsum" in inspect.getsource(type(module))


def test_what_is_not_looked_at(check):
    """A tensor times 0, which may be anything."""

    class Module(torch.nn.Module):
        def forward(self, x, y):
            return torch.baddbmm(y, x, x.transpose(1, 2), beta=0, alpha=2.0)

    x = torch.randn(2, 4, 5)
    model = bridge.to_keras(Module(), (x, torch.full((2, 4, 4), torch.nan)))
    have = model([x.numpy(), np.full((2, 4, 4), np.nan, "float32")])
    np.testing.assert_allclose(have, 2 * (x @ x.transpose(1, 2)), rtol=1e-5)


def test_the_letters():
    assert canonical(["xyz", "xzw"], "xyw") == "abc,acd->abd"


def test_what_is_refused():
    x = keras.Input((5, 5), name="x")
    with pytest.raises(bridge.BridgeError, match="takes a diagonal; take the diagonal before"):
        bridge.to_torch(keras.Model(x, ops.einsum("bii,bii->b", x, x)))


@pytest.mark.parametrize("equation, sizes", [("bhwc,hy,wx->byxc", [(5, 6), (4, 7)]), ("bhwc,hc->bwc", [(5, 3)])])
def test_arrays_are_held(check, equation, sizes):
    x = keras.Input((5, 4, 3), name="x")
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype("float32") for shape in sizes]
    model = keras.Model(x, keras.layers.Dense(2, name="head")(keras.ops.einsum(equation, x, *arrays)))
    module = bridge.to_torch(check.randomise(model))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    held = [p for p in module.parameters() if not p.requires_grad]
    assert len(held) == len(arrays)
    with torch.no_grad():
        held[0].mul_(1.01)
    assert not bridge.verify(model, module).passed
