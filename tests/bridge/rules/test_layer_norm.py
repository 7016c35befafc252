"""Layer normalisation over any axes, both ways; the weights' axes follow the layout."""

import copy
import inspect
import pickle

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge import convert, torch_export

layers, ops = keras.layers, keras.ops

# shape, axis, what it is in torch
CASES = [
    ((5,), -1, "nn.LayerNorm(5, eps=0.001)"),
    ((4, 5), -1, "nn.LayerNorm(5, eps=0.001)"),
    ((4, 5), 1, "LayerNormOver((1,), shape=(4,), eps=0.001)"),
    ((4, 5), [1, 2], "nn.LayerNorm((4, 5), eps=0.001)"),
    ((None, 5), -1, "nn.LayerNorm(5, eps=0.001)"),
    ((3, 4, 5), -1, "LayerNormOver((1,), shape=(5,), eps=0.001)"),
    ((3, 4, 5), 1, "LayerNormOver((2,), shape=(3,), eps=0.001)"),
    ((3, 4, 5), 2, "nn.LayerNorm(4, eps=0.001)"),
    ((3, 4, 5), [1, 2], "nn.LayerNorm((3, 4), eps=0.001)"),
    ((3, 4, 5), [-1, -2], "LayerNormOver((1, 3), shape=(5, 4), eps=0.001)"),
    ((3, 4, 5), [3, 1], "LayerNormOver((1, 2), shape=(5, 3), eps=0.001)"),
    ((3, 4, 5), [1, 2, 3], "nn.LayerNorm((5, 3, 4), eps=0.001)"),
    ((None, None, 5), [3], "LayerNormOver((1,), shape=(5,), eps=0.001)"),
    ((2, 3, 4, 5), -1, "LayerNormOver((1,), shape=(5,), eps=0.001)"),
    ((2, 3, 4, 5), [2, 4], "LayerNormOver((1, 3), shape=(5, 3), eps=0.001)"),
    ((2, 3, 4, 5), [1, 2, 3, 4], "nn.LayerNorm((5, 2, 3, 4), eps=0.001)"),
]


def model_of(shape, **options):
    x = keras.Input(shape, name="x")
    return keras.Model(x, layers.LayerNormalization(name="n", **options)(x), name="net")


def example(model, size=6):
    shapes = [(2, *(n or size for n in t.shape[1:])) for t in model.inputs]
    rng = np.random.default_rng(0)
    arrays = [rng.normal(1, 2, s).astype("float32") for s in shapes]
    return [np.moveaxis(a, -1, 1).copy() if a.ndim in (4, 5) else a for a in arrays]


@pytest.mark.parametrize("shape, axis, want", CASES)
def test_axes(check, shape, axis, want):
    model = model_of(shape, axis=axis)
    module, again = check.both_ways(model, size=6)
    text = convert.source(model).text
    assert f"self.n = {want}\n" in text and "permute" not in text and "movedim" not in text
    numbers = sorted(a % (len(shape) + 1) for a in (axis if isinstance(axis, list) else [axis]))
    assert [a % (len(shape) + 1) for a in again.get_layer("n").axis] == numbers
    open_axes = [{0} if len(shape) < 3 else {0, *(i + 2 for i, n in enumerate(shape[:-1]) if n is None)}]
    check.same_graph(model, module, tuple(map(torch.from_numpy, example(model))), open_axes)


@pytest.mark.parametrize("axis, name", [(-1, "LayerNormOver"), (2, "LayerNorm"), ([1, 2, 3], "LayerNorm")])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_options(check, axis, name, scale, center):
    module, again = check.both_ways(model_of((3, 4, 5), axis=axis, scale=scale, center=center, epsilon=0.3))
    layer, norm = again.get_layer("n"), module.n
    assert (layer.scale, layer.center, layer.epsilon) == (scale, center, 0.3)
    assert (norm.weight is not None, norm.bias is not None, norm.eps) == (scale, center, 0.3)
    assert type(norm).__name__ == name


def test_open_sizes_have_no_weights(check):
    model = model_of((None, None, 5), axis=[1, 2], center=False, scale=False)
    module, again = check.both_ways(model, size=6)
    assert type(module.n).__name__ == "LayerNormOver" and again.get_layer("n").axis == [1, 2]
    assert bridge.verify(model, module).passed


def convnext():
    x = keras.Input((9, 7, 3), name="x")
    y = stem = layers.Conv2D(8, 4, strides=2, name="stem")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(y)
    y = layers.LayerNormalization(epsilon=1e-6, name="norm")(y)
    y = layers.Conv2D(32, 1, activation="silu", name="expand")(y)
    y = layers.Add(name="add")([stem, layers.Conv2D(8, 1, name="project")(y)])
    y = layers.ReLU(name="relu")(layers.LayerNormalization(name="last")(y))
    return keras.Model(x, layers.Conv2D(4, 2, name="head")(y), name="net")


