"""Reductions over any axes, both ways, and those that are global pooling."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import keras_reader
from bridge.rules import reduction

layers, ops = keras.layers, keras.ops
AXES = [axes for count in (1, 2, 3) for axes in itertools.combinations((1, 2, 3), count)]


def from_torch(check, function, *shape, dynamic=None):
    """Carry a function to Keras and back, compare values and graphs; return the Keras model and the module."""
    module = check.Function(function)
    x = torch.from_numpy(np.random.default_rng(0).normal(1, 1, (2, *shape)))
    want = check.to_last(module(x.clone()).numpy())
    model = check.to_keras(module, (x,), dynamic)
    assert check.relative(np.asarray(model(check.to_last(x.numpy()))), want) < 1e-12
    again = bridge.to_torch(model)
    assert check.relative(check.to_last(again(x).numpy()), want) < 1e-12
    check.same_graph(model, again, (x,), dynamic)
    return model, again


def both_ways(check, function, *shape):
    """Carry a function of keras.ops behind a convolution, whose layout it meets; return the graph's last operator."""
    x = keras.Input((*shape, 3), name="x")
    convolution = getattr(layers, f"Conv{len(shape)}D")(4, 2, padding="same", name="c")
    model = keras.Model(x, function(convolution(x)))
    module, again = check.both_ways(model)
    tensor = torch.randn(2, *(n or 7 for n in x.shape[1:]))
    opened = {0, *(a + (len(shape) > 1) for a, n in enumerate(x.shape) if a and n is None)}
    check.same_graph(model, module, (tensor.movedim(-1, 1) if len(shape) > 1 else tensor,), [opened])
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)
    return keras_reader.read(model).nodes[-1], module


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name, keepdims", [("sum", False), ("mean", False), ("max", True)])
def test_functions_of_keras(check, name, keepdims, axes):
    """Over any axes of an image; what is left has its axes where they were, and nothing is permuted but an output."""
    function = getattr(ops, name)
    node, module = both_ways(check, lambda x: function(x, axis=axes, keepdims=keepdims), 5, None)
    assert node.attributes == {"function": name, "axes": axes, "keepdims": keepdims}
    if keepdims:
        assert "permute" not in inspect.getsource(type(module))


@pytest.mark.parametrize("name", [n for n in (*reduction.FUNCTIONS, "amax", "amin") if n not in ("any", "all")])
def test_every_function_of_keras(check, name):
    function = getattr(ops, name)
    both_ways(check, lambda x: function(x, axis=-1), 6)
    both_ways(check, lambda x: function(x, axis=2, keepdims=True), 3, 4)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["mean", "max"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pooling_of_keras(check, rank, name, keepdims):
    """The function and the layer are the same node, and the layer of either framework where it has a name."""
    shape, axes = (5, None, 4)[:rank], tuple(range(1, rank + 1))
    pool = getattr(layers, f"Global{reduction.POOLING[name][0]}Pooling{rank}D")(keepdims=keepdims, name="pool")
    for function in (*([lambda x: getattr(ops, name)(x, axis=axes, keepdims=keepdims)] if rank == 2 else []), pool):
        node, module = both_ways(check, function, *shape)
        assert node.attributes == {"function": name, "axes": axes, "keepdims": keepdims}
        sizes = [5, 3] if rank == 1 else [3, 5, 4, 4][: rank + 1]
        assert type(bridge.to_keras(module, (torch.randn(2, *sizes),)).layers[-1]) is type(pool)
    assert f"self.pool = nn.Adaptive{reduction.POOLING[name][1]}Pool{rank}d(1)\n" in inspect.getsource(type(module))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean([-1, -2]),
        lambda x: x.mean(dim=(2, 3), keepdim=True),
        lambda x: x.mean(dim=(2, 3), keepdim=True).flatten(1),
        lambda x: torch.amax(x, (2, 3)),
        lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
        lambda x: x.permute(0, 2, 3, 1).flatten(1, 2).mean(1),
        lambda x: nn.functional.adaptive_avg_pool2d(x, 1).flatten(1),
    ],
)
def test_global_pooling_of_torch(check, function):
    model, _ = from_torch(check, function, 3, 4, 5)
    kinds = [type(x).__name__ for x in model.layers[1:]]
    assert kinds[-1].startswith("Global") and [k for k in kinds if k != "Reshape"] == kinds[-1:]


