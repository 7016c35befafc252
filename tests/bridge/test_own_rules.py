"""Rules of the user's own: the example of the page as it stands there, and what is refused."""

import importlib
import pathlib
import re
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import convert, keras_reader, rules
from bridge.graph import Node
from bridge.rules import KerasCall, TorchCall, call_source

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bridge.md").read_text()
EXAMPLE = re.search(r"## Your own rules\n.*?```python\n(.*?)```", PAGE, re.DOTALL)[1]


def named(**attributes):
    return type("Named", (), attributes)


@pytest.fixture(autouse=True)
def forgotten():
    """No other test may know these rules."""
    before = dict(rules.OWN)
    yield
    rules.OWN.clear()
    rules.OWN.update(before)
    rules.changed()


@pytest.fixture
def snake(tmp_path, monkeypatch):
    """The example of the page, as a module of its own."""
    (tmp_path / "snake.py").write_text(EXAMPLE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("snake")
    del sys.modules["snake"]


def network(snake, size=(7, 6, 3)):
    x = image = keras.Input(size, name="image")
    x = keras.layers.Conv2D(4, 3, name="c")(x)
    x = snake.Snake(0.3, name="s")(x)
    x = keras.layers.Conv2D(2, 1, name="d")(x)
    return keras.Model(image, snake.Snake(name="last")(x), name="net")


def positive(model):
    """Weights that are live, and alpha far from the pole."""
    rng = np.random.default_rng(0)
    for w in model.weights:
        w.assign(rng.uniform(0.5, 1.5, w.shape) if w.name == "alpha" else rng.normal(0, 0.5, w.shape))
    return model


@pytest.mark.parametrize("size", [(7, 6, 3), (None, None, 3)])
def test_the_example_of_the_page(check, snake, size):
    model = positive(network(snake, size))
    module, again = check.both_ways(model, randomised=False)
    text = convert.source(model).text
    assert "self.s = TorchSnake(4, epsilon=0.3)\n" in text and text.count("class TorchSnake(nn.Module):") == 1
    assert "permute" not in text
    assert type(again.get_layer("s")) is snake.Snake and again.get_layer("s").epsilon == 0.3
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert report.names["s.alpha"] == "s.alpha"


def test_the_users_own_module(check, snake):
    """Of the user's class, not of generated source."""
    module = nn.Sequential(nn.Conv2d(3, 4, 2), snake.TorchSnake(4, 0.5), nn.Flatten(), nn.Linear(4 * 4 * 3, 2))
    with torch.no_grad():
        module[1].alpha.uniform_(0.5, 1.5)
    model = check.to_keras(module.eval(), (torch.randn(2, 3, 5, 4),))
    assert [type(x).__name__ for x in model.layers[1:3]] == ["Conv2D", "Snake"]
    report = bridge.verify(model, module)
    assert report.passed, str(report)


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda m: m.s.alpha.data.add_(0.1), "s.alpha: the weights differ by up to 1.0e-01"),
        (lambda m: setattr(m.s, "epsilon", 0.31), "s: epsilon is 0.3 in Keras and 0.31 in torch"),
    ],
)
def test_a_fault_is_found(snake, change, text):
    model = positive(network(snake))
    module = bridge.to_torch(model)
    change(module)
    report = bridge.verify(model, module)
    assert not report.passed and text in str(report)


def test_a_rule_that_is_wrong_is_found(tmp_path, monkeypatch):
    """Its helper computes something else than its layer does."""
    (tmp_path / "wrong_snake.py").write_text(EXAMPLE.replace("torch.sin", "torch.cos"))
    monkeypatch.syspath_prepend(tmp_path)
    model = positive(network(importlib.import_module("wrong_snake")))
    report = bridge.verify(model, bridge.to_torch(model))
    assert not report.passed and "the first layer that differs is s (snake)" in str(report)


COMMANDS = """
import sys
from bridge.__main__ import main
for line in sys.argv[1:]:
    sys.argv = ["bridge", *line.split(), "--import", "snake"]
    try:
        main()
    except SystemExit as e:
        print("exit", e.code, flush=True)
"""


