"""Categories: bins, encodings and vocabularies, both ways."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import convert

layers = keras.layers
BOUNDS = [-0.7, 0.1, 2.5]


def network(shape, layer, dtype="float32", dense=True):
    """A layer, and behind what it encodes a Dense."""
    x = keras.Input(shape, dtype=dtype, name="x")
    y = layer(x)
    return keras.Model(x, layers.Dense(3, name="d")(y) if dense else y, name="net")


def carried(check, model):
    """Verified, and back; the module and the model that came back."""
    check.randomise(model)
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    inputs = [np.zeros([2 if d is None else d for d in t.shape], t.dtype) for t in model.inputs]
    again = check.to_keras(module, tuple(map(torch.from_numpy, inputs)))  # and reads as the same graph
    return module, again


def same(module, model, *x):
    """What both make of these numbers."""
    with torch.no_grad():
        have = module(*(torch.from_numpy(a) for a in x)).numpy()
    have = np.moveaxis(have, 1, -1) if have.ndim == 4 else have
    want = np.asarray(model(x[0] if len(x) == 1 else list(x)))
    np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
@pytest.mark.parametrize("shape", [(5,), (1,)])
def test_bins(check, mode, shape):
    layer = layers.Discretization(BOUNDS, output_mode=mode, name="b")
    model = network(shape, layer, dense=mode != "int")
    module, again = carried(check, model)
    assert module.b.mode == mode if mode != "int" else tuple(np.float32(module.b.bounds)) == tuple(np.float32(BOUNDS))
    rng = np.random.default_rng(0)
    x = rng.choice([*BOUNDS, np.nan, np.inf, -np.inf, -5, 0.0999999, 0.1000001], (50, *shape)).astype("float32")
    same(module, model, x)
    same(module, again, x)


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
def test_bins_of_more_axes(check, mode):
    model = network((3, 2), layers.Discretization(BOUNDS, output_mode=mode, name="b"), dense=mode != "int")
    module = bridge.to_torch(check.randomise(model))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    if mode in ("multi_hot", "count"):  # Keras' CategoryEncoding says another shape than it makes
        with pytest.raises(bridge.BridgeError, match=f"{mode} of an input of shape .*; give it a shape"):
            bridge.to_keras(module, (torch.randn(2, 3, 2),))


def test_bins_that_are_adapted(check):
    layer = layers.Discretization(num_bins=6, name="b")
    layer.adapt(np.random.default_rng(0).normal(size=(400, 1)).astype("float32"))
    module, again = carried(check, network((4,), layer, dense=False))
    assert len(module.b.bounds) == 5 and len(again.get_layer("b").bin_boundaries) == 5


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float16", "float64"])
def test_bins_of_other_numbers(check, dtype):
    layer = layers.Discretization([-3.0, 2.0, 5.0], name="b", output_mode="one_hot")
    model = check.randomise(network((4,), layer, dtype))
    module = bridge.to_torch(model)
    same(module, model, np.arange(8).reshape(2, 4).astype(dtype))
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize("mode, shape", [("one_hot", (4,)), ("one_hot", (1,)), ("one_hot", ()), ("one_hot", (3, 2))])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_one_hot(check, mode, shape, dtype):
    module, again = carried(check, network(shape, layers.CategoryEncoding(5, mode, name="e"), dtype))
    assert type(again.get_layer("e")) is layers.CategoryEncoding
    x = np.random.default_rng(0).integers(-1, 7, (20, *shape)).astype(dtype)
    same(module, again, x)  # none of the categories


@pytest.mark.parametrize("mode", ["multi_hot", "count"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_all_of_an_example(check, mode, dtype):
    model = network((6,), layers.CategoryEncoding(5, mode, name="e"), dtype)
    module, again = carried(check, model)
    assert again.get_layer("e").output_mode == mode
    x = np.random.default_rng(0).integers(0, 7, (20, 6)).astype(dtype)
    same(module, model, x)


def test_count_weights(check):
    x, w = keras.Input((6,), dtype="int32", name="x"), keras.Input((6,), name="w")
    y = layers.CategoryEncoding(5, "count", name="e")(x, count_weights=keras.ops.tanh(w))
    model = keras.Model([x, w], layers.Dense(2, name="d")(y), name="net")
    module, again = carried(check, model)
    rng = np.random.default_rng(0)
    same(module, again, rng.integers(0, 5, (4, 6)).astype("int32"), rng.normal(size=(4, 6)).astype("float32"))


VOCABULARY = [12, 36, 7, 1138, -5]


@pytest.mark.parametrize("oov", [0, 1, 3])
@pytest.mark.parametrize("mask", [None, 0])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_vocabulary(check, oov, mask, dtype):
    layer = layers.IntegerLookup(vocabulary=VOCABULARY, num_oov_indices=oov, mask_token=mask, name="v")
    x = keras.Input((3,), dtype=dtype, name="x")
    size = len(VOCABULARY) + oov + (mask is not None)
    model = keras.Model(x, layers.Embedding(size, 2, name="t")(layer(x)), name="net")
    module, again = carried(check, model)
    assert [int(v) for v in again.get_layer("v").get_vocabulary(include_special_tokens=False)] == VOCABULARY
    numbers = [*VOCABULARY, *([mask] if mask is not None else []), *([1, -7, 99, 8, 0] if oov else [])]
    x = np.random.default_rng(0).choice(numbers, (30, 3)).astype(dtype)
    same(module, model, x)
    same(module, again, x)
    if oov == 0:
        with pytest.raises(ValueError, match="not in the vocabulary"):
            module(torch.tensor([[1, 12, 12]]))
        with pytest.raises(Exception, match="should be in vocabulary"):
            model(np.array([[1, 12, 12]]))


@pytest.mark.parametrize("mask", [None, 0])
@pytest.mark.parametrize("oov", [1, 2])
def test_inverse(check, mask, oov):
    layer = layers.IntegerLookup(
        vocabulary=VOCABULARY, num_oov_indices=oov, mask_token=mask, oov_token=-9, invert=True, name="v"
    )
    model = network((4,), layer, "int64", dense=False)
    module, again = carried(check, model)
    x = np.arange(-2, 10).reshape(3, 4)
    same(module, model, x)
    same(module, again, x)


@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
@pytest.mark.parametrize("more", [{}, {"max_tokens": 9, "pad_to_max_tokens": True}])
def test_vocabulary_that_is_encoded(check, mode, more):
    layer = layers.IntegerLookup(vocabulary=VOCABULARY, output_mode=mode, name="v", **more)
    module = carried(check, network((3,), layer, "int64"))[0]
    assert module.v.categories == (9 if more else 6)


def test_in_a_network_of_many(check):
    """As tabular data are: a number in bins, a category, both concatenated with a float."""
    a, b = keras.Input((1,), name="age"), keras.Input((1,), dtype="int64", name="city")
    c = keras.Input((2,), name="c")
    parts = [layers.Discretization([18.0, 30.0, 65.0], output_mode="one_hot", name="bins")(a)]
    parts += [layers.IntegerLookup(vocabulary=VOCABULARY, output_mode="one_hot", name="v")(b), c]
    model = keras.Model([a, b, c], layers.Dense(2, name="d")(layers.Concatenate()(parts)), name="net")
    _module, _ = carried(check, model)
    assert "torch.bucketize" in convert.source(model).text


def test_the_helpers_compile_and_export():
    x = keras.Input((3,), dtype="int64")
    y = layers.CategoryEncoding(7, "count")(layers.IntegerLookup(vocabulary=VOCABULARY, num_oov_indices=0)(x))
    z = layers.Discretization(BOUNDS, output_mode="multi_hot")(keras.ops.cast(x, "float32"))
    module = bridge.to_torch(keras.Model(x, [y, z]))
    data = torch.tensor([[12, 7, 12], [-5, 1138, 36]])
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    program = torch.export.export(module, (data,)).module()
    for other in (compiled, program):
        for have, want in zip(other(data), module(data), strict=True):
            torch.testing.assert_close(have, want, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda m: setattr(m.b_numbers, "bounds", (-0.7, 0.2, 2.5)), "bounds"),
        (lambda m: m.v.order.copy_(m.v.order.flip(0)), "order"),
        (lambda m: setattr(m.v, "oov", 2), "oov"),
    ],
)
def test_a_fault_is_found(check, change, text):
    a, b = keras.Input((2,), name="a"), keras.Input((2,), dtype="int64", name="b")
    y = layers.Discretization(BOUNDS, name="b_numbers")(a)
    z = layers.IntegerLookup(vocabulary=VOCABULARY, name="v")(b)
    model = check.randomise(keras.Model([a, b], [y, layers.Embedding(9, 3, name="t")(z)], name="net"))
    module = bridge.to_torch(model)
    assert bridge.verify(model, module).passed
    change(module)
    report = bridge.verify(model, module)
    assert not report.passed and text in str(report)


@pytest.mark.parametrize(
    "layer, shape, dtype, text",
    [
        (
            lambda: layers.Hashing(7),
            (2,),
            "int64",
            "(Hashing): it hashes, which torch has no function for; hash in the",
        ),
        (lambda: layers.StringLookup(vocabulary=["a"]), (2,), "string", "(StringLookup): it takes strings"),
        (lambda: layers.TextVectorization(vocabulary=["a"]), (1,), "string", "(TextVectorization): it takes strings"),
        (
            lambda: layers.Discretization([0.0], output_mode="count"),
            (),
            "float32",
            "output_mode='count' of an input of",
        ),
        (lambda: layers.Discretization([2.0, 1.0]), (2,), "float32", "its bin_boundaries are not in order"),
        (lambda: layers.CategoryEncoding(3, "count"), (2, 2), "int32", "give it a shape (batch, n)"),
        (lambda: layers.CategoryEncoding(3, "one_hot"), (None,), "int32", "the last axis of its input is open"),
        (
            lambda: layers.IntegerLookup(vocabulary=[3], num_oov_indices=2, oov_method="farmhash"),
            (2,),
            "int64",
            "oov_method='farmhash': it hashes",
        ),
        (
            lambda: layers.IntegerLookup(vocabulary=[3], output_mode="tf_idf", idf_weights=[0.5]),
            (2,),
            "int64",
            "use 'count', and a Rescaling",
        ),
        (
            lambda: layers.IntegerLookup(vocabulary=[3], mask_token=0, output_mode="count"),
            (2,),
            "int64",
            "mask_token with output_mode='count'; use 'int', and a CategoryEncoding after it",
        ),
    ],
)
def test_refusals(layer, shape, dtype, text):
    x = keras.Input(shape, dtype=dtype)
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, layer()(x)))
    assert text in str(e.value)


def test_crossing_is_refused():
    x = keras.Input((1,), dtype="int64"), keras.Input((1,), dtype="int64")
    with pytest.raises(bridge.BridgeError, match="it hashes"):
        bridge.to_torch(keras.Model(x, layers.HashedCrossing(5)(x)))
