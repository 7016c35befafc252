"""softmax, log_softmax, sparsemax and glu along every axis and in every layout, both ways."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge import align, convert, keras_reader, layout, torch_export, torch_reader

layers, ops = keras.layers, keras.ops
SHAPES = {2: (4,), 3: (5, 4), 4: (3, 6, 4), 5: (2, 3, 5, 4)}
AXES = [(rank, axis) for rank in SHAPES for axis in range(1, rank)]


def apply(function, *shape):
    x = keras.Input(shape, name="x")
    return keras.Model(x, function(x), name="net")


def assert_aligned(model, module, *tensors):
    """The normal form: both readers give the same graph."""
    first = layout.convert(keras_reader.read(model), "first")
    second = layout.convert(torch_reader.read(module, tensors), "first")
    pairs, sentences = align.align(first, second)
    assert not sentences + align.differences(pairs, first, second)


def example(model, check):
    return torch.from_numpy(check.to_first(np.zeros((2, *[n or 4 for n in model.input_shape[1:]]), "float32")))


@pytest.mark.parametrize("rank, axis", AXES)
def test_layer(check, rank, axis):
    """Every axis of every rank: torch's is where the channels-first tensor has it."""
    model = apply(layers.Softmax(axis=axis, name="act"), *SHAPES[rank])
    module, again = check.both_ways(model)
    assert_aligned(model, module, example(model, check))
    assert again.get_layer("act").get_config()["axis"] in (axis, axis - rank)
    dim = axis if rank < 4 else 1 if axis == rank - 1 else axis + 1
    assert module.act.dim in (dim, dim - rank)
    assert "permute" not in convert.source(model).text


@pytest.mark.parametrize("function", ["softmax", "log_softmax", "sparsemax", "glu"])
@pytest.mark.parametrize("rank, axis", [(2, -1), (3, 1), (4, -1), (4, 1), (4, -2), (5, 2), (5, -1)])
def test_operation(check, rank, axis, function):
    model = apply(
        lambda x: getattr(ops, function)(x / 50 if function == "sparsemax" else x, axis=axis),
        *(2 * n for n in SHAPES[rank]),
    )
    module, again = check.both_ways(model)
    assert_aligned(model, module, example(model, check))
    assert [n.attributes for n in keras_reader.read(again).nodes] == [
        n.attributes for n in keras_reader.read(model).nodes
    ]
    assert "permute" not in convert.source(model).text


@pytest.mark.parametrize("axes", [(1, 2), (2, -1), (-3, -2, -1), [2]])
def test_several_axes(check, axes):
    """Only the layer takes several: keras.ops.softmax records them, but does not run."""
    model = apply(layers.Softmax(axes, name="act"), None, 3, 4)
    module, again = check.both_ways(model)
    assert_aligned(model, module, example(model, check))
    assert [n.attributes for n in keras_reader.read(again).nodes] == [
        n.attributes for n in keras_reader.read(model).nodes
    ]


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sparsemax"])
def test_with_open_sizes(check, name):
    model = apply(lambda x: layers.Activation(name, name="act")(layers.Conv2D(5, 3, name="conv")(x)), None, None, 3)
    check.both_ways(model, size=6)


@pytest.mark.parametrize("axis", [1, -1])
def test_channels_first_layers_normalise_their_last_axis(axis):
    """activation="softmax" is over the last axis, whatever data_format says; Softmax(axis=1) is over the channels."""
    activation = "softmax" if axis == -1 else layers.Softmax(axis=1)
    layer = layers.Conv2D(4, 1, data_format="channels_first", activation=activation, name="conv")
    x = keras.Input((3, 5, 6), name="x")
    node = keras_reader.read(keras.Model(x, layer(x))).nodes[1]
    assert (node.operator, node["axis"]) == ("softmax", axis % 4)


@pytest.mark.parametrize(
    "module, shape, dim",
    [
        (nn.Softmax(1), (2, 5), 1),
        (nn.Softmax(1), (2, 3, 4, 5), 1),
        (nn.Softmax(-1), (2, 3, 4, 5), -1),
        (nn.Softmax(2), (2, 3, 4, 5), 2),
        (nn.LogSoftmax(1), (2, 3, 4, 5), 1),
        (nn.LogSoftmax(-1), (2, 3, 4), -1),
        (nn.Softmin(1), (2, 3, 4, 5), 1),
        (nn.GLU(1), (2, 4, 3, 5), 1),
        (nn.GLU(), (2, 3, 4, 6), -1),
        (nn.Softmax2d(), (2, 3, 4, 5), 1),
        (nn.Softmax(0), (2, 3), 0),
        (nn.GLU(), (2, 4), -1),
    ],
    ids=str,
)
def test_modules(module, shape, dim):
    x = torch.from_numpy(np.random.default_rng(0).normal(0, 3, shape))
    model = bridge.to_keras(nn.Sequential(module), (x,))
    last = (lambda a: np.moveaxis(a, 1, -1)) if len(shape) > 3 else (lambda a: a)
    np.testing.assert_allclose(np.asarray(model(last(x.numpy()))), last(module(x).numpy()), rtol=1e-12)
    assert_aligned(model, nn.Sequential(module), x)
    again = bridge.to_torch(model)
    torch.testing.assert_close(again(x), module(x), rtol=1e-12, atol=0)
    kept = next(m for m in again.children() if hasattr(m, "dim"))
    assert kept.dim % len(shape) == dim % len(shape)
    assert type(kept).__name__ == type(module).__name__.replace("Softmin", "Softmax").replace("Softmax2d", "Softmax")


