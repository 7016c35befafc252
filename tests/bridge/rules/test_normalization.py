"""Normalisation with the constants of a Keras layer, both ways."""

import inspect
import pickle

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader

layers = keras.layers
RANDOM = np.random.default_rng(0)


def adapted(shape, **options):
    """A layer that has seen data whose means and variances are unlike 0 and 1."""
    layer = layers.Normalization(name="n", **options)
    sizes = [5 if n is None else n for n in shape]
    layer.build((None, *shape))
    layer.adapt(RANDOM.normal(2, 3, (16, *sizes)) * RANDOM.uniform(0.5, 2, sizes) + RANDOM.uniform(-1, 1, sizes))
    return layer


def network(layer, shape, dtype="float32"):
    x = keras.Input(shape, name="x", dtype=dtype)
    y = layer(x)
    kind = layers.Dense if len(shape) == 1 else getattr(layers, f"Conv{len(shape) - 1}D")
    y = kind(3, *[2] * (len(shape) > 1), name="c")(y)
    return keras.Model(x, y)


def carried(check, model, size=5):
    """Compare values, constants and graphs in both directions; the shared helper would assign the layer's weights."""
    for w in model.get_layer("c").weights:
        w.assign(RANDOM.normal(size=w.shape))
    x = RANDOM.normal(2, 3, (2, *[size if n is None else n for n in model.input_shape[1:]])).astype("float32")
    tensor = torch.from_numpy(check.to_first(x))
    want, module = np.asarray(model(x)), bridge.to_torch(model)
    assert check.relative(module(tensor).detach(), check.to_first(want)) < 1e-5
    dynamic = {
        i for i, n in enumerate(check.to_first(np.empty([2 if n else 1 for n in model.input_shape])).shape) if n == 1
    }
    again = bridge.to_keras(module, (tensor,), [dynamic])
    np.testing.assert_array_equal(again(x), want)
    check.same_graph(model, module, (tensor,), [dynamic])
    return module, again, x


@pytest.mark.parametrize(
    "shape, axis",
    [
        ((6,), -1),
        ((6,), None),
        ((4, 6), -1),
        ((4, 6), 1),
        ((4, 6), (1, 2)),
        ((None, 6), -1),
        ((5, 7, 3), -1),
        ((5, 7, 3), 1),
        ((5, 7, 3), (1, 3)),
        ((5, 7, 3), (3, 2, 1)),
        ((5, 7, 3), None),
        ((5, 7, 1), -1),
        ((None, None, 3), -1),
        ((3, 4, 5, 2), -1),
    ],
)
def test_adapted(check, shape, axis):
    model = network(adapted(shape, axis=axis), shape)
    module, again, _ = carried(check, model)
    assert "permute" not in inspect.getsource(type(module)) or len(shape) == 2
    have, want = again.get_layer("n"), model.get_layer("n")
    assert isinstance(have, layers.Normalization)
    for role in ("mean", "variance"):
        np.testing.assert_array_equal(np.squeeze(getattr(have, role)), np.squeeze(getattr(want, role)))


@pytest.mark.parametrize("invert", [False, True])
def test_given_as_numbers(check, invert):
    layer = layers.Normalization(mean=[0.1, 1 / 3, -2], variance=[0.3, 4, 1e-16], invert=invert, name="n")
    module, again, _ = carried(check, network(layer, (5, 7, 3)))
    assert module.n.invert == again.get_layer("n").invert == invert
    carried(check, network(layers.Normalization(mean=0.7, variance=2.0, name="n"), (5, 7, 3)))


def test_verify(check):
    model = network(adapted((5, 7, 3)), (5, 7, 3))
    module, again, _ = carried(check, model)
    assert bridge.verify(model, module).passed and bridge.verify(again, module).passed
    module.n.variance[1] += 0.1
    assert "n.variance: the weights differ by up to 1.0e-01" in str(bridge.verify(model, module))


