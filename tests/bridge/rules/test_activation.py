"""Every activation of Keras and of torch.nn, wherever it may stand, both ways; values at extremes; gradients."""

import copy
import inspect
import pickle
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from torch import nn

import bridge
from bridge import align, convert, keras_reader, layout, rules, torch_export, torch_reader
from bridge.rules import activation
from bridge.rules.activation import LIMIT

layers, ops = keras.layers, keras.ops
NOT_FUNCTIONS = {"get", "serialize", "deserialize"}
NAMES = sorted(n for n in dir(keras.activations) if not n.startswith("_") and n not in NOT_FUNCTIONS)
REFUSED = {"glu", "threshold"}  # as `activation=`: Keras has the shape wrong, or wants arguments
CARRIED = [n for n in NAMES if n not in REFUSED]
ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}


def apply(function, *shape, name="net"):
    """A model of one function or layer."""
    x = keras.Input(shape, name="x")
    return keras.Model(x, function(x), name=name)


def nodes(model):
    return keras_reader.read(model).nodes


def torch_graph(module, *tensors, dynamic=None):
    return layout.convert(torch_reader.read(module, tensors, dynamic), "first")


def assert_aligned(model, module, *tensors):
    """The normal form: both readers give the same graph."""
    first, second = layout.convert(keras_reader.read(model), "first"), torch_graph(module, *tensors)
    pairs, sentences = align.align(first, second)
    assert not sentences + align.differences(pairs, first, second)


def limit_of(model):
    """What the nodes declare, on top of 1e-9."""
    return 1e-9 + sum(LIMIT(n) for n in nodes(model) if n.operator == "activation")


def round_trip(module, *shape, seed=0, limit=1e-9):
    """Carry a torch module to Keras and back and compare values and graphs; returns the Keras model and the module."""
    module = module.double().eval()
    x = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, shape))
    with torch.no_grad():
        want = module(x.clone()).numpy()
    model = bridge.to_keras(module, (x,))
    last = (lambda a: np.moveaxis(a, 1, -1)) if len(shape) in (4, 5) else (lambda a: a)
    np.testing.assert_allclose(
        np.asarray(model(last(x.numpy()))), last(want), rtol=limit * 10, atol=limit * np.abs(want).max()
    )
    assert_aligned(model, module, x)
    again = bridge.to_torch(model)
    with torch.no_grad():
        np.testing.assert_allclose(again(x).numpy(), want, rtol=1e-12, atol=1e-12)
    assert_aligned(model, again, x)
    return model, again


# Keras: a name, in every place