def test_the_mean_of_a_sequence(check):
    """That of a vision transformer permutes nothing."""
    x = keras.Input((5, 4), name="x")
    model = keras.Model(x, layers.GlobalAveragePooling1D(name="pool")(layers.Dense(3, name="d")(x)))
    module, again = check.both_ways(model)
    assert "return torch.mean(" in inspect.getsource(type(module)).replace("x = torch", "return torch")
    assert "permute" not in inspect.getsource(type(module))
    assert type(again.layers[-1]) is layers.GlobalAveragePooling1D


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(1),
        lambda x: x.sum((1, 3), keepdim=True),
        lambda x: x.sum([1, 2, 3]),
        lambda x: x.mean(1, keepdim=True) * x,
        lambda x: x.mean(dim=(1, 2, 3)),
        lambda x: x.amin(-1),
        lambda x: x.max(1).values,
        lambda x: x.max(1, keepdim=True)[0] + x,
        lambda x: torch.min(x, 2)[0],
        lambda x: x.prod(3),
        lambda x: x.prod(1, keepdim=True),
        lambda x: x.logsumexp((1, 2)),
        lambda x: x.var((2, 3)),
        lambda x: x.var(1, unbiased=False),
        lambda x: torch.std(x, 1, correction=0),
        lambda x: x.std((1, 2, 3), keepdim=True) * x,
        lambda x: x.std(2, correction=2),
        lambda x: torch.ops.aten.var.correction(x, [2]),
        lambda x: x / x.mean((0, 2, 3), keepdim=True),
        lambda x: x - x.sum((1, 2, 3)).reshape(-1, 1, 1, 1),
    ],
)
def test_from_torch(check, function):
    from_torch(check, function, 3, 4, 5)


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "min", "prod"])
def test_everything_at_once(check, name):
    """The batch, too: a number that others are divided by."""
    from_torch(check, lambda x: x / getattr(x, name)().reshape(1, 1, 1, 1), 2, 3, 2)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 3, 4, 5)])
def test_ranks_from_torch(check, shape):
    from_torch(check, lambda x: x.sum(-1), *shape)
    from_torch(check, lambda x: x.mean(1, keepdim=True), *shape)


def test_no_permute_between(check):
    """A squeeze-and-excitation block by hand stays in the layout of its convolutions."""
    x = keras.Input((6, 5, 3), name="x")
    y = layers.Conv2D(4, 3, name="a")(x)
    y = y * ops.sigmoid(layers.Conv2D(4, 1, name="b")(ops.sum(y, axis=(1, 2), keepdims=True) / 12))
    y = y - ops.max(y, axis=-1, keepdims=True)
    model = keras.Model(x, layers.Conv2D(2, 2, name="c")(y))
    module, again = check.both_ways(model)
    assert "permute" not in inspect.getsource(type(module))
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)
    assert bridge.verify(model, module).passed


def test_verified(check):
    torch.manual_seed(0)

    class Standardised(nn.Module):
        """Normalisation by hand, and a classifier's end without a module."""

        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            x = self.conv(x)
            x = (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1)
            return self.fc(x.relu().mean([2, 3])) - x.square().sum((1, 2, 3)).unsqueeze(1)

    module = Standardised()
    model = bridge.to_keras(module, (torch.randn(2, 3, 6, 6),))
    assert bridge.verify(model, module).passed and bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: x.sum(1, dtype=torch.float64), "dtype=torch.float64; convert the tensor before"),
        (lambda x: x + x.argmax(), "argmax over all axes, the batch included; name one axis"),
        (
            lambda x: x.var(0),
            r"correction=1 over axes of sizes \(None,\); give correction=0, or export with sizes that",
        ),
        (lambda x: x.std(2, correction=5), r"correction=5 over axes of sizes \(5,\); give correction=0"),
    ],
)
def test_refused_from_torch(check, function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(check.Function(function), (torch.randn(2, 4, 5),))


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.max(x, axis=1, initial=0.0), r"\(Max\): initial=0.0; leave it out, and take the maximum with"),
        (
            lambda x: ops.prod(x, axis=(1, 2)),
            r"a product over the axes \(1, 2\); take it over one axis after the oth",
        ),
        (lambda x: ops.prod(x, axis=1, dtype="float64"), r"\(Prod\): dtype=float64; convert the tensor before"),
    ],
)
def test_refused_from_keras(function, text):
    x = keras.Input((4, 5), name="x")
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x > 1).any(1),
        lambda x: (x > -0.5).all((2, 3), keepdim=True),
        lambda x: (x > 1).sum(2),
        lambda x: torch.count_nonzero(x.relu(), 1),
        lambda x: (x * 3).long().sum(1),
        lambda x: x.argmax(1),
        lambda x: x.argmin(-1, keepdim=True),
        lambda x: x.max(1).indices + x.max(1).values,
        lambda x: x.min(2, keepdim=True)[1],
    ],
)
def test_masks_and_positions(check, function):
    from_torch(check, lambda x: function(x).to(x.dtype), 3, 4, 5)


@pytest.mark.parametrize("name", ["any", "all", "sum", "count_nonzero", "argmax", "argmin"])
def test_masks_and_positions_of_keras(check, name):
    make = (lambda x: x) if "arg" in name else (lambda x: x > 0)
    both_ways(check, lambda x: ops.cast(getattr(ops, name)(make(x), axis=-1), "float32"), 5, 4)


def test_integers_are_refused():
    x = keras.Input((4,), dtype="int32", name="x")
    with pytest.raises(bridge.BridgeError, match="it is computed from int32; convert the tensor to a float"):
        bridge.to_torch(keras.Model(x, ops.prod(x, axis=1)))


@pytest.mark.parametrize("function", [torch.min, torch.max])
def test_of_two_tensors(check, function):
    """They are joined cell by cell, of floats and of whole numbers."""
    check.from_torch(check.Function(lambda x: function(x, x.flip(1) * 2)), torch.randn(2, 5))
    module, x = check.Function(lambda x: function(x, torch.full_like(x, -2))), torch.arange(-4, 4).reshape(2, 4)
    model = bridge.to_keras(module, (x,))
    check.whole(model, module, x)
    check.whole(model, bridge.to_torch(model), x)
