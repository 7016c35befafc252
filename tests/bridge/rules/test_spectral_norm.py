"""Spectral normalisation in training and in inference, both ways."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

import bridge
from bridge import convert

layers = keras.layers


def model_of(layer, *shape, **options):
    x = keras.Input(shape, name="x")
    return keras.Model(x, layers.SpectralNormalization(layer, name="s", **options)(x), name="net")


CASES = [
    (lambda: layers.Dense(4), (5,), "SpectralNorm(nn.Linear(5, 4))"),
    (lambda: layers.Dense(4, use_bias=False), (3, 5), "SpectralNorm(nn.Linear(5, 4, bias=False))"),
    (lambda: layers.Dense(4), (6, 7, 5), "SpectralNorm(Dense2d(5, 4))"),
    (lambda: layers.Conv1D(4, 3), (6, 5), "SpectralNorm(nn.Conv1d(5, 4, 3))"),
    (lambda: layers.Conv2D(4, 3, padding="same"), (6, 7, 5), "SpectralNorm(nn.Conv2d(5, 4, 3, padding=1))"),
    (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), (6, 7, 5), "SpectralNorm(nn.Conv2d(5, 4, 3, stride=2))"),
    (
        lambda: layers.Conv2D(4, 3, strides=2, padding="same"),
        (None, None, 5),
        "SpectralNorm(Conv2dSame(5, 4, 3, stride=2))",
    ),
    (lambda: layers.Conv2D(4, 2, groups=2), (6, 7, 6), "SpectralNorm(nn.Conv2d(6, 4, 2, groups=2))"),
    (lambda: layers.Conv3D(4, 2), (4, 3, 5, 2), "SpectralNorm(nn.Conv3d(2, 4, 2))"),
    (lambda: layers.Conv2DTranspose(4, 3, strides=2), (3, 4, 5), "SpectralNorm(nn.ConvTranspose2d(5, 4, 3, stride=2))"),
]


@pytest.mark.parametrize("make, shape, want", CASES)
def test_layers(check, make, shape, want):
    """verify trains one step: outputs, gradients and the new vector are compared."""
    model = model_of(make(), *shape)
    module, again = check.both_ways(model)
    assert f"self.s = {want}\n" in convert.source(model).text
    layer = again.get_layer("s")
    assert type(layer.layer) is type(model.get_layer("s").layer) and layer.power_iterations == 1
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("zero", [False, True])
def test_three_steps_of_training(check, iterations, zero):
    """Both keep the quotient and start from it; a kernel of zeros stays as it is."""
    model = check.randomise(model_of(layers.Conv2D(4, 3), 5, 6, 2, power_iterations=iterations))
    layer = model.get_layer("s")
    if zero:
        layer.layer.kernel.assign(np.zeros(layer.layer.kernel.shape))
    module, rng = bridge.to_torch(model).train(), np.random.default_rng(0)
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    variables = [v.value for v in model.trainable_variables]
    for _ in range(3):
        x = rng.normal(size=(2, 5, 6, 2)).astype("float32")
        with tf.GradientTape() as tape:
            y = model(x, training=True)
            loss = tf.reduce_sum(y * y)
        for v, slope in zip(variables, tape.gradient(loss, variables), strict=True):
            v.assign_sub(0.5e-2 * slope)
        optimizer.zero_grad()
        have = module(torch.from_numpy(check.to_first(x)))
        (1e-2 * have * have).sum().backward()
        assert check.relative(check.to_last(have.detach().numpy()), y) < 1e-4
        optimizer.step()
    np.testing.assert_allclose(module.s.vector_u, layer.vector_u, rtol=1e-4, atol=1e-6)
    kernel = module.s.layer.weight.detach().numpy()
    np.testing.assert_allclose(kernel, np.transpose(layer.layer.kernel, (3, 2, 0, 1)), rtol=1e-3, atol=1e-5)


def test_values_are_those_of_the_largest_singular_value(check):
    """Many iterations find it."""
    model = check.randomise(model_of(layers.Dense(4), 5, power_iterations=200))
    want = np.linalg.norm(np.asarray(model.get_layer("s").layer.kernel), 2)
    module = bridge.to_torch(model)
    before = module.s.layer.weight.detach().clone()
    module(torch.randn(2, 5))
    torch.testing.assert_close(module.s.layer.weight, before, rtol=0, atol=0)  # inference leaves it
    module.train()(torch.randn(2, 5))
    torch.testing.assert_close(module.s.layer.weight, before / float(want), rtol=1e-5, atol=1e-6)


def test_two_calls_before_the_backward_pass(check):
    """As of a discriminator, on real and on generated images: each call keeps the weight that it used."""
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    shared, before = layers.SpectralNormalization(layers.Dense(4), name="s"), layers.Dense(5, name="d")
    model = check.randomise(keras.Model([a, b], [shared(before(a)), shared(before(b))], name="net"))
    module, again = check.both_ways(model)
    assert len(again.weights) == len(model.weights) == 5
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    module.train()
    sum(y.square().sum() for y in module(torch.randn(2, 3), torch.randn(2, 3))).backward()
    assert module.s.layer.weight.grad.abs().max() > 0


def test_activation_and_frozen(check):
    model = model_of(layers.Conv2D(4, 3, activation="tanh"), 5, 6, 2, power_iterations=2)
    model.get_layer("s").trainable = False
    module, again = check.both_ways(model)
    assert module.s.power_iterations == 2 == again.get_layer("s").power_iterations
    assert not any(p.requires_grad for p in module.parameters()) and not again.trainable_weights
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_padding_that_keras_has_in_no_convolution(check):
    """ZeroPadding is a layer of its own, in front of the wrapper."""
    x = keras.Input((5, 6, 2), name="x")
    y = layers.ZeroPadding2D(((2, 1), (0, 3)), name="p")(x)
    model = keras.Model(x, layers.SpectralNormalization(layers.Conv2D(4, 3), name="s")(y), name="net")
    module, again = check.both_ways(model, back="float32")
    assert [type(a) for a in again.layers[1:]] == [layers.ZeroPadding2D, layers.SpectralNormalization]
    check.same_graph(again, module, (torch.randn(2, 2, 5, 6),))


def test_the_helper_survives():
    """deepcopy, half, double, pickle and torch.compile, in training, too."""
    module = bridge.to_torch(model_of(layers.Conv2D(4, 3), 5, 6, 2)).train()
    x = torch.randn(2, 2, 5, 6)
    others = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    others.append(torch.compile(copy.deepcopy(module), backend="eager", fullgraph=True))
    double = copy.deepcopy(module).double()
    half = copy.deepcopy(module).half()
    want = module(x)
    for other in others:
        torch.testing.assert_close(other(x), want, rtol=0, atol=0)
    assert double(x.double()).dtype == torch.float64 and half(x.half()).dtype == torch.float16
    fresh = type(module)()
    assert torch.isfinite(fresh(x)).all() and fresh.s.vector_u.abs().max() > 0


class Own(layers.Dense):
    """A class of the user's own, which may do anything."""


