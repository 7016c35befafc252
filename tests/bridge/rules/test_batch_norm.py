"""Batch normalisation: values, settings, statistics and freezing, both ways."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers


def model_of(shape, **options):
    x = keras.Input(shape, name="x")
    return keras.Model(x, layers.BatchNormalization(name="n", **options)(x))


@pytest.mark.parametrize(
    "shape, options",
    [
        ((5,), {}),
        ((4, 5), {}),
        ((4, 6, 5), {}),
        ((3, 4, 6, 5), {}),
        ((4, 5), {"axis": 1}),
        ((4, 6, 5), {"axis": 1}),
        ((4, 6, 5), {"axis": 2}),
        ((3, 4, 6, 5), {"axis": -3}),
        ((None, None, 5), {}),
        ((4, 6, 5), {"scale": False}),
        ((4, 6, 5), {"center": False}),
        ((5,), {"scale": False, "center": False}),
        ((4, 6, 5), {"epsilon": 0.1, "momentum": 0.7}),
    ],
)
def test_options(check, shape, options):
    module, again = check.both_ways(model_of(shape, **options))
    layer, norm = again.get_layer("n"), module.n
    want = {"axis": -1, "epsilon": 1e-3, "momentum": 0.99, "scale": True, "center": True} | options
    assert layer.axis == -1  # other axes are permuted
    del want["axis"]
    assert {k: getattr(layer, k) for k in want} == want
    assert norm.eps == want["epsilon"] and norm.momentum == pytest.approx(1 - want["momentum"], abs=1e-15)
    assert type(norm).__name__ == f"BatchNorm{max(1, len(shape) - 1)}d" and norm.num_batches_tracked == 0


def steps(check, model, module, shape, count=2):
    """Train both sides on the same batches; return torch's statistics and Keras'."""
    rng = np.random.default_rng(0)
    module.train()
    for _ in range(count):
        x = rng.normal(1, 2, (4, *shape)).astype("float32")
        want = np.asarray(model(x, training=True))
        have = module(torch.from_numpy(check.to_first(x))).detach().numpy()
        assert check.relative(check.to_last(have), want) < 1e-5
    norm, layer = module.n, model.get_layer("n")
    return (norm.running_mean.numpy(), norm.running_var.numpy()), (
        np.asarray(layer.moving_mean),
        np.asarray(layer.moving_variance),
    )


@pytest.mark.parametrize("shape", [(5,), (3, 2, 5)])
def test_statistics_in_training(check, shape):
    """The running mean is Keras'; the running variance takes in the unbiased variance, as `torch_statistics` says."""
    from bridge.keras_reader import read
    from bridge.rules.batch_norm import torch_statistics

    model = check.randomise(model_of(shape, momentum=0.6))
    before = np.array(model.get_layer("n").moving_variance)
    (mean, variance), (keras_mean, keras_variance) = steps(check, model, bridge.to_torch(model), shape, count=1)
    np.testing.assert_allclose(mean, keras_mean, rtol=1e-5)
    expected = torch_statistics("moving_variance", before, keras_variance, read(model).nodes[0], (4, *shape))
    np.testing.assert_allclose(variance, expected, rtol=1e-5)
    assert np.abs(variance - keras_variance).max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"scale": False, "center": False}])
@pytest.mark.parametrize("shape", [(5,), (4, 6, 5), (2, 3, 4, 5)])
def test_frozen(check, shape, options):
    model = model_of(shape, **options)
    model.get_layer("n").trainable = False
    module, again = check.both_ways(model)
    assert not again.get_layer("n").trainable and not again.trainable_weights
    assert not any(p.requires_grad for p in module.parameters())
    before = module.n.running_mean.numpy().copy(), module.n.running_var.numpy().copy()
    after, keras_after = steps(check, model, module, shape)
    for b, a, k in zip(before, after, keras_after, strict=True):
        np.testing.assert_array_equal(b, a)
        np.testing.assert_array_equal(b, k)


def test_a_recorded_training_false_is_overruled_by_keras(check):
    """Keras 3's fit normalises by the batch although the layer was called with training=False; so does the module."""
    x = keras.Input((5,), name="x")
    model = check.randomise(keras.Model(x, layers.BatchNormalization(name="n")(x, training=False)))
    before = np.array(model.get_layer("n").moving_mean)
    (mean, _), (keras_mean, _) = steps(check, model, bridge.to_torch(model), (5,))
    assert np.abs(before - keras_mean).max() > 1e-3
    np.testing.assert_allclose(mean, keras_mean, rtol=1e-5)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: torch.nn.BatchNorm1d(4), (3, 4)),
        (lambda: torch.nn.BatchNorm1d(4, eps=0.1, momentum=0.3), (3, 4, 5)),
        (lambda: torch.nn.BatchNorm2d(4, affine=False), (3, 4, 5, 6)),
        (lambda: torch.nn.BatchNorm3d(4), (3, 4, 5, 6, 2)),
    ],
)
def test_from_torch_and_back(check, make, shape):
    module = torch.nn.Sequential(make()).double()
    rng = np.random.default_rng(0)
    for name, tensor in module.state_dict().items():
        if "num" not in name:
            tensor.copy_(torch.from_numpy(rng.uniform(0.5, 1.5, tensor.shape)))
    x = torch.from_numpy(rng.normal(size=shape))
    model = bridge.to_keras(module, (x,))
    assert module.training and module[0].training
    with torch.no_grad():
        want = module.eval()(x).numpy()
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-9
    layer, norm = model.layers[-1] if not isinstance(model.layers[-1], layers.Permute) else model.layers[-2], module[0]
    assert layer.epsilon == norm.eps and layer.momentum == pytest.approx(1 - norm.momentum)
    assert layer.trainable
    again = bridge.to_torch(model)
    for have, tensor in zip(again.state_dict().values(), module.state_dict().values(), strict=True):
        np.testing.assert_array_equal(have.numpy(), tensor.numpy())


