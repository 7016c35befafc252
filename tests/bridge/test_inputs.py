"""Inputs of several dtypes at once, both ways, and what becomes of an index that no row has."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import keras_reader, samples

layers, ops = keras.layers, keras.ops
WHOLE = ("bool", "uint8", "int8", "int16", "int32", "int64")


def carried(check, model):
    check.randomise(model)
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    zeros = [torch.zeros([2 if d is None else d for d in t.shape], dtype=getattr(torch, t.dtype)) for t in model.inputs]
    again = check.to_keras(module, tuple(zeros))
    assert [t.dtype for t in again.inputs] == [t.dtype for t in model.inputs]
    return module


@pytest.mark.parametrize("dtype", [*WHOLE, "float16", "float64"])
def test_one_beside_floats(check, dtype):
    a, b = keras.Input((3,), dtype=dtype, name="a"), keras.Input((3,), name="b")
    y = layers.Concatenate(name="both")([ops.cast(a, "float32"), b])
    carried(check, keras.Model([a, b], layers.Dense(2, name="d")(y), name="net"))


@pytest.mark.parametrize("dtype", WHOLE)
def test_an_index_beside_floats(check, dtype):
    a, b = keras.Input((4,), dtype=dtype, name="a"), keras.Input((4, 3), name="b")
    y = layers.Embedding(7, 3, name="t")(a) * b
    module = carried(check, keras.Model([a, b], layers.Dense(2, name="d")(y), name="net"))
    assert isinstance(module.t, nn.Embedding)


def test_a_mask_and_two_indices(check):
    """All at once, in a dictionary."""
    inputs = {
        "mask": keras.Input((5,), dtype="bool", name="mask"),
        "tokens": keras.Input((5,), dtype="int64", name="tokens"),
        "kinds": keras.Input((5,), dtype="int32", name="kinds"),
        "picture": keras.Input((6, 5, 3), dtype="uint8", name="picture"),
    }
    y = layers.Embedding(11, 4, name="t")(inputs["tokens"]) + layers.Embedding(3, 4, name="k")(inputs["kinds"])
    y = ops.where(ops.expand_dims(inputs["mask"], -1), y, 0.0)
    z = layers.Conv2D(4, 3, name="c")(layers.Rescaling(1 / 255, name="r")(inputs["picture"]))
    y = layers.GlobalAveragePooling1D(name="p")(y) + layers.GlobalAveragePooling2D(name="q")(z)
    model = check.randomise(keras.Model(inputs, layers.Dense(2, name="d")(y), name="net"))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed, str(report)


class Tokens(nn.Module):
    """A table, what it is weighted with, and floats."""

    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(7, 3), nn.Linear(6, 2)

    def forward(self, index, x, weight):
        return self.last(torch.cat([self.table(index) * weight.unsqueeze(-1), x], -1))


@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("weight", [torch.bool, torch.uint8, torch.float16, torch.float32])
def test_from_torch(check, index, weight):
    tensors = torch.randint(0, 7, (2, 4), dtype=index), torch.randn(2, 4, 3), torch.ones(2, 4, dtype=weight)
    module = Tokens()
    model = check.to_keras(module, tensors)
    assert [t.dtype for t in model.inputs] == [str(t.dtype).removeprefix("torch.") for t in tensors]
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "function", [torch.add, torch.sub, torch.mul, torch.maximum, lambda a, b: torch.cat([a, b], 1)]
)
@pytest.mark.parametrize("dtypes", [("float16", "float32"), ("float32", "float64"), ("float64", "float16")])
def test_floats_of_two_sizes(check, function, dtypes):
    tensors = [torch.randn(2, 3).to(getattr(torch, d)) for d in dtypes]
    module = check.Function(function)
    model = check.to_keras(module, tuple(tensors))
    have = np.asarray(model([t.numpy() for t in tensors]))
    want = function(*tensors).numpy()
    assert have.dtype == want.dtype
    np.testing.assert_array_equal(have, want)


def test_what_is_drawn():
    """Below the size of a table, in the range of the dtype, and of more than one value."""
    a, b, c = (keras.Input((50,), dtype=d, name=d) for d in ("int64", "uint8", "bool"))
    d = keras.Input((50,), name="d")
    y = layers.Embedding(5, 2)(a)[..., 0] + ops.cast(b, "float32") + ops.cast(c, "float32")
    z = layers.Discretization([100.0, 200.0])(d)
    graph = keras_reader.read(keras.Model([a, b, c, d], [y, z]))
    index, byte, truth, number = samples.sample(graph, 9)
    assert set(index.ravel()) == set(range(5)) and index.dtype == "int64"
    assert byte.dtype == "uint8" and byte.max() > 200 and byte.min() < 50
    assert truth.dtype == "bool" and 0 < truth.mean() < 1
    assert set(np.digitize(number, [100, 200]).ravel()) == {0, 1, 2} and (number == 100).any()


def test_a_fault_is_found(check):
    """The largest row is drawn: a table that is a row short is seen."""
    a = keras.Input((6,), dtype="int32", name="a")
    model = check.randomise(keras.Model(a, layers.Embedding(4, 3, name="t")(a), name="net"))
    module = bridge.to_torch(model)
    module.t.weight.data[3] += 0.1
    assert not bridge.verify(model, module).passed


@pytest.fixture
def table(check):
    a = keras.Input((2,), dtype="int32", name="a")
    model = check.randomise(keras.Model(a, layers.Embedding(4, 3, name="t")(a), name="net"))
    return model, bridge.to_torch(model)


def test_an_index_that_is_too_large(table):
    """An error on both sides, on a CPU."""
    model, module = table
    with pytest.raises(Exception, match=r"indices\[0,1\] = 4 is not in \[0, 4\)"):
        model(np.array([[0, 4]], "int32"))
    with pytest.raises(IndexError, match="index out of range"):
        module(torch.tensor([[0, 4]]))


def test_a_negative_index(table):
    """From the end in Keras, an error in torch."""
    model, module = table
    rows = np.asarray(model.get_layer("t").embeddings)
    np.testing.assert_array_equal(np.asarray(model(np.array([[0, -1]], "int32")))[0], rows[[0, 3]])
    with pytest.raises(IndexError, match="index out of range"):
        module(torch.tensor([[0, -1]]))