@pytest.mark.parametrize("name", CARRIED)
def test_fused(check, name):
    """In a Dense and a convolution; the Dense of a rank-4 tensor and the Flatten after it keep their layout."""
    x = keras.Input((5, 4, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation=name, name="conv")(x)
    y = layers.Dense(3, activation=name, name="inner")(y)
    model = keras.Model(x, layers.Dense(5, activation=name, name="last")(layers.Flatten(name="flat")(y)), name="net")
    module, again = check.both_ways(model, limit=2 * limit_of(model))
    assert_aligned(model, module, torch.randn(2, 3, 5, 4))
    kept = again.get_layer("last").get_config()["activation"]
    if not module_made(model):
        assert kept == ALIASES.get(name, name)


def module_made(model):
    """Functions that torch has no call for come back as layers."""
    source = convert.source(model).text
    return "_activation = " in source or "_sparsemax = " in source


@pytest.mark.parametrize("name", CARRIED)
def test_activation_layer(check, name):
    """Named layer after a convolution and between Flatten and Dense, whose rows must follow."""
    x = keras.Input((4, 3, 3), name="image")
    y = layers.Activation(name, name="act")(layers.Conv2D(4, 2, name="conv")(x))
    y = layers.Activation(name, name="flat_act")(layers.Flatten(name="flat")(y))
    model = keras.Model(x, layers.Dense(3, name="last")(y), name="net")
    module, again = check.both_ways(model, limit=2 * limit_of(model))
    assert_aligned(model, module, torch.randn(2, 3, 4, 3))
    assert [n.attributes for n in nodes(again)] == [n.attributes for n in nodes(model)]
    assert "permute" not in convert.source(model).text or name in ("softmax", "log_softmax", "sparsemax")


@pytest.mark.parametrize(
    "name, want",
    [
        ("relu", "ReLU"),
        ("elu", "ELU"),
        ("leaky_relu", "LeakyReLU"),
        ("softmax", "Softmax"),
        ("relu6", "ReLU"),
        ("tanh", "Activation"),
        ("hard_tanh", "Activation"),
    ],
)
def test_named_layers_come_back_as_the_layer_made_for_them(check, name, want):
    model = apply(layers.Activation(name, name="act"), 4)
    _, again = check.both_ways(model, limit=1e-7)
    assert type(again.get_layer("act")).__name__ == want


# Keras: layers with options


LAYERS = [
    *(
        ("ReLU", {"max_value": top, "negative_slope": slope, "threshold": start})
        for top in (None, 0.7, 6)
        for slope in (0, 0.3)
        for start in (0, 0.4)
    ),
    *(("LeakyReLU", {"negative_slope": s}) for s in (0, 0.01, 0.2, 0.3, 1.5)),
    ("LeakyReLU", {}),
    ("ELU", {}),
    ("ELU", {"alpha": 0.3}),
]


@pytest.mark.parametrize("kind, options", LAYERS)
def test_layer_options(check, kind, options):
    layer = getattr(layers, kind)(**options, name="act")
    model = apply(layer, None, 5, 3)
    module, again = check.both_ways(model, limit=limit_of(model))
    assert_aligned(model, module, torch.randn(2, 3, 4, 5))
    kept = again.get_layer("act")
    wanted = "ReLU" if not layer.get_config().get("negative_slope", 1) else kind  # LeakyReLU(0) is a ReLU
    wanted = "LeakyReLU" if options == {"max_value": None, "negative_slope": 0.3, "threshold": 0} else wanted
    assert type(kept).__name__ == wanted
    if wanted == kind:
        assert {**kept.get_config(), "dtype": None} == {**layer.get_config(), "dtype": None}


@pytest.mark.parametrize(
    "kind, options",
    [
        ("ReLU", {"max_value": 6}),
        ("ReLU", {"negative_slope": 0.1, "threshold": 0.2}),
        ("LeakyReLU", {"negative_slope": 0.2}),
        ("ELU", {"alpha": 0.7}),
        ("Softmax", {"axis": 1}),
        ("Softmax", {}),
        ("Activation", {"activation": "tanh"}),
    ],
)
def test_layer_inside_a_layer(check, kind, options):
    """activation=LeakyReLU(0.2): Keras writes the layer into the configuration."""
    model = apply(layers.Dense(4, activation=getattr(layers, kind)(**options), name="dense"), 3, 2)
    module = check.both_ways(model, limit=limit_of(model)).module
    assert_aligned(model, module, torch.randn(2, 3, 2))


@pytest.mark.parametrize(
    "form", [layers.Activation, lambda activation: layers.Dense(3, activation=activation, name="d")]
)
def test_linear_is_nothing(check, form):
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2, name="last")(form("linear")(x)))
    module = check.both_ways(model).module
    assert "activation" not in convert.source(model).text
    assert_aligned(model, module, torch.randn(2, 4))


# Keras: functions of keras.ops


