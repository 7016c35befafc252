"""Writing Keras models: names, sharing, freezing, fused activations, saving."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bridge
from bridge import keras_writer

nn, layers = torch.nn, keras.layers
X = torch.randn(2, 3, 6, 5)


def kinds(model):
    return [type(x).__name__ for x in model.operations[1:]]


def names(model):
    return [x.name for x in model.operations[1:]]


def test_layers_have_the_modules_names():
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    model = bridge.to_keras(
        nn.Sequential(block, nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(60, 2))), (X,)
    )
    assert names(model) == ["0.0", "0.1", "1.0", "1.1", "1.2"] and model.name == "Sequential"


def test_functions_have_names_that_collide_with_nothing(check):
    model = bridge.to_keras(
        check.module_of(lambda m, x: (m.add(x) + 1) * 2 - m.add_add(x), add=nn.Linear(5, 5), add_add=nn.Linear(5, 5)),
        (X,),
    )
    assert len(set(names(model))) == len(names(model)) and {"add", "add_add"} <= set(names(model))


@pytest.mark.parametrize(
    "text, name", [("a b", "a_b"), ("ü", "layer"), ("-a/b", "a_b"), ("", "layer"), ("a" * 500, "a" * 200), ("_x", "x")]
)
def test_names_that_tensorflow_accepts(text, name):
    taken = set()
    assert [keras_writer._name(text, taken) for _ in range(2)] == [name, f"{name}_1"]
    layers.Dense(1, name=name)(keras.Input((2,)))


def test_activations_are_fused_where_they_have_no_module(check):
    model = bridge.to_keras(check.module_of(lambda m, x: torch.relu(m.c(x)), c=nn.Conv2d(3, 3, 1)), (X,))
    assert kinds(model) == ["Conv2D"] and model.layers[-1].activation is keras.activations.relu
    model = bridge.to_keras(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()), (X,))
    assert len(kinds(model)) == 2 and model.layers[1].activation is keras.activations.linear


@pytest.mark.parametrize(
    "function, count",
    [
        (lambda m, x: m.c(torch.relu(m.c(x))), 2),  # relu after one of two calls
        (lambda m, x: torch.relu(m.c(torch.relu(m.c(x)))), 1),
        (lambda m, x: (lambda y: torch.relu(y) + y)(m.c(x)), 3),  # read before relu, too
        (lambda m, x: (lambda y: (torch.relu(y), y))(m.c(x)), 2),  # leaves the model
    ],
)
def test_a_shared_layer_stays_one_layer(check, function, count):
    module = check.module_of(function, c=nn.Conv2d(3, 3, 1))
    nn.init.constant_(module.c.bias, 1.0)  # or the ReLUs might leave nothing to compare
    model = bridge.to_keras(module, (X,))
    assert len(model.weights) == 2 and len(kinds(model)) == count
    with torch.no_grad():
        want = module(X)
    want = want if isinstance(want, tuple) else (want,)
    for h, w in zip(keras.tree.flatten(model(check.to_last(X.numpy()))), want, strict=True):
        assert check.relative(check.to_first(np.asarray(h)), w) < 1e-5


def test_a_shared_convolution_that_is_padded_in_two_ways(check):
    function = lambda m, x: (m.c(nn.functional.pad(x, (1, 0, 0, 2))), m.c(x))  # noqa: E731
    model = bridge.to_keras(check.module_of(function, c=nn.Conv2d(3, 3, 3)), (X,))
    assert len(model.weights) == 2 and sorted(kinds(model)) == ["Conv2D", "ZeroPadding2D"]


@pytest.mark.parametrize("size, count", [(15, 2), (16, 2), (17, 1)])
def test_a_shared_convolution_that_is_same_at_one_of_its_sizes(check, size, count):
    module = check.module_of(lambda m, x: m.c(torch.relu(m.c(x))), c=nn.Conv2d(3, 3, 3, stride=2, padding=1))
    x = torch.randn(2, 3, size, size)
    model = check.to_keras(module, (x,))
    assert len(model.weights) == 2 and kinds(model).count("Conv2D") == 1
    assert kinds(model).count("ZeroPadding2D") == count - 1
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), module(x).detach()) < 1e-5


@pytest.mark.parametrize("pad", [(1, 1), (2, 0)])
def test_a_shared_convolution_that_is_same_or_causal_at_one_of_its_calls(check, pad):
    module = check.module_of(lambda m, x: m.c(m.c(nn.functional.pad(x, pad))), c=nn.Conv1d(3, 3, 3))
    model = check.to_keras(module, (X[..., 0],))
    assert len(model.weights) == 2 and sorted(set(kinds(model)) - {"Permute"}) == ["Conv1D", "ZeroPadding1D"]
    assert check.relative(model(X[..., 0].numpy()), module(X[..., 0]).detach()) < 1e-5


@pytest.mark.parametrize("bias", [True, False])
def test_a_single_tied_weight(check, bias):
    """It flows, as Keras shares whole layers only."""
    module = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5, bias=bias))
    module[2].weight = module[0].weight
    check.tied(module, X)


@pytest.mark.parametrize(
    "function, parts",
    [
        (lambda m, x: F.linear(torch.relu(F.linear(x, m.w, m.b)), m.w.t()), {"w": (4, 5), "b": (4,)}),
        (lambda m, x: F.linear(x, m.w) + m.w.mean(), {"w": (4, 5)}),
        (lambda m, x: F.conv2d(x, m.w) + F.conv2d(x, m.w - m.w.mean((2, 3), keepdim=True)), {"w": (4, 3, 3, 3)}),
    ],
)
def test_weights_that_are_used_in_two_ways(check, function, parts):
    check.tied(check.module_of(function, **{k: nn.Parameter(torch.empty(shape)) for k, shape in parts.items()}), X)


def test_tied_tables(check):
    """The table of an Embedding and the kernel of a Linear are one weight, which flows."""
    module = check.module_of(lambda m, x: m.l(m.e(x)), e=nn.Embedding(7, 4), l=nn.Linear(4, 7, bias=False))
    module.l.weight = module.e.weight
    model = bridge.to_keras(module, (torch.zeros(2, 3, dtype=torch.int64),))
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 28
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_freezing():
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False))
    module[0].requires_grad_(False)
    model = bridge.to_keras(module, (X,))
    assert [x.trainable for x in model.layers[1:]] == [False, True, True] and len(model.trainable_weights) == 2


def test_partly_frozen_modules(check):
    """Their weights flow, as Keras trains a layer as a whole."""
    module = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Tanh(), nn.Conv2d(3, 3, 1), nn.Tanh(), nn.Linear(5, 2))
    module[0].bias.requires_grad_(False)
    module[2].weight.requires_grad_(False)
    model = check.tied(module, X)
    assert [kinds(model).count(k) for k in ("Conv2D", "Dense", "EinsumDense")] == [2, 1, 2]


def test_partly_frozen_normalisations_are_all_listed():
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.GroupNorm(1, 3))
    module[0].bias.requires_grad_(False)
    module[2].weight.requires_grad_(False)
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(module, (X,))
    assert [o.path for o in e.value.obstacles] == ["0", "2"] and "freeze all of the module's parameters or none" in str(
        e.value
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_precision_follows_the_module(dtype):
    model = bridge.to_keras(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(), nn.Linear(90, 2)).to(dtype), (X.to(dtype),))
    name = str(dtype).removeprefix("torch.")
    assert {w.dtype for w in model.weights} == {name} and model.output.dtype == name and model.input.dtype == name


def test_it_saves_and_loads(check, tmp_path):
    module = nn.Sequential(
        check.module_of(lambda m, x: (1 - torch.relu(m.c(x))) / 3, c=nn.Conv2d(3, 3, 3, padding=1)),
        nn.Dropout2d(0.3),
        nn.BatchNorm2d(3),
        nn.Flatten(),
        nn.Linear(90, 2),
    )
    model = bridge.to_keras(module, (X,))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3))
    np.testing.assert_array_equal(model(x), again(x))
    assert names(model) == names(again)


def test_it_trains():
    model = bridge.to_keras(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(48, 1)), (X,)
    )
    model.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(16, 6, 5, 3))
    losses = model.fit(x, x.mean((1, 2, 3))[:, None], epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_layers_have_their_own_initializers():
    """The weights begin as the module's, but a layer that is built anew from its configuration begins as any other."""
    model = bridge.to_keras(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (X,))
    conv, norm = model.layers[1:]
    assert type(conv.kernel_initializer).__name__ == "GlorotUniform"
    assert type(norm.moving_variance_initializer).__name__ == "Ones"
    assert keras.models.clone_model(model).layers[1].kernel.numpy().any()
