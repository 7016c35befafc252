"""Functions of one tensor, cell by cell, both ways; values at extremes and gradients at kinks."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import bridge
from bridge import keras_reader
from bridge.rules import elementwise

layers, ops = keras.layers, keras.ops
POSITIVE = ("log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sqrt")
BOUNDED = ("arccos", "arcsin", "arctanh", "erfinv", "tan")
CUT = ("ceil", "floor", "round", "sign", "trunc")


def inside(name, x):
    """Bring a tensor to where a function is defined and smooth, in either framework."""
    if name in POSITIVE:
        return x * x + 0.5
    if name == "arccosh":
        return x * x + 1.5
    return x / (x * x + 2) if name in BOUNDED else x


def from_torch(check, function, *shape):
    """Carry a function to Keras and back, and compare values and graphs."""
    module = check.Function(function)
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (2, *shape)))
    want = module(x.clone()).numpy()
    model = check.to_keras(module, (x,))
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-12
    again = bridge.to_torch(model)
    assert check.relative(again(x).numpy(), want) < 1e-12
    check.same_graph(model, again, (x,))
    return model


@pytest.mark.parametrize("name", elementwise.FUNCTIONS)
def test_functions_of_keras(check, name):
    """In the layout of the image, at an open size."""
    x = keras.Input((None, 4, 3), name="x")
    model = keras.Model(x, getattr(ops, name)(inside(name, x)))
    module, again = check.both_ways(model)
    check.same_graph(model, module, (torch.randn(2, 3, 5, 4),), [{0, 2}])
    same = [[n.attributes for n in keras_reader.read(m).nodes] for m in (model, again)]
    assert same[0] == same[1]


@pytest.mark.parametrize("target", elementwise.ATEN)
def test_functions_of_torch(check, target):
    """Under every name that torch.export uses."""
    function = (
        getattr(torch.special, target.removeprefix("special_")) if "special" in target else getattr(torch, target)
    )
    from_torch(check, lambda x: function(inside(elementwise.ATEN[target], x)), 3, 4, 5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x**2,
        lambda x: x**3,
        lambda x: (x * x + 1) ** 0.5,
        lambda x: (x * x + 1) ** -1.5,
        lambda x: (x * x + 1) ** -1,
        lambda x: 2**x,
        lambda x: abs(x),
        lambda x: 1 / (x * x + 1),
    ],
)
def test_operators_of_python(check, function):
    """The same expression, in Keras and in torch, is the same graph."""
    x = keras.Input((4, 5, 3), name="x")
    model = keras.Model(x, function(x))
    check.both_ways(model)
    check.same_graph(model, check.Function(function), (torch.randn(2, 3, 4, 5),))
    from_torch(check, function, 3, 4)


@pytest.mark.parametrize("number", [0.5, -0.25, 2, 0])
@pytest.mark.parametrize("function", ["maximum", "minimum"])
def test_bounds(check, function, number):
    x = keras.Input((4, 5, 3), name="x")
    one = keras.Model(x, getattr(ops, function)(x, number))
    other = keras.Model(x, getattr(ops, function)(np.float32(number), x))
    side = {"maximum": "min", "minimum": "max"}[function]
    for model in (one, other):
        check.both_ways(model)
        check.same_graph(model, check.Function(lambda x: x.clamp(**{side: number})), (torch.randn(2, 3, 4, 5),))
    for target in (getattr(torch, f"clamp_{side}"), lambda x, n: torch.clip(x, **{side: n})):
        from_torch(check, lambda x, target=target: target(x * 1.5, number), 3, 4)


@pytest.mark.parametrize("name", ["sqrt_", "abs_", "square_", "log1p_"])
def test_in_place(check, name):
    from_torch(check, lambda x: getattr(x * x + 1, name)() + x, 3, 4)


def test_half_is_rounded_to_even(check):
    """As both frameworks do: 0.5 to 0, 1.5 to 2."""
    x = torch.tensor([[-2.5, -0.5, 0.5, 1.5, 2.5]], dtype=torch.float64)
    model = bridge.to_keras(check.Function(torch.round), (torch.cat([x, x + 0.25]),))
    np.testing.assert_array_equal(np.asarray(model(x.numpy())), [[-2, 0, 0, 2, 2]])


@pytest.mark.parametrize("name", elementwise.FUNCTIONS)
def test_values_at_extremes(name):
    """Outside of where a function is defined both give NaN or the same infinity, but for what the docstring names."""
    x = np.array([0.0, -0.0, 0.5, -0.5, 1.5, 1.0, -1.0, 1e-300, 700.0, -700.0, np.inf, -np.inf, np.nan])
    want = getattr(ops, name)(x).numpy()
    have = getattr(torch, elementwise.FUNCTIONS[name][0])(torch.from_numpy(x)).numpy()
    alike = {
        "erf": np.isfinite(x),
        "erfinv": np.abs(x) != 1e-300,
        "sign": ~np.isnan(x),
    }.get(name, np.full(x.shape, True))
    np.testing.assert_allclose(have[alike], want[alike], rtol=1e-12)


SMOOTH = [n for n in elementwise.FUNCTIONS if n not in CUT]


@pytest.mark.parametrize("name", elementwise.FUNCTIONS)
def test_gradients(name):
    """At 0, 1 and -1 as well, but for what the docstring names."""
    x = np.array([0.0, 1.0, -1.0, 0.3, -0.7, 1.9])
    if name in ("arccosh", "sinc"):
        x = x[3:]
    v = tf.Variable(x)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(getattr(ops, name)(v))
    want = tape.gradient(total, v, unconnected_gradients="zero").numpy()
    t = torch.tensor(x, requires_grad=True)
    getattr(torch, elementwise.FUNCTIONS[name][0])(t).sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), want, rtol=1e-9)


def test_verified(check):
    torch.manual_seed(0)

    class Generalised(nn.Module):
        """Generalised-mean pooling, and a normalisation by hand."""

        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x):
            x = self.conv(x).clamp(min=1e-2).pow(3)
            x = nn.functional.avg_pool2d(x, 4).flatten(1).pow(1 / 3)
            return self.fc(torch.log1p(x) * torch.rsqrt(x.square() + 1)).abs()

    module = Generalised()
    model = bridge.to_keras(module, (torch.randn(2, 3, 6, 6),))
    assert bridge.verify(model, module).passed and bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: torch.round(x, decimals=2), "it rounds to 2 decimals; multiply, round and divide"),
        (lambda x: x.clamp(min=float("nan")), "nan is not a plain number; give it as one"),
    ],
)
def test_refused_from_torch(check, function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_keras(check.Function(function), (torch.randn(2, 4),))


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.round(x, 2), r"\(Round\): it rounds to 2 decimals; multiply, round and divide"),
        (lambda x: ops.maximum(x, np.nan), r"\(Maximum\): nan is not a plain number"),
    ],
)
def test_refused_from_keras(function, text):
    x = keras.Input((4,), name="x")
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))


def test_integers_are_refused(check):
    text = "sqrt is computed from int{}; convert the tensor to a float dtype before"
    x = keras.Input((4,), dtype="int32", name="x")
    with pytest.raises(bridge.BridgeError, match=text.format(32)):
        bridge.to_torch(keras.Model(x, ops.sqrt(x)))
    with pytest.raises(bridge.BridgeError, match=text.format(64)):
        bridge.to_keras(check.Function(torch.sqrt), (torch.arange(8).reshape(2, 4),))


BOUNDS = {
    "min": lambda x: x.clamp(min=-3),
    "max": lambda x: x.clamp(max=2**24 + 1),
    "zero": lambda x: torch.clamp_min(x, 0),
    "below": lambda x: torch.clamp_max(x, -1),
}


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("function", [torch.abs, torch.sign, torch.square, *BOUNDS.values()])
def test_whole_numbers_of_torch(check, function, dtype):
    """They stay whole: 2**24 + 3 has no float32."""
    module, x = check.Function(function), torch.tensor([[-5, 3, 2**24 + 3], [0, -1, -(2**24) - 3]]).to(dtype)
    check.whole(bridge.to_keras(module, (x,)), module, x)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
@pytest.mark.parametrize("name", [*elementwise.WHOLE, "maximum", "minimum"])
def test_whole_numbers_of_keras(check, name, dtype):
    x = keras.Input((3,), dtype=dtype, name="x")
    model = keras.Model(x, getattr(ops, name)(x, *([2] if "imum" in name else [])))
    numbers = torch.tensor([[-5, 3, 2**24 + 3], [0, -1, 2]]).to(getattr(torch, dtype))
    module = bridge.to_torch(model)
    check.whole(model, module, numbers)
    check.whole(bridge.to_keras(module, (numbers,)), module, numbers)


def test_a_float_beside_whole_numbers(check):
    """torch makes floats of them, Keras as well, of which it is said; other dtypes of numbers are not mixed."""
    module, x = check.Function(lambda x: torch.clamp_min(x, 0.5)), torch.arange(-3, 3).reshape(2, 3)
    check.whole(bridge.to_keras(module, (x,)), module, x)
    x = keras.Input((3,), dtype="int32", name="x")
    for number, text in ((0.5, "it makes float32 of int32"), (np.int64(3), "it makes int64 of int32; give it a")):
        with pytest.raises(bridge.BridgeError, match=text):
            bridge.to_torch(keras.Model(x, ops.maximum(x, number)))
    with pytest.raises(bridge.BridgeError, match="1099511627776 is no number of int32; give it as a whole number in"):
        bridge.to_torch(keras.Model(x, ops.maximum(x, 2**40)))


def test_a_layout_passes_through(check):
    x = keras.Input((6, 5, 3), name="x")
    y = ops.power(ops.absolute(layers.Conv2D(3, 2, name="a")(x)) + 1, 1.5)
    module, again = check.both_ways(keras.Model(x, layers.Conv2D(2, 1, name="b")(ops.sin(y))))
    assert not any(isinstance(layer, layers.Permute) for layer in again.layers)
    assert "permute" not in inspect.getsource(type(module))