OPERATIONS = {
    "relu": {},
    "relu6": {},
    "sigmoid": {},
    "sparse_sigmoid": {},
    "softplus": {},
    "softsign": {},
    "sparse_plus": {},
    "silu": {},
    "log_sigmoid": {},
    "hard_sigmoid": {},
    "hard_silu": {},
    "selu": {},
    "tanh_shrink": {},
    "hard_tanh": {},
    "tanh": {},
    "exp": {},
    "soft_shrink": {"threshold": 0.3},
    "squareplus": {"b": 3},
    "leaky_relu": {"negative_slope": 0.1},
    "elu": {"alpha": 0.6},
    "gelu": {},
    "celu": {"alpha": 2.3},
    "hard_shrink": {"threshold": 0.2},
    "threshold": {"threshold": 0.1, "default_value": -0.7},
    "clip": {"x_min": -0.4, "x_max": 0.9},
}
MORE = [
    ("gelu", {"approximate": False}),
    ("squareplus", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": -0.25}),
    ("clip", {"x_min": 0, "x_max": 6}),
    ("clip", {"x_min": 0.2, "x_max": 0.8}),
    ("celu", {}),
    ("elu", {}),
    ("threshold", {"threshold": 0.3, "default_value": 0}),
    ("threshold", {"threshold": -0.3, "default_value": 0}),
]


@pytest.mark.parametrize("name, options", [*OPERATIONS.items(), *MORE])
def test_operations(check, name, options):
    model = apply(lambda x: getattr(ops, name)(x, **options), None, 4, 3)
    module, again = check.both_ways(model, limit=limit_of(model))
    assert_aligned(model, module, torch.randn(2, 3, 5, 4))
    assert [n.attributes for n in nodes(again)] == [n.attributes for n in nodes(model)]


def test_every_operation_of_keras_is_tried():
    tried = {"".join(w.title() for w in n.split("_")) for n in OPERATIONS}
    ours = {k.removeprefix("ops.") for k in rules.families()["activation"].OPERATIONS}
    assert ours - tried == {
        "ReLU",
        "Exponential",
        "Mish",
    }  # the first is keras.activations.relu, below; the rest is not in keras.ops


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_value": 6},
        {"negative_slope": 0.2},
        {"threshold": -0.5},
        {"threshold": 0.5},
        {"max_value": 0.8, "negative_slope": 0.2, "threshold": 0.1},
    ],
)
def test_relu_with_options_as_a_function(check, options):
    model = apply(lambda x: keras.activations.relu(x, **options), 7)
    check.both_ways(model, limit=limit_of(model))


def test_gelu_of_ops_is_the_approximation_and_that_of_activations_is_not():
    for function, want in (
        (ops.gelu, "self.gelu = nn.GELU(approximate='tanh')"),
        (keras.activations.gelu, "nn.GELU()"),
    ):
        keras.backend.clear_session()
        assert want in convert.source(apply(function, 4)).text


# torch: modules and functions


MODULES = {
    "ReLU": [nn.ReLU(), nn.ReLU(inplace=True)],
    "ReLU6": [nn.ReLU6()],
    "LeakyReLU": [nn.LeakyReLU(), nn.LeakyReLU(0.25), nn.LeakyReLU(0.0), nn.LeakyReLU(-0.5)],
    "ELU": [nn.ELU(), nn.ELU(0.4)],
    "SELU": [nn.SELU()],
    "CELU": [nn.CELU(), nn.CELU(1.7)],
    "GELU": [nn.GELU(), nn.GELU("tanh")],
    "Hardsigmoid": [nn.Hardsigmoid()],
    "Hardswish": [nn.Hardswish()],
    "Hardtanh": [nn.Hardtanh(), nn.Hardtanh(0, 6), nn.Hardtanh(0, 2), nn.Hardtanh(-1, 2), nn.Hardtanh(-2.5, 0.5)],
    "Hardshrink": [nn.Hardshrink(), nn.Hardshrink(1.1)],
    "Softshrink": [nn.Softshrink(), nn.Softshrink(1.1)],
    "Tanhshrink": [nn.Tanhshrink()],
    "SiLU": [nn.SiLU(), nn.SiLU(inplace=True)],
    "Mish": [nn.Mish()],
    "Threshold": [
        nn.Threshold(0.1, 20),
        nn.Threshold(0, 0),
        nn.Threshold(1, 0),
        nn.Threshold(-1, 0),
        nn.Threshold(0, -1),
    ],
    "Softplus": [nn.Softplus(), nn.Softplus(beta=2.5), nn.Softplus(threshold=40)],
    "Softsign": [nn.Softsign()],
    "Tanh": [nn.Tanh()],
    "Sigmoid": [nn.Sigmoid()],
    "LogSigmoid": [nn.LogSigmoid()],
    "Identity": [nn.Identity()],
}