def test_assigned_weights_change_nothing_until_loaded(check, tmp_path):
    """The layer computes with constants of its own."""
    model = network(adapted((5, 7, 3)), (5, 7, 3))
    layer, x = model.get_layer("n"), np.ones((2, 5, 7, 3), "float32")
    before = np.asarray(model(x))
    layer.weights[0].assign([5.0, 6.0, 7.0])
    np.testing.assert_array_equal(model(x), before)
    module, _, _ = carried(check, model)
    assert not np.allclose(module.n.mean.flatten(), [5, 6, 7])
    assert bridge.verify(model, module).passed
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    module, _, _ = carried(check, loaded)
    np.testing.assert_array_equal(module.n.mean.flatten(), [5, 6, 7])
    assert not bridge.verify(model, module).passed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_came_back_survives_its_file(check, tmp_path, dtype):
    layer = layers.Normalization(mean=[0.1, 1 / 3, -2], variance=[1 / 3, 4, 5], name="n", dtype=dtype)
    x = keras.Input((5, 7, 3), dtype=dtype)
    model = keras.Model(x, layer(x))
    image = RANDOM.normal(size=(2, 5, 7, 3)).astype(dtype)
    again = bridge.to_keras(bridge.to_torch(model), (torch.from_numpy(check.to_first(image)),))
    again.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(image), again(image))
    np.testing.assert_array_equal(loaded(image), model(image))
    assert [w.name for w in loaded.weights] == ["mean", "variance", "count"]


def test_whole_numbers(check):
    layer = layers.Normalization(mean=[100.0, 110, 120], variance=[900.0, 1000, 1100], name="n")
    model = network(layer, (5, 7, 3), "uint8")
    module = bridge.to_torch(check.randomise(model))
    image = np.arange(210, dtype="uint8").reshape(2, 5, 7, 3)
    have = module(torch.from_numpy(check.to_first(image))).detach()
    assert check.relative(have, check.to_first(np.asarray(model(image)))) < 1e-5
    assert bridge.verify(model, module).passed


def test_one_layer_twice(check):
    shared = adapted((5, 7, 3))
    a, b = keras.Input((5, 7, 3), name="a"), keras.Input((5, 7, 3), name="b")
    model = keras.Model([a, b], layers.Add()([shared(a), shared(b) * 2]))
    module = bridge.to_torch(model)
    assert list(module.state_dict()) == ["n.mean", "n.variance"]
    assert bridge.verify(model, module).passed


def test_the_head_of_an_efficientnet(check):
    """keras.applications.EfficientNetB0 begins with Rescaling, Normalization and, with its weights, Rescaling."""
    x = keras.Input((33, 33, 3), name="image")
    y = layers.Rescaling(1 / 255)(x)
    normalization = layers.Normalization(axis=3, name="n")
    y = layers.Rescaling([1 / np.sqrt(s) for s in (0.229, 0.224, 0.225)])(normalization(y))
    normalization.adapt(RANDOM.uniform(0, 1, (4, 33, 33, 3)))
    y = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(y)
    model = keras.Model(x, layers.Conv2D(4, 3, strides=2, use_bias=False, name="c")(y))
    module, again, _ = carried(check, model)
    assert bridge.verify(model, module).passed and bridge.verify(again, module).passed


def test_the_helper():
    model = network(adapted((5, 7, 3)), (5, 7, 3))
    module, x = bridge.to_torch(model), torch.randn(2, 3, 5, 7)
    torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(x), module(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(module))(x), module(x))
    assert module.half()(x.half()).dtype == torch.float16
    assert "n.variance" in module.state_dict() and not list(module.n.parameters())


def test_keras_epsilon():
    """What Keras divides by at least is a setting of Keras."""
    model = network(layers.Normalization(mean=[0.0, 1, 2], variance=[1.0, 0, 2], name="n"), (5, 7, 3))
    assert keras_reader.read(model).nodes[0]["epsilon"] == 1e-7
    keras.config.set_epsilon(1e-3)
    try:
        module = bridge.to_torch(model)
        assert module.n.epsilon == 1e-3
    finally:
        keras.config.set_epsilon(1e-7)
    with pytest.raises(
        bridge.BridgeError, match=r"epsilon=0.001; Keras has 1e-07: keras.config.set_epsilon changes it"
    ):
        bridge.to_keras(module, (torch.randn(2, 3, 5, 7),))
    assert bridge.to_torch(model).n.epsilon == 1e-7