@pytest.mark.parametrize(
    "function",
    [
        layers.Softmax(1),
        layers.Softmax([1, 2]),
        layers.Activation("log_softmax"),
        lambda x: ops.log_softmax(x, 1),
        lambda x: ops.sparsemax(x / 500, 1),
        lambda x: ops.glu(x, 1),
    ],
)
def test_extreme_values_and_gradients(check, function):
    model = apply(function, 6, 4)
    x = np.random.default_rng(0).uniform(-50, 50, (3, 6, 4))
    module = bridge.to_torch(model).double()
    tensor, variable = torch.from_numpy(x).requires_grad_(), tf.Variable(x)
    with tf.GradientTape() as tape:
        want = check.in_dtype(model)(variable)
        weights = np.random.default_rng(1).normal(size=want.shape)
        total = tf.reduce_sum(want * weights)
    have = module(tensor)
    (have * torch.from_numpy(weights)).sum().backward()
    assert np.ptp(want) > 0.1
    np.testing.assert_allclose(have.detach().numpy(), want, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tensor.grad.numpy(), tape.gradient(total, variable), rtol=1e-7, atol=1e-9)


def test_sparsemax_is_that_of_keras_not_that_of_the_paper():
    x = np.array([[1.0, 0.9, -3.0]])
    module = bridge.to_torch(apply(layers.Activation("sparsemax"), 3)).double()
    np.testing.assert_allclose(module(torch.from_numpy(x)), [[0.05, 0, 0]], atol=1e-12)  # the paper's is 0.55, 0.45, 0


@pytest.mark.parametrize("function", [layers.Softmax([1, 2]), lambda x: ops.sparsemax(x / 50, 1)])
def test_helpers_survive(function):
    """deepcopy, double, pickle, torch.compile, and an export with open sizes."""
    module = bridge.to_torch(apply(function, None, 3))
    x = torch.randn(2, 5, 3)
    want = module(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.compile(module, backend="eager")):
        torch.testing.assert_close(other(x), want, rtol=0, atol=0)
    assert copy.deepcopy(module).double()(x.double()).dtype == torch.float64
    longer = torch.randn(2, 9, 3)
    torch.testing.assert_close(
        torch_export.export(module, (x,), [{0, 1}]).module()(longer), module(longer), rtol=0, atol=0
    )


def masked(axis, shape, dtype):
    x, mask = keras.Input((3, 5, 4), name="x"), keras.Input(shape, name="mask", dtype=dtype)
    return keras.Model([x, mask], layers.Softmax(axis, name="act")(x, mask=mask))


def given_mask(shape, dtype):
    """A row that lets nothing through among others; of numbers, those up to 0.5 let nothing through."""
    array = np.random.default_rng(2).uniform(0, 1, (2, *shape))
    array[0, ..., 0, :] = 0
    return array.astype(dtype) if "float" in dtype else (array > 0.4).astype(dtype)


@pytest.mark.parametrize("axis", [-1, 2, (2, 3)])
@pytest.mark.parametrize("dtype", ["bool", "float32", "int32"])
@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 5, 4)])
def test_a_mask(check, axis, dtype, shape):
    model, mask = masked(axis, shape, dtype), given_mask(shape, dtype)
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 4)).astype("float32")
    module = bridge.to_torch(model)
    report = bridge.verify(model, module, [x, mask])
    assert report.passed, str(report)
    tensors = tuple(torch.from_numpy(check.to_first(a)) for a in (x, mask))
    have, want = check.to_last(module(*tensors).numpy()), np.asarray(model([x, mask]))
    np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-7)
    assert not have[0, :, 0].any() and have[1, :, 0].any()
    assert not np.allclose(have, np.asarray(model([x, given_mask(shape, "bool") < 1 if dtype == "bool" else 1 - mask])))
    again = bridge.to_keras(module, tensors)
    report = bridge.verify(again, module, [x, mask])
    assert report.passed, str(report)


def test_a_mask_that_is_held(check):
    x = keras.Input((5, 4), name="x")
    mask = np.random.default_rng(2).uniform(size=(1, 5, 4)) > 0.4
    model = keras.Model(x, layers.Softmax(name="act")(x, mask=mask))
    module = check.both_ways(model).module
    assert isinstance(module.act, nn.Softmax)


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda x: ops.softmax(x, axis=None),
            r"softmax\w* \(Softmax\): axis=None of a tensor of rank 3; name its axes",
        ),
        (lambda x: ops.softmax(x, axis=True), r"softmax\w* \(Softmax\): axis=True of a tensor of rank 3"),
        (
            lambda x: ops.log_softmax(x, axis=(1, 2)),
            r"log_softmax\w* \(LogSoftmax\): log_softmax over the axes \(1, 2\); give one",
        ),
    ],
)
def test_what_is_refused(function, text):
    x = keras.Input((3, 4))
    model = keras.Model(x, function(x))
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(model)


class Cast(nn.Module):
    def forward(self, x):
        return F.softmax(x, 1, dtype=torch.float64)


def test_a_softmax_that_casts_is_refused():
    with pytest.raises(bridge.BridgeError, match=r"dtype=torch.float64; convert the tensor before"):
        bridge.to_keras(Cast(), (torch.randn(2, 3),))