@pytest.mark.parametrize("module", [m for group in MODULES.values() for m in group], ids=str)
def test_modules(module):
    limit = 2e-7 if "LeakyReLU" in str(module) else 2e-8 if "GELU" in str(module) else 1e-9
    _, again = round_trip(nn.Sequential(nn.Conv2d(3, 3, 1), module), 2, 3, 4, 5, limit=limit)
    if "Softplus(beta=2.5" not in str(module):
        kept = [str(m).replace("inplace=True", "") for m in again.children()][1:]
        plain = str(module).replace("inplace=True", "")
        same = {
            "Hardtanh(min_val=0, max_val=6)": "ReLU6()",
            "Threshold(threshold=0, value=0)": "ReLU()",
            "Identity()": None,
            "LeakyReLU(negative_slope=0.0)": "ReLU()",
            "Softplus(beta=1.0, threshold=40)": "Softplus(beta=1.0, threshold=20.0)",
        }
        wanted = same.get(plain, plain)
        assert normal(kept) == normal([wanted] if wanted else [])


def normal(texts):
    """The repr of modules with all numbers as floats."""
    return [re.sub(r"(?<![\w.])(-?\d+)(?![\w.])", r"\1.0", t) for t in texts]


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.layer = function, nn.Linear(4, 6)

    def forward(self, x):
        return self.function(self.layer(x))


