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
    module, _ = check.both_ways(model, limit=1e-8)
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
    module, _ = check.both_ways(keras.Model(inputs, ops.einsum(equation, *inputs)))

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
    module, _ = check.both_ways(keras.Model(x, ops.einsum("bhwc,bcd->bhwd", y, z)))
    assert inspect.getsource(type(module)).count("permute") == 1  # of the result


class Products(torch.nn.Module):
    def forward(self, x, y):  # (B, 4, 5), (B, 5, 6)
        z = torch.bmm(x, y)
        return z + x @ y, torch.einsum("...ij,...jk", x, y), torch.einsum("bij->bi", z)


def test_the_ways_of_torch(check):
    check.from_torch(Products(), torch.randn(2, 4, 5), torch.randn(2, 5, 6))


def test_the_letters():
    assert canonical(["xyz", "xzw"], "xyw") == "abc,acd->abd"


def test_what_is_refused():
    x = keras.Input((5, 5), name="x")
    with pytest.raises(bridge.BridgeError, match="takes a diagonal; take the diagonal before"):
        bridge.to_torch(keras.Model(x, ops.einsum("bii,bii->b", x, x)))