def test_on_the_command_line(tmp_path, snake):
    """In a fresh process that knows of the rule by --import alone."""
    positive(network(snake)).save(tmp_path / "net.keras")
    commands = [
        "to-torch net.keras",
        "to-keras net_torch -o again.keras --trust",
        "verify again.keras net_torch --trust",
    ]
    commands += ["inspect again.keras", "inspect net_torch --trust", "rules"]
    run = subprocess.run(
        [sys.executable, "-c", COMMANDS, *commands],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": "-1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.stdout.count("exit 0") == len(commands), run.stdout + run.stderr
    assert "class TorchSnake(nn.Module):" in (tmp_path / "net_torch" / "model.py").read_text()
    assert "SnakeRule" in run.stdout and "snake:Snake" in run.stdout
    again = keras.models.load_model(tmp_path / "again.keras")
    assert type(again.get_layer("s")) is snake.Snake


@keras.saving.register_keras_serializable("test_own_rules")
class Mixed(keras.layers.Layer):
    """Two tensors by name, and a layer inside."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.inner = keras.layers.Dense(units, dtype=self.dtype_policy, name="inner")

    def build(self, x_shape, context_shape):
        self.inner.build(context_shape)

    def call(self, x, context):
        return x * keras.ops.sigmoid(self.inner(context))

    def get_config(self):
        return super().get_config() | {"units": self.units}


class TorchMixed(nn.Module):
    def __init__(self, inputs, units):
        super().__init__()
        self.units = units
        self.inner = nn.Linear(inputs, units)

    def forward(self, x, context):
        return x * torch.sigmoid(self.inner(context))


WEIGHTS = {"inner/kernel": ("inner.weight", "i o -> o i"), "inner/bias": ("inner.bias", "o -> o")}


class MixedRule:
    """Two tensors by name, and a layer inside."""

    OPERATORS = ("mixed",)
    KERAS = (Mixed,)
    TORCH = (TorchMixed,)
    HELPERS = (TorchMixed,)
    WEIGHTS = WEIGHTS

    def read_keras(layer):
        return [Node("mixed", {"units": layer.config["units"]}, layer.weights, layer.path)]

    def write_keras(node):
        return [KerasCall(Mixed, {"units": node["units"]}, weights=True, names=("x", "context"))]

    def read_torch(call):
        return [Node("mixed", {"units": call["units"]}, call.weights(WEIGHTS), call.path)]

    def write_torch(node):
        constructor = call_source("TorchMixed", node.inputs[1].shape[-1], node["units"])
        return TorchCall("{self}({all})", constructor, WEIGHTS, helpers=("TorchMixed",))


def mixed():
    x, y = keras.Input((4,), name="x"), keras.Input((3,), name="y")
    return keras.Model([x, y], Mixed(4, name="m")(x, context=keras.ops.tanh(y)), name="net")


def test_several_inputs_and_a_layer_inside(check):
    assert bridge.rule(MixedRule) is MixedRule
    model = check.randomise(mixed())
    module, again = check.both_ways(model, back="float32")
    assert type(again.get_layer("m")) is Mixed and [n for n, _ in module.named_parameters()] == [
        "m.inner.weight",
        "m.inner.bias",
    ]
    report = bridge.verify(again, module)
    assert report.passed, str(report)


def test_the_order_of_its_tensors_is_that_of_forward(check):
    """Whichever it reads first, by whichever name it is called, and also one tensor twice."""
    bridge.rule(MixedRule)
    module = check.module_of(
        lambda m, x, y: m.b(context=m.a(y, x), x=x) + m.a(x, x), a=TorchMixed(4, 4), b=TorchMixed(4, 4)
    )
    model = bridge.to_keras(module, (torch.randn(2, 4), torch.randn(2, 4)))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize(
    "function, text",
    [
        (
            lambda m, x: m.a(x, context=2.0),
            "TorchMixed is called with context=2.0, which its rule does not see: let forward",
        ),
        (lambda m, x: m.a(x, m.w), "a (TorchMixed): it is called with weights or constants"),
    ],
)
def test_what_the_rule_does_not_see_is_refused(check, function, text):
    bridge.rule(MixedRule)
    module = check.module_of(function, a=TorchMixed(4, 4), w=nn.Parameter(torch.randn(1, 4)))
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(module, (torch.randn(2, 4),))
    assert text in str(e.value)


def test_without_its_rule_it_is_traced():
    """And as soon as there is one it is not."""
    model = mixed()
    assert "mixed" not in {n.operator for n in keras_reader.read(model).nodes}
    bridge.rule(MixedRule)
    assert [n.operator for n in keras_reader.read(model).nodes] == ["activation", "mixed"]


def test_operators_that_there_are(check):
    """Read as a Dense, it needs nothing else."""

    class Twice(keras.layers.Dense):
        pass

    bridge.rule(named(KERAS=(Twice,), read_keras=rules.for_keras("Dense").read_keras))
    x = keras.Input((5,))
    module = bridge.to_torch(keras.Model(x, Twice(3, name="t")(x)))
    assert isinstance(module.t, nn.Linear)


def test_a_module_is_a_rule_and_one_of_the_same_name_takes_its_place():
    made = types.ModuleType("made")
    vars(made).update({k: v for k, v in vars(MixedRule).items() if not k.startswith("_")})
    bridge.rule(made)
    made.LAYOUT = lambda node, context: None
    bridge.rule(made)
    assert rules.for_operator("mixed").LAYOUT is made.LAYOUT
    assert list(rules.families())[-1] == "made"


@pytest.mark.parametrize(
    "attributes, texts",
    [
        ({}, ["(OPERATORS, KERAS, TORCH): they are empty; name what it is for"]),
        (
            {"OPERATORS": ("dense",), "KERAS": ("Conv2D",), "TORCH": ("linear",), "LAYOUT": 3},
            [
                "(OPERATORS): 'dense' belongs to the rule dense",
                "(KERAS): 'Conv2D' belongs to the rule convolution",
                "(TORCH): 'linear' belongs to the rule dense",
                "(read_keras): KERAS has 'Conv2D', and there is no such function; write it",
                "(read_torch): TORCH has 'linear'",
                "(write_keras): OPERATORS has 'dense'",
                "(write_torch): OPERATORS has 'dense'",
                "(LAYOUT): it is 3; give a function of bridge.layout",
            ],
        ),
        ({"KERAS": (keras.layers.Dense,), "TORCH": (nn.Softsign,)}, ["'Dense' belongs", "'nn.Softsign' belongs"]),
        ({"KERAS": "Gate"}, ["(KERAS): it is 'Gate'; give a tuple of names and classes"]),
        ({"OPERATORS": (Mixed,)}, ["(OPERATORS): it is (<class", "give a tuple of names"]),
        ({"KERAS": ("a:A",), "MODELS": {"a": len}, "read_keras": len}, ["(options): it has MODELS"]),
        (
            {"KERAS": ("a:A",), "read_keras": len, "WEIGHTS": {"kernel": "weight", "bias": ("bias", "c")}},
            ["(WEIGHTS): 'kernel' is 'weight'; give", "'bias' is ('bias', 'c')"],
        ),
        (
            {
                "TORCH": ("A",),
                "read_torch": len,
                "HELPERS": {"A": "class B(nn.Module): pass", "C": "class C(", "D": "def D(x):\n return np.sin(x)"},
            },
            [
                "the source of A begins with 'class B(nn.Module): pass'; begin with class A(",
                "C is no Python",
                "D uses np, which model.py does not have; import it inside a method",
            ],
        ),
        (
            {"TORCH": ("A",), "read_torch": len, "HELPERS": (int,)},
            ["(HELPERS): they have no source that could be read"],
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(attributes, texts):
    before = dict(rules.OWN)
    with pytest.raises(bridge.BridgeError) as e:
        bridge.rule(named(**attributes))
    for text in texts:
        assert text in str(e.value), str(e.value)
    assert before == rules.OWN


def test_two_rules_of_the_users_own():
    bridge.rule(MixedRule)
    with pytest.raises(bridge.BridgeError, match="'mixed' belongs to the rule .*MixedRule"):
        bridge.rule(type("Other", (), {k: v for k, v in vars(MixedRule).items() if not k.startswith("_")}))


def test_a_module_with_a_wrong_rule_is_refused_by_the_command_line(tmp_path, monkeypatch):
    from bridge import sources

    (tmp_path / "wrong_rule.py").write_text("import bridge\n\n\n@bridge.rule\nclass A:\n    KERAS = ('Dense',)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(bridge.BridgeError, match="wrong_rule.A is no rule; see .*:\n  - .*'Dense' belongs"):
        sources.import_modules(["wrong_rule"])