FUNCTIONS = {
    "exp": torch.exp,
    "x.exp": lambda x: x.exp(),
    "relu": F.relu,
    "relu_": lambda x: x.relu_(),
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "tanh_": lambda x: x.tanh_(),
    "silu": F.silu,
    "mish": F.mish,
    "logsigmoid": F.logsigmoid,
    "hardtanh": F.hardtanh,
    "celu": F.celu,
    "selu": F.selu,
    "elu": lambda x: F.elu(x, 0.3),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky": lambda x: F.leaky_relu(x, 0.125),
    "threshold": lambda x: F.threshold(x, 0.5, -3.0),
    "softplus": F.softplus,
    "clamp": lambda x: x.clamp(-0.3, 0.7),
    "clip": lambda x: torch.clip(x, 0, 6),
    "clamp from 0": lambda x: x.clamp(min=0),
    "clamp from .2": lambda x: x.clamp(min=0.2),
    "clamp to .2": lambda x: x.clamp(max=0.2),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "glu": F.glu,
    "softmin": lambda x: F.softmin(x, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch_functions(name):
    model, _ = round_trip(Apply(FUNCTIONS[name]), 3, 4, limit=2e-8 if "gelu" in name else 1e-9)
    if name in ("relu", "tanh", "gelu", "relu6", "silu", "softmax"):
        assert model.get_layer("layer").get_config()["activation"] == name


def test_a_value_changed_in_place_is_the_changed_one_afterwards():
    def both(x):
        y = F.relu(x, inplace=True)
        return torch.cat([x, y], 1)

    round_trip(Apply(both), 3, 4)


def test_the_same_function_is_the_same_node():
    six = [
        apply(layers.ReLU(6), 4),
        apply(layers.Activation("relu6"), 4),
        apply(ops.relu6, 4),
        apply(lambda x: ops.clip(x, 0, 6), 4),
    ]
    modules = [nn.ReLU6(), nn.Hardtanh(0, 6), Clamp()]
    found = [nodes(m)[0].attributes for m in six] + [
        torch_graph(m, torch.randn(2, 4)).nodes[0].attributes for m in modules
    ]
    assert all(a == {"function": "clip", "x_min": 0.0, "x_max": 6.0} for a in found)


class Clamp(nn.Module):
    def forward(self, x):
        return x.clamp(0, 6)


# Values and gradients


def both_sides(check, model, module, x):
    """Values and input gradients of both, in float64."""
    slopes = np.random.default_rng(3).normal(size=x.shape)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        want = check.in_dtype(model)(variable, training=True)
        total = tf.reduce_sum(want * slopes)
    tensor = torch.from_numpy(x).requires_grad_()
    have = module.double().train()(tensor)
    (have * torch.from_numpy(slopes)).sum().backward()
    return have.detach().numpy(), want.numpy(), tensor.grad.numpy(), tape.gradient(total, variable).numpy()


CASES = (
    {n: layers.Activation(n) for n in CARRIED if n not in ("softmax", "log_softmax", "sparsemax")}
    | {f"{k}({o})": getattr(layers, k)(**o) for k, o in LAYERS if o}
    | {f"ops.{k}": k for k, o in OPERATIONS.items() if o}
)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_from_minus_50_to_50(check, name):
    function = CASES[name]
    if isinstance(function, str):
        function = lambda x: getattr(ops, CASES[name])(x, **OPERATIONS[CASES[name]])  # noqa: E731
    model = apply(function, 402)
    grid = np.concatenate([np.linspace(-50, 50, 201), np.linspace(-5, 5, 200), [1e-9]]) + 1.234e-4  # no kink is hit
    x = np.stack([grid, np.random.default_rng(0).permutation(grid)])
    have, want, slope, wanted = both_sides(check, model, bridge.to_torch(model), x)
    limit = limit_of(model)
    np.testing.assert_allclose(have, want, rtol=1e-10 if limit == 1e-9 else 100 * limit, atol=limit)
    np.testing.assert_allclose(slope, wanted, rtol=1e-7, atol=1e-7)
    assert np.ptp(want) > 0


@pytest.mark.parametrize("name", ["gelu", "leaky_relu"])
def test_the_declared_limits_are_needed_and_enough(check, name):
    model = apply(layers.Activation(name), 1000)
    x = -np.abs(np.random.default_rng(0).normal(2.5, 0.3, (2, 1000)))  # where the share of the rounding is large
    have, want, *_ = both_sides(check, model, bridge.to_torch(model), x)
    error, limit = np.abs(have - want).max() / np.abs(want).max(), limit_of(model)
    assert 1e-9 < error < limit < 20 * error


@pytest.mark.parametrize("slope, want", [(0.25, 0), (0.2, 1.5e-8), (0.3, 4e-8)])
def test_the_limit_of_a_leaky_slope_is_what_float32_makes_of_it(slope, want):
    node = nodes(apply(layers.LeakyReLU(slope), 3))[0]
    np.testing.assert_allclose(LIMIT(node), want, rtol=0.1)


@pytest.mark.parametrize("name, option", [(n, o) for n, f in activation.FUNCTIONS.items() for o in f.options])
def test_the_table_has_the_defaults_of_both_frameworks(name, option):
    """A default of ours that is not theirs would be left out where it must be written."""
    ours, their_name, theirs = activation.FUNCTIONS[name].options[option]
    function = {"bounded_relu": keras.activations.relu, "clip": ops.clip}.get(name) or getattr(keras.activations, name)
    module = activation.FUNCTIONS[name].module.removeprefix("nn.")
    assert default(function, option) == ours
    if module not in activation.HELPERS:
        assert default(getattr(nn, module), their_name) == theirs


def default(function, argument):
    value = inspect.signature(function).parameters[argument].default
    return None if value is inspect.Parameter.empty else value


# Generated source


def all_of_them():
    """A model of everything that has a form of its own in torch."""
    y = x = keras.Input((None, 4), name="x")
    for i, name in enumerate(CARRIED):
        y = layers.Dense(4, activation=name, name=f"dense{i}")(y)
    for i, (kind, options) in enumerate(LAYERS):
        y = layers.Dense(4, name=f"more{i}")(getattr(layers, kind)(**options)(y))
    return keras.Model(x, y, name="everything")


def test_source_is_clean_and_says_only_what_is_not_default(tmp_path):
    text = convert.source(all_of_them()).text
    (tmp_path / "model.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", tmp_path / "model.py"], capture_output=True, text=True
    )
    assert not done.returncode, done.stdout
    for line in (
        "F.relu(self.",
        "F.gelu(self.",
        "F.elu(self.",
        "nn.LeakyReLU()",
        "nn.ELU()",
        "nn.ReLU6()",
        "nn.Softsign()",
        "Squareplus()",
    ):
        assert line in text
    for line in (
        "alpha=1.0",
        "negative_slope=0.01",
        "approximate='none'",
        "max_value=None",
        "b=4.0",
        "beta",
    ):
        assert line not in text.split("class Everything")[1]


@pytest.mark.parametrize(
    "layer",
    [
        layers.ReLU(0.7, 0.2, 0.1),
        *(layers.Activation(n) for n in ("sparse_plus", "sparse_sigmoid", "squareplus", "softsign")),
    ],
    ids=lambda x: x.name,
)
def test_helpers_survive(layer):
    """deepcopy, double, pickle, torch.compile, and an export with open sizes."""
    model = apply(layer, None, 3)
    module = bridge.to_torch(model)
    x = torch.randn(2, 5, 3)
    want = module(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.compile(module, backend="eager")):
        torch.testing.assert_close(other(x), want, rtol=0, atol=0)
    assert copy.deepcopy(module).double()(x.double()).dtype == torch.float64
    open_sizes = torch_export.export(module, (x,), [{0, 1}]).module()
    torch.testing.assert_close(open_sizes(torch.cat([x, x], 1)), module(torch.cat([x, x], 1)), rtol=0, atol=0)


# What is refused


def own(x):
    return x


def relu(x):
    return -x


@pytest.mark.parametrize(
    "layer, text",
    [
        (layers.Dense(3, activation="glu", name="d"), r"d \(Dense\): activation='glu' halves.*keras.ops.glu"),
        (layers.Dense(3, activation=own, name="d"), r"d \(Dense\): activation='own'; use one of keras.activations"),
        (
            layers.Dense(3, activation=layers.PReLU(), name="d"),
            r"d \(Dense\): activation='PReLU'; .*a layer of its own",
        ),
        (
            layers.Dense(3, activation=ops.gelu, name="d"),
            r"d \(Dense\): its activation is not keras.activations.gelu, though",
        ),
        (
            layers.Dense(3, activation=relu, name="d"),
            r"d \(Dense\): its activation is not keras.activations.relu, though",
        ),
        (layers.ReLU(max_value=0, name="r"), r"r \(ReLU\): its values lie between 0.0 and 0.0; give a maximum"),
        (layers.ELU(alpha=float("nan"), name="e"), r"e \(ELU\): alpha=nan is not a finite number; give it as a plain"),
        (layers.LeakyReLU(float("inf"), name="e"), r"e \(LeakyReLU\): negative_slope=inf is not a finite number"),
    ],
)
def test_keras_options_that_are_refused(layer, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(apply(layer, 4))


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda x: ops.soft_shrink(x, -0.5),
            r"soft_shrink\w* \(SoftShrink\): threshold=-0.5; give a threshold of 0 or more",
        ),
        (lambda x: ops.celu(x, 0.0), r"celu\w* \(Celu\): alpha=0.0 divides by zero; give another"),
        (
            lambda x: ops.celu(x, np.float32(0.5)),
            r"celu\w* \(Celu\): its alpha cannot be read back from Keras; give plain numbers",
        ),
        (lambda x: ops.clip(x, 0, np.array([1.0, 2.0])), r"clip\w* \(Clip\): its x_min and x_max cannot be read back"),
    ],
)
def test_operations_that_are_refused(function, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(apply(function, 2))


@pytest.mark.parametrize(
    "function",
    [
        nn.Softplus(2, threshold=1),
        lambda x: torch.ops.aten.elu(x, 1.0, 2.0),
        lambda x: x.clamp(x * 0 - 0.5, x.square()),
    ],
)
def test_torch_options_that_keras_lacks(check, function):
    check.from_torch(Apply(function), torch.randn(2, 4))


def test_keras_cannot_hold_a_relu_with_a_negative_option():
    module = bridge.to_torch(apply(lambda x: keras.activations.relu(x, negative_slope=-0.5, max_value=1.0), 4))
    with pytest.raises(
        bridge.BridgeError, match=r"a ReLU with .*'negative_slope': -0.5.*Keras' has no negative options"
    ):
        bridge.to_keras(module, (torch.randn(2, 4),))


def test_rrelu_is_random_in_training():
    with pytest.raises(bridge.BridgeError, match="in training it calls rrelu"):
        bridge.to_keras(nn.Sequential(nn.RReLU(0.125, 0.375)), (torch.randn(2, 5),))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    "function",
    [
        nn.ReLU(),
        nn.ReLU6(),
        nn.Hardtanh(-3, 4),
        lambda x: (x * 2).relu_(),
        lambda x: x.clamp(-3, 2**24 + 1),
        lambda x: x.clamp(0, 0),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp(x * 0 - 1, x * 0 + 2),
    ],
)
def test_whole_numbers_stay_whole(check, function, dtype):
    """Also those that have no float32; on the way back, too."""
    module, x = check.Function(function), torch.tensor([[-5, 3, 2**24 + 3], [0, -1, 7]]).to(dtype)
    model = bridge.to_keras(module, (x,))
    check.whole(model, module, x)
    check.whole(model, bridge.to_torch(model), x)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize(
    "function",
    [
        ops.relu,
        ops.relu6,
        keras.activations.relu,
        lambda x: keras.activations.relu(x, max_value=5),
        lambda x: ops.clip(x, -3, 2**24 + 1),
        lambda x: ops.clip(x, 2, 2),
    ],
)
def test_whole_numbers_of_keras_stay_whole(check, function, dtype):
    x = keras.Input((3,), dtype=dtype, name="x")
    numbers = torch.tensor([[-5, 3, 2**24 + 3], [0, -1, 7]]).to(getattr(torch, dtype))
    model = keras.Model(x, function(x))
    module = bridge.to_torch(model)
    check.whole(model, module, numbers)
    check.whole(bridge.to_keras(module, (numbers,)), module, numbers)


@pytest.mark.parametrize("function", [lambda x: x.clamp(-0.5, 3), torch.sigmoid, torch.tanh])
def test_torch_makes_floats_of_whole_numbers(check, function):
    module, x = check.Function(function), torch.tensor([[-5, 3, 2], [0, -1, 7]])
    model = bridge.to_keras(module, (x,))
    have, want = np.asarray(model(x.numpy())), module(x).numpy()
    assert have.dtype == want.dtype == np.float32 and check.relative(have, want) < 1e-6
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize(
    "function, text",
    [
        (lambda x: ops.clip(x, 0.0, 4.0), r"\(0.0, 4.0\) of int32, which TensorFlow refuses; give whole ones"),
        (lambda x: ops.clip(x, 3, 2), "its values lie between 3 and 2; give a maximum above the minimum"),
        (ops.sigmoid, "sigmoid of int32; convert the tensor to a float dtype before"),
    ],
)
def test_what_is_refused_of_whole_numbers(function, text):
    x = keras.Input((3,), dtype="int32", name="x")
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras.Model(x, function(x)))