def test_weights_that_are_frozen_in_torch_alone(check):
    """In training torch's goes on normalising by the batch. Keras has no such layer, and that is said."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4).requires_grad_(False)).eval()
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"1 layer.s. are frozen, but in training they take .*: 1$"):
        model = bridge.to_keras(module, (x,))
    assert check.relative(check.to_first(model(check.to_last(x.numpy())).numpy()), module(x).detach().numpy()) < 1e-5
    assert not model.get_layer("1").trainable
    assert "1: frozen is True in Keras and False in torch" in str(bridge.verify(model, module))


def test_a_frozen_model_with_a_normalisation_that_is_not(check):
    """Keras does not train its weights, but normalises by the batch in training; so does the module."""
    x = keras.Input((6, 6, 3))
    model = check.randomise(keras.Model(x, layers.BatchNormalization(name="n")(layers.Conv2D(4, 3)(x))))
    model.trainable = False
    model.get_layer("n").trainable = True
    module = bridge.to_torch(model)
    assert not any(p.requires_grad for p in module.parameters()) and type(module.n) is torch.nn.BatchNorm2d
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize(
    "options, arguments, text",
    [
        ({"axis": 0}, {}, "axis=0 is the batch"),
        ({}, {"training": True}, "it is called with training=True"),
    ],
)
def test_refusals_from_keras(options, arguments, text):
    x = keras.Input(batch_shape=(2, 4, 5), name="x")
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, layers.BatchNormalization(name="n", **options)(x, **arguments)))
    assert f"n (BatchNormalization): {text}" in str(e.value)


def half_frozen():
    module = torch.nn.BatchNorm2d(4)
    module.weight.requires_grad_(False)
    return module


def trained_and_still():
    x = keras.Input((5, 5, 4))
    model = keras.Model(x, layers.BatchNormalization(name="n", trainable=False)(x))
    return bridge.to_torch(model).n.requires_grad_(True)


@pytest.mark.parametrize(
    "make, text",
    [
        (trained_and_still, "its statistics stand still and its parameters are trained"),
        (
            lambda: torch.nn.BatchNorm2d(4, momentum=None),
            "momentum=None, the cumulative average, or 0; give the module a momentum",
        ),
        (half_frozen, "freeze all of the module's parameters or none"),
    ],
)
def test_refusals_from_torch(make, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(torch.nn.Sequential(make()), (torch.randn(2, 4, 5, 5),))
    assert text in str(e.value)


@pytest.mark.parametrize("shape", [(6,), (5, 3), (5, 4, 3), (5, 4, 2, 3)])
@pytest.mark.parametrize("scale", [True, False])
def test_exact_training(check, shape, scale):
    """With the helper the running variance takes Keras' biased one; verify sees no difference, and says so."""
    x = keras.Input(shape, name="x")
    model = check.randomise(keras.Model(x, layers.BatchNormalization(name="norm", scale=scale, momentum=0.9)(x)))
    module = bridge.to_torch(model, exact_training=True)
    plain = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed and not any("unbiased" in note for note in report.notes)
    assert any("unbiased" in note for note in bridge.verify(model, plain).notes)
    z = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    tensor = torch.from_numpy(check.to_first(z) if len(shape) > 2 else z)
    want = model(z, training=True)
    have = module.train()(tensor).detach().numpy()
    assert check.relative(check.to_last(have), want) < 1e-5
    layer = model.get_layer("norm")
    np.testing.assert_allclose(module.norm.running_var.numpy(), np.asarray(layer.moving_variance), rtol=1e-5)
    np.testing.assert_allclose(module.norm.running_mean.numpy(), np.asarray(layer.moving_mean), rtol=1e-4, atol=1e-6)
    assert module.norm.num_batches_tracked == 1
    again = bridge.to_keras(bridge.to_torch(model, exact_training=True), (tensor,))
    assert isinstance(again.get_layer("norm"), layers.BatchNormalization)
    torch.compile(module, backend="eager", fullgraph=True)(tensor)


@pytest.mark.parametrize("affine", [True, False])
def test_statistics_of_the_batch_in_inference_too(check, affine):
    """They are arithmetic, as Keras has no such layer."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, 1e-3, None, affine, False))
    model = check.from_torch(module, torch.randn(3, 3, 7, 6))
    assert bridge.verify(model, module).passed
