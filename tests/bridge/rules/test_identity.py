"""Identity, stop_gradient and casts, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, torch_reader

layers, ops = keras.layers, keras.ops


def network(make, shape=(5, 7, 3)):
    x = keras.Input(shape, name="x")
    y = layers.Conv2D(3, 3, name="a")(x)
    return keras.Model(x, layers.Conv2D(2, 1, name="b")(make(y)))


@pytest.mark.parametrize(
    "make",
    [
        layers.Identity(name="i"),
        layers.ActivityRegularization(name="i"),
        lambda x: ops.cast(x, "float32"),
        lambda x: layers.Add()([layers.Identity()(x), x]),
    ],
)
def test_identities_leave_nothing(check, make):
    model = network(make)
    module, again = check.both_ways(model)
    assert "permute" not in inspect.getsource(type(module)) and len(list(module.children())) == 2
    check.same_graph(model, module, (torch.randn(2, 3, 5, 7),))
    assert not [x for x in again.layers if isinstance(x, (layers.Identity, layers.ActivityRegularization))]


def test_identity_at_the_ends(check):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Identity(name="last")(layers.Dense(3, name="d")(layers.Identity(name="first")(x))))
    module = check.both_ways(model).module
    assert bridge.verify(model, module).passed


def test_nn_identity(check):
    module = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(6, 3), torch.nn.Identity())
    model = bridge.to_keras(module, (torch.randn(2, 6),))
    assert [type(x) for x in model.layers[1:]] == [layers.Dense]
    assert bridge.verify(model, module).passed


def test_penalties_on_activity_are_told():
    x = keras.Input((6,), name="x")
    y = layers.ActivityRegularization(l1=0.1, l2=0.2, name="r")(x)
    model = keras.Model(x, layers.Dense(3, activity_regularizer="l2", name="d")(y))
    assert [n.split(" belongs")[0] for n in keras_reader.read(model).notes] == [
        "r: l1",
        "r: l2",
        "d: activity_regularizer",
    ]
    assert "Note: r: l1 belongs to Keras' training" in inspect.getsource(
        inspect.getmodule(type(bridge.to_torch(model)))
    )


def test_stop_gradient(check):
    model = network(lambda x: ops.stop_gradient(x) * 2 + x)
    module, again = check.both_ways(model, back="float32")
    assert ".detach()" in inspect.getsource(type(module))
    assert bridge.verify(model, module).passed and bridge.verify(again, module).passed
    other = bridge.to_torch(network(lambda x: x * 2 + x))
    other.load_state_dict(module.state_dict())
    report = str(bridge.verify(model, other))
    assert "stop_gradient" in report and "has no counterpart" in report


def test_detach(check):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 4), torch.nn.Linear(6, 4)

        def forward(self, x):
            return self.a(x) + self.b(x).detach()

    module, x = Module().eval(), torch.randn(2, 6)
    model = bridge.to_keras(module, (x,))
    assert check.relative(model(x.numpy()), module(x).detach()) < 1e-6
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize("given", ["int32", "int64", "uint8", "bool"])
def test_whole_numbers_to_floats(check, given):
    x = keras.Input((6,), dtype=given, name="x")
    model = keras.Model(x, layers.Dense(3, name="d")(ops.cast(x, "float32") / 255))
    check.randomise(model)
    module = bridge.to_torch(model)
    numbers = np.arange(12).reshape(2, 6).astype(given)
    assert check.relative(module(torch.from_numpy(numbers)).detach(), model(numbers)) < 1e-6
    again = bridge.to_keras(module, (torch.from_numpy(numbers),))
    assert again.inputs[0].dtype == given
    np.testing.assert_array_equal(again(numbers), model(numbers))
    if given == "uint8":
        assert bridge.verify(model, module).passed and bridge.verify(again, module).passed
        assert module.double()(torch.from_numpy(numbers)).dtype == torch.float64  # whatever the module is converted to
        assert module.half()(torch.from_numpy(numbers)).dtype == torch.float16
        assert torch.compile(module, backend="eager", fullgraph=True)(torch.from_numpy(numbers)).dtype == torch.float16


@pytest.mark.parametrize("wanted", ["int32", "int64", "uint8"])
def test_floats_to_whole_numbers(check, wanted):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, ops.cast(x * 3, wanted))
    module, numbers = bridge.to_torch(model), np.linspace(0, 9, 12, dtype="float32").reshape(2, 6)
    np.testing.assert_array_equal(module(torch.from_numpy(numbers)), model(numbers))
    again = bridge.to_keras(module, (torch.from_numpy(numbers),))
    np.testing.assert_array_equal(again(numbers), model(numbers))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.float(),
        lambda x: x.to(torch.float32),
        lambda x: x.type(torch.float32) * 2,
        lambda x: x.to("cpu").float(),
    ],
)
def test_from_torch(check, function):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c = torch.nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.c(function(x) / 255)

    module, x = Module().eval(), torch.randint(0, 255, (2, 3, 5, 7), dtype=torch.uint8)
    model = bridge.to_keras(module, (x,))
    have = check.to_first(np.asarray(model(check.to_last(x.numpy()))))
    assert check.relative(have, module(x).detach()) < 1e-5
    assert bridge.verify(model, module).passed
    assert torch_reader.read(module, (x,)).nodes[0].operator == "cast"


def test_refusals():
    x = keras.Input((6,), name="x")
    with pytest.raises(bridge.BridgeError, match="it makes complex64 of float32; compute with real numbers"):
        bridge.to_torch(keras.Model(x, ops.cast(x, "complex64")))
    integers = keras.Input((6,), dtype="int32", name="integers")
    with pytest.raises(bridge.BridgeError, match=r"it makes float32 of int32; cast it first: keras.ops.cast\(x"):
        bridge.to_torch(keras.Model(integers, integers / 3))
