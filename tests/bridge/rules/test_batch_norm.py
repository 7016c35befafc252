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


def masked(shape, **options):
    """A normalisation with a mask that is an input, True for what counts, and what both are given."""
    x, mask = keras.Input(shape, name="x"), keras.Input(shape[:-1], name="mask", dtype="bool")
    model = keras.Model([x, mask], layers.BatchNormalization(name="n", **options)(x, mask=mask))
    rng = np.random.default_rng(0)
    x, mask = rng.normal(1, 2, (3, *shape)).astype("float32"), rng.uniform(size=(3, *shape[:-1])) > 0.4
    x[~mask] += 100.0
    return model, [x, mask]


def in_torch(check, arrays):
    return tuple(torch.from_numpy(check.to_first(a)) for a in arrays)


@pytest.mark.parametrize(
    "shape, options",
    [
        ((5,), {}),
        ((7, 5), {}),
        ((7, 5), {"axis": 1}),
        ((4, 6, 5), {}),
        ((4, 6, 5), {"axis": 2, "center": False}),
        ((3, 4, 2, 5), {"epsilon": 0.1}),
        ((7, 5), {"scale": False}),
        ((7, 5), {"center": False}),
        ((7, 5), {"scale": False, "center": False}),
        ((7, 1), {}),
    ],
    ids=str,
)
def test_a_mask(check, shape, options):
    """In training the statistics leave out what is masked, in both frameworks and after a round trip."""
    model, given = masked(shape, momentum=0.7, **options)
    module, tensors = bridge.to_torch(check.randomise(model)), in_torch(check, given)
    assert type(module.n).__name__ == f"MaskedBatchNorm{max(1, len(shape) - 1)}d"
    report = bridge.verify(model, module, given)
    assert report.passed and not any("unbiased" in note for note in report.notes), str(report)
    again = check.to_keras(module, tensors)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    report = bridge.verify(again, module, given)
    assert report.passed, str(report)
    want = np.asarray(model(given, training=True))
    for have in (check.to_last(module.train()(*tensors).detach().numpy()), again(given, training=True)):
        assert check.relative(have, want) < 1e-5
    norm, layer, back = module.n, model.get_layer("n"), again.get_layer("n")
    for have, kept, other in (
        (norm.running_mean, layer.moving_mean, back.moving_mean),
        (norm.running_var, layer.moving_variance, back.moving_variance),
    ):
        np.testing.assert_allclose(have.numpy(), kept, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(other, kept, rtol=1e-5, atol=1e-6)
        assert np.abs(kept).max() < 10  # what is masked is at 100
    assert norm.num_batches_tracked == 1


def test_between_recurrent_layers(check):
    """The mask of Masking goes through all of them, over an open number of steps."""
    x = y = keras.Input((None, 4), name="x")
    for layer in (
        layers.Masking(0.0, name="masking"),
        layers.LSTM(5, return_sequences=True, name="first"),
        layers.BatchNormalization(name="n"),
        layers.LSTM(3, name="second"),
    ):
        y = layer(y)
    model = check.randomise(keras.Model(x, y))
    given = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    given[0, 4:] = given[1, 1:] = 0
    module = bridge.to_torch(model)
    report = bridge.verify(model, module, given)
    assert report.passed, str(report)
    again = bridge.to_keras(module, (torch.from_numpy(given),), [{0, 1}])
    assert [x.name for x in again.layers if x.weights] == ["first", "n", "second"]
    longer = np.concatenate([given, given], 1)
    for training in (False, True):
        want = model(longer, training=training)
        np.testing.assert_allclose(again(longer, training=training), want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            module.train(training)(torch.from_numpy(longer)).detach(), want, rtol=1e-4, atol=1e-6
        )
    for a, b in zip(model.get_layer("n").weights, again.get_layer("n").weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_nothing_but_the_masked_counts(check):
    """Where a channel has nothing left its mean is 0, and so is its variance."""
    model, (x, _) = masked((5,))
    module, mask = bridge.to_torch(check.randomise(model)), np.zeros(3, bool)
    want = model([x, mask], training=True)
    assert check.relative(module.train()(torch.from_numpy(x), torch.from_numpy(mask)).detach(), want) < 1e-5


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_a_mask_in_lower_precision(check, dtype):
    """Both take the statistics in float32."""
    x, mask = keras.Input((5, 4), name="x"), keras.Input((5,), name="mask", dtype="bool")
    model = keras.Model([x, mask], layers.BatchNormalization(name="n", dtype=dtype)(x, mask=mask))
    _, given = masked((5, 4))
    module = bridge.to_torch(check.randomise(model))
    want = np.asarray(model(given, training=True), "float32")
    have = module.train()(*in_torch(check, given)).detach().float().numpy()
    assert check.relative(have, want) < 1e-2
    names = ("running_mean", "running_var")
    for name, kept in zip(names, model.get_layer("n").non_trainable_weights, strict=True):
        have = module.get_buffer(f"n.{name}").float().numpy()
        np.testing.assert_allclose(have, np.asarray(kept, "float32"), rtol=1e-2 if dtype == "bfloat16" else 1e-3)


def test_a_frozen_one_needs_no_mask(check):
    model, given = masked((7, 5))
    model.get_layer("n").trainable = False
    module = bridge.to_torch(check.randomise(model))
    assert type(module.n).__name__ == "FrozenBatchNorm1d"
    report = bridge.verify(model, module, given)
    assert report.passed, str(report)


def test_a_mask_that_is_not_inverted(check):
    """A seeded fault: verify sees that the other steps count."""
    model, given = masked((7, 5))
    module = bridge.to_torch(check.randomise(model))
    module.n.register_forward_pre_hook(lambda _, given: (given[0], ~given[1]))
    assert not bridge.verify(model, module, given).passed


def test_a_masked_helper_survives(check):
    import copy
    import pickle

    model, given = masked((7, 5))
    module, tensors = bridge.to_torch(check.randomise(model)).train(), in_torch(check, given)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(other(*tensors), copy.deepcopy(module)(*tensors), rtol=0, atol=0)
    compiled = torch.compile(copy.deepcopy(module), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), module(*tensors))


@pytest.mark.parametrize(
    "mask, text",
    [
        (lambda: keras.Input((4,), name="mask"), "its mask is float32; give booleans"),
        (lambda: np.ones((2, 4), bool), "its mask is a constant; let it flow"),
        (lambda: keras.Input((), dtype="bool", name="mask"), "its mask has rank 1; give it one of rank 2"),
    ],
)
def test_masks_that_are_refused(mask, text):
    x, mask = keras.Input((4, 5), name="x"), mask()
    y = layers.BatchNormalization(name="n")(x, mask=mask)
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model([x, mask] if isinstance(mask, keras.KerasTensor) else x, y))
    assert f"n (BatchNormalization): {text}" in str(e.value)


def test_a_mask_that_is_held(check):
    """A buffer flows; what is computed of one is a constant, which Keras' layer is not given."""
    module = bridge.to_torch(check.randomise(masked((7, 5))[0]))
    held = {"n": module.n, "mask": torch.nn.Buffer(torch.rand(1, 7) > 0.4)}
    flowing = check.module_of(lambda m, x: m.n(x, m.mask), **held)
    report = bridge.verify(bridge.to_keras(flowing, (torch.randn(3, 5, 7),)), flowing)
    assert report.passed, str(report)
    computed = check.module_of(lambda m, x: m.n(x, ~m.mask), **held)
    with pytest.raises(bridge.BridgeError, match="its mask is a constant or no booleans; let it flow, as booleans"):
        bridge.to_keras(computed, (torch.randn(3, 5, 7),))