def test_convnext_has_no_permutation(check):
    model = convnext()
    module, again = check.both_ways(model, back="float32")
    text, x = convert.source(model).text, tuple(map(torch.from_numpy, example(model)))
    assert "self.norm = LayerNormOver((1,), shape=(8,), eps=1e-06)" in text and "permute" not in text
    operators = {str(n.target) for n in torch_export.export(module, x).graph.nodes}
    assert not [o for o in operators if "permute" in o or "transpose" in o]
    assert [type(a) for a in again.layers] == [type(a) for a in model.layers]
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    check.same_graph(again, module, x)


class TorchConvNeXt(nn.Module):
    """A block with both forms that torch's own implementations have."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 6, 2), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.expand, self.project = nn.LayerNorm(6, eps=1e-6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.last, self.head = nn.LayerNorm(6), nn.Conv2d(6, 4, 2)

    def forward(self, x):
        x = self.stem(x)
        y = self.project(F.silu(self.expand(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        x = x + y.permute(0, 3, 1, 2)
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.last.normalized_shape, self.last.weight, self.last.bias, self.last.eps)
        return self.head(x.permute(0, 3, 1, 2))


def test_permuted_normalisation_of_torch_has_no_permutation_in_keras(check):
    model = check.from_torch(TorchConvNeXt(), torch.randn(2, 3, 7, 9))
    kinds = [type(layer) for layer in model.layers]
    assert layers.Permute not in kinds and kinds.count(layers.LayerNormalization) == 2
    assert model.get_layer("norm").axis == [-1]
    module = TorchConvNeXt()
    report = bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 7, 9),)), module)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "make, shape, axis",
    [
        (lambda: nn.LayerNorm(5), (2, 5), [-1]),
        (lambda: nn.LayerNorm(5), (2, 4, 5), [-1]),
        (lambda: nn.LayerNorm([4, 5], bias=False), (2, 4, 5), [1, 2]),
        (lambda: nn.LayerNorm(5, elementwise_affine=False), (2, 3, 4, 5), [2]),
        (lambda: nn.LayerNorm([4, 5], eps=0.1), (2, 3, 4, 5), [1, 2]),
        (lambda: nn.LayerNorm([3, 4, 5]), (2, 3, 4, 5), [1, 2, 3]),
        (lambda: nn.LayerNorm([3, 4, 5], bias=False), (2, 3, 4, 5), [1, 2, 3]),
        (lambda: nn.LayerNorm([3, 4, 5]), (2, 6, 3, 4, 5), [1, 2, 3]),
    ],
)
def test_modules(check, make, shape, axis):
    model = check.from_torch(nn.Sequential(make()), torch.randn(shape))
    norm = make()
    layer = model.get_layer("0")
    assert layer.axis == axis and layer.epsilon == norm.eps
    assert (layer.scale, layer.center) == (norm.weight is not None, norm.bias is not None)


def test_weights_behind_a_permutation_of_torch(check):
    """`(W, H, C)`, as no Keras layer has it."""

    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.n, self.d = nn.Conv2d(3, 4, 1), nn.LayerNorm([6, 5, 4]), nn.Conv2d(4, 3, 2)

        def forward(self, x):
            return self.d(self.n(self.c(x).permute(0, 3, 2, 1)).permute(0, 3, 2, 1))

    model = check.from_torch(Turned(), torch.randn(2, 3, 5, 6))
    assert layers.Permute not in map(type, model.layers) and model.get_layer("n").gamma.shape == (5, 6, 4)


@pytest.mark.parametrize("first", [True, False])
def test_one_layer_in_two_layouts(check, first):
    """Weights have one order: the second use is permuted to the order of the first one's source."""
    x = keras.Input((4, 4, 4), name="x")
    norm, y = layers.LayerNormalization(axis=[1, 2, 3], name="n"), layers.Conv2D(4, 1, name="c")(x)
    turned = layers.Permute((3, 1, 2), name="turn")(y)
    z = [norm(t) for t in ([y, turned] if first else [turned, y])]
    model = keras.Model(x, z, name="net")
    module, again = check.both_ways(model)
    assert len(again.weights) == len(model.weights) and bridge.verify(model, module).passed


@pytest.mark.parametrize("axis", [-1, 1])
def test_functions(check, axis):
    """The function's epsilon is Keras' own, and its weights are constants."""
    x = keras.Input((4, 5), name="x")
    sizes = (4,) if axis == 1 else (5,)
    gamma, beta = np.random.default_rng(0).normal(1, 0.3, (2, *sizes)).astype("float32")
    for weights in ((), (gamma,), (gamma, beta)):
        model = keras.Model(x, ops.layer_normalization(x, *weights, axis=axis), name="net")
        module = bridge.to_torch(model)
        norm = next(module.children())
        assert norm.eps == 1e-7 and not any(p.requires_grad for p in module.parameters())
        assert len(list(module.parameters())) == len(weights)
        report = bridge.verify(model, module)
        assert report.passed, str(report)
        again = bridge.to_keras(module, (torch.randn(2, 4, 5),))
        data = np.random.default_rng(1).normal(size=(2, 4, 5)).astype("float32")
        assert check.relative(again(data), model(data)) < 1e-6