@pytest.mark.parametrize(
    "make, text",
    [
        (
            lambda: layers.DepthwiseConv2D(3),
            "s (SpectralNormalization): it wraps a depthwise convolution; wrap Dense or ",
        ),
        (
            lambda: layers.Conv2D(4, 2, groups=2),
            "it wraps a depthwise convolution; wrap Dense or a convolution, of more",
        ),
        (
            lambda: layers.DepthwiseConv2D(3, strides=(2, 1)),
            "it wraps DepthwiseConv2D, whose kernel is held with other",
        ),
        (lambda: layers.Conv2D(4, 2, dtype="float64"), "its layer has the dtype policy float64; give both the same"),
        (lambda: Own(4), "it wraps Own, for which there is no rule; wrap Dense or a convolution"),
    ],
)
def test_refusals_from_keras(make, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(model_of(make(), 5, 6, 2))
    assert text in str(e.value)


def test_another_epsilon_of_keras():
    model = model_of(layers.Dense(4), 5)
    keras.config.set_epsilon(1e-6)
    try:
        with pytest.raises(bridge.BridgeError, match=r"keras.config.epsilon\(\) is 1e-06; set it to 1e-07"):
            bridge.to_torch(model)
    finally:
        keras.config.set_epsilon(1e-7)


def test_an_inner_module_of_several_operators_is_refused():
    """The helper's class is in the user's hands."""
    module = bridge.to_torch(model_of(layers.Conv2D(4, 3, padding="same"), 5, 6, 2))
    module.s.layer = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")
    with pytest.raises(bridge.BridgeError, match="it wraps Conv2d, of several operators; wrap a single layer"):
        bridge.to_keras(module, (torch.randn(2, 2, 5, 6),))


def test_a_crop_of_what_it_makes(check):
    x = keras.Input((5, 6, 3), name="x")
    model = check.randomise(keras.Model(x, layers.SpectralNormalization(layers.Conv2DTranspose(5, 3, 2, "same"))(x)))
    assert bridge.verify(model, bridge.to_torch(model)).passed