def test_scale_is_missing_alone_in_a_function_of_torch(check):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(5))

        def forward(self, x):
            return F.layer_norm(x, (5,), bias=self.shift)

    model = check.from_torch(Shifted(), torch.randn(2, 4, 5))
    assert [w.name for w in model.weights] == ["beta"]


def test_frozen(check):
    model = model_of((3, 4, 5))
    model.get_layer("n").trainable = False
    module, again = check.both_ways(model)
    assert not any(p.requires_grad for p in module.parameters()) and not again.trainable_weights


def test_half_precision_is_computed_in_float32():
    """1000 squared is more than float16 holds."""
    module = bridge.to_torch(model_of((3, 4, 5), axis=[1, 3])).half()
    x = torch.linspace(-1000, 1000, 120).reshape(2, 5, 3, 4)
    have = module(x.half())
    assert have.dtype == torch.float16
    torch.testing.assert_close(have.float(), module.float()(x), rtol=2e-3, atol=2e-3)
    keras_half = keras.layers.LayerNormalization(axis=[1, 3], dtype="float16")
    want = np.asarray(keras_half(np.moveaxis(x.numpy(), 1, -1).astype("float16")))
    np.testing.assert_allclose(have.detach().numpy(), np.moveaxis(want, -1, 1), rtol=2e-3, atol=2e-3)


def test_the_helper_survives():
    """deepcopy, double, pickle, torch.compile, and an export with open sizes."""
    module = bridge.to_torch(model_of((None, None, 5)))
    x = torch.randn(2, 5, 4, 6)
    want = module(x)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), compiled):
        torch.testing.assert_close(other(x), want, rtol=0, atol=0)
    assert copy.deepcopy(module).double()(x.double()).dtype == torch.float64
    program = torch_export.export(module, (x,), [{0, 2, 3}])
    larger = torch.randn(3, 5, 7, 9)
    torch.testing.assert_close(program.module()(larger), module(larger), rtol=0, atol=0)
    assert "LayerNormOver" in inspect.getsource(type(module))


def mixed(x):
    return layers.LayerNormalization(axis=[1, -1], name="n")(x)


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: layers.LayerNormalization(axis=0, name="n")(x), "it normalises axis 0, the batch"),
        (lambda x: layers.LayerNormalization(axis=[0, 1], name="n")(x), "it normalises axis 0, the batch"),
        (lambda x: layers.LayerNormalization(axis=[], name="n")(x), "axis=[] normalises nothing; name the axes"),
        (mixed, "n (LayerNormalization): axis=[-1, 1] counts from both ends, and Keras mixes up the axes of its "),
        (mixed, "of its weights; give axis=[1, 2]"),
        (lambda x: ops.layer_normalization(x, x), "its gamma is a tensor that flows; normalise without it"),
        (lambda x: ops.layer_normalization(x, keras.Variable([1.0] * 5)), "its gamma is a tensor that flows"),
        (
            lambda x: ops.layer_normalization(x, np.ones((1, 1, 5))),
            "its gamma has the shape (1, 1, 5); give one of (5,)",
        ),
    ],
)
def test_refusals_from_keras(function, text):
    x = keras.Input(batch_shape=(2, 4, 5), name="x")
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_torch(keras.Model(x, function(x)))
    assert text in str(e.value)


def test_mixed_axes_without_weights(check):
    check.both_ways(model_of((3, 4, 5), axis=[1, -1], center=False, scale=False))


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling")
def test_the_old_scaling_is_refused():
    with pytest.raises(bridge.BridgeError, match="rms_scaling=True divides by .*; use RMSNormalization"):
        bridge.to_torch(model_of((4, 5), rms_scaling=True))


def test_refusals_from_torch():
    module = nn.LayerNorm([2, 5])
    with pytest.raises(bridge.BridgeError, match="it normalises axis 0, the batch; normalise other axes"):
        bridge.to_keras(nn.Sequential(module), (torch.randn(2, 5),), [set()])


def test_what_it_reads_goes_on(check):
    """As in a residual block with the normalisation first: torch.export shows a conversion of nothing as its input."""
    x = keras.Input((6, 5, 4), name="x")
    y = layers.Conv2D(4, 3, padding="same")(x)
    norms = [
        layers.LayerNormalization(name="l"),
        layers.RMSNormalization(name="r"),
        layers.LayerNormalization(axis=[1, 2]),
    ]
    model = keras.Model(x, [y + layers.Conv2D(4, 1)(norm(y)) for norm in norms] + [layers.ReLU()(y)])
    check.both_ways(model, same_layers=False)
    assert bridge.verify(check.randomise(model), bridge.to_torch(model)).passed
