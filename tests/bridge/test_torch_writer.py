"""The generated source: it stands alone, it is tidy, hostile names are harmless, and it behaves like any module."""

import ast
import copy
import inspect
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import convert, torch_classes, torch_writer

layers = keras.layers
HOSTILE = [
    'a"); __import__("os").system("touch pwned") #',
    "class",
    "import os; x",
    "ünï-cødé",
    "a" * 3000,
    "a" * 3001,
    "new\nline",
    "it's",
    '"""',
    "\\",
    "{0}",
    "{self}",
    "{all}",
    "%s",
    "forward",
    "self",
    "training",
    "F",
    "nn",
    "torch",
    "load",
    "Path",
    "INPUTS",
    "conv 1",
    "conv_1",
    "conv.1",
    "__class__",
    "_modules",
    "1",
    "None",
    "日本語",
    "x",
    "x_2",
    "Conv2dSame",
    "Model",
    "super",
    "print",
]


def conv(name, **options):
    return layers.Conv2D(3, 3, padding="same", name=name, **options)


def network(name="net"):
    """A bit of everything: a helper class, a fork, a frozen layer, Dropout."""
    x = keras.Input((None, None, 3), name="image")
    y = layers.BatchNormalization(name="norm")(conv("a", strides=2, activation="relu")(x))
    y = layers.Dropout(0.5, name="drop", noise_shape=(None, 1, None, None))(y)
    y = layers.Concatenate(name="cat")([conv("b")(y), y * 0.5])
    return keras.Model(x, {"z": conv("c", trainable=False)(y), "y": y}, name=name)


@pytest.fixture
def module():
    return bridge.to_torch(network())


def evaluate(module):
    rng = torch.Generator().manual_seed(0)
    parameter = next(module.parameters())
    with torch.no_grad():
        result = module(torch.randn(2, 3, 9, 8, generator=rng).to(parameter))
    return result["z"] if isinstance(result, dict) else result


def ruff(text):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "-"], input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_source_is_what_people_write():
    text = convert.source(network()).text
    ruff(text)
    body = text[text.index("class Net(nn.Module)") :]
    assert body.startswith("""class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = Conv2dSame(3, 3, 3, stride=2)
        self.norm = nn.BatchNorm2d(3, eps=0.001, momentum=0.01)
        self.drop = SharedDropout(0.5, (2,))
        self.b = nn.Conv2d(3, 3, 3, padding=1)
        self.c = nn.Conv2d(6, 3, 3, padding=1)
        self.c.requires_grad_(False)

    def forward(self, image):
""")
    assert "from torch import nn\n" in text and """INPUTS = {"image": ((None, 3, None, None), 'float32')}""" in text


def test_nothing_is_imported_that_is_not_used():
    x = keras.Input((4,), name="x")
    text = convert.source(keras.Model(x, layers.Dense(2, name="fc")(x))).text
    ruff(text)
    assert "import torch\n" not in text and "import torch.nn.functional" not in text


def test_it_runs_without_keras_and_bridge(tmp_path):
    source = convert.source(network())
    (tmp_path / "model.py").write_text(source.text)
    np.savez(tmp_path / "w.npz", **source.state)
    code = (
        "import sys\nfor n in ('tensorflow', 'keras', 'bridge', 'einops'): sys.modules[n] = None\n"
        "import numpy as np, torch, model\n"
        "m = model.Net()\nm.load_state_dict({k: torch.from_numpy(v) for k, v in np.load('w.npz').items()})\n"
        "assert m(torch.zeros(1, 3, 9, 8))['z'].shape == (1, 3, 5, 4)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name(name):
    text, taken = torch_classes.identifier(name, set()), {"taken"}
    assert text.isidentifier() and text.isascii() and len(text) < 80 and not hasattr(torch.nn.Module(), text)
    assert (
        torch_classes.identifier("taken", taken) == "taken_2" and torch_classes.identifier("taken", taken) == "taken_3"
    )
    assert torch_classes.class_name(name).isidentifier()


def test_hostile_names_together(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    y = x = keras.Input((6, 5, 3), name="forward.input")
    for name in HOSTILE:
        y = layers.Conv2D(3, 1, name=name)(y)
    model = keras.Model(x, {'"]; import os; x["': y, "two\nlines": y * 2}, name='evil"""\nimport os\n')
    text = convert.source(check.randomise(model)).text
    ruff(text)
    assert not [
        n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "__import__"
    ]
    z = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype("float32")
    with torch.no_grad():
        have = bridge.to_torch(model)(torch.from_numpy(check.to_first(z)))
    for key, want in model(z).items():
        assert check.relative(check.to_last(have[key].numpy()), want) < 1e-4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy,
        lambda m: pickle.loads(pickle.dumps(m)),
        lambda m: m.double().float(),
        lambda m: m.to(memory_format=torch.channels_last),
        lambda m: torch.compile(m, fullgraph=True, backend="eager"),
        lambda m: torch.export.export(m, (torch.randn(2, 3, 9, 8),)).module(),
    ],
)
def test_it_is_a_module_like_any_other(module, change):
    want = evaluate(module)
    torch.testing.assert_close(evaluate(change(module)), want, rtol=1e-5, atol=1e-6)


def test_python_knows_its_source(module):
    assert "self.norm = nn.BatchNorm2d" in inspect.getsource(type(module))
    assert inspect.getsource(type(module.drop)).startswith("class SharedDropout(nn.Dropout):")
    assert type(bridge.to_torch(network())) is type(module)  # the same text is the same class
    assert type(bridge.to_torch(network("other"))) is not type(module)


def test_it_trains(module):
    module.train()
    module(torch.randn(2, 3, 9, 8))["z"].sum().backward()
    assert (
        {n for n, p in module.named_parameters() if p.grad is None}
        == {"c.weight", "c.bias"}
        == {n for n, p in module.named_parameters() if not p.requires_grad}
    )
    assert module.norm.num_batches_tracked == 1


def test_the_weights_are_its_own():
    model = network()
    module = bridge.to_torch(model)
    before = module.b.weight.detach().clone()
    model.get_layer("b").kernel.assign(model.get_layer("b").kernel * 2)
    torch.testing.assert_close(module.b.weight.detach(), before, rtol=0, atol=0)
    with torch.no_grad():
        module.b.weight.zero_()
    assert np.asarray(model.get_layer("b").kernel).any()


def test_a_tensor_that_the_state_dict_lacks_is_an_error():
    text = """
from torch import nn, zeros


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", zeros(3), persistent=False)
"""
    with pytest.raises(bridge.BridgeError, match="Net has tensors without values: mask. Its state dict lacks them"):
        torch_writer.build(torch_writer.TorchSource(text, "Net", {}, {}, {}))


def test_an_input_called_x_is_not_overwritten(check):
    x = keras.Input((6, 5, 3), name="x")
    y = layers.ReLU()(conv("a")(x))
    check.both_ways(keras.Model(x, layers.Concatenate()([y, x])))


def test_one_module_where_one_layer_is_called_twice(check):
    x, shared = keras.Input((6, 5, 3), name="image"), conv("c", activation="relu")
    module, again = check.both_ways(keras.Model(x, shared(shared(x))))
    assert len(list(module.parameters())) == len(again.weights) == 2


def test_a_layer_that_pads_in_two_ways_is_two_modules_with_one_weight(check):
    """SAME at two sizes: two modules in torch, tied; one layer again in Keras."""
    inputs = [keras.Input((n, n, 3), name=f"i{n}") for n in (7, 8)]
    shared = conv("c", strides=2)
    model = keras.Model(inputs, [shared(i) for i in inputs])
    module, again = check.both_ways(model)
    assert module.c.weight is module.c_2.weight and len(list(module.parameters())) == len(again.weights) == 2
    assert copy.deepcopy(module).c_2.weight is not module.c.weight
    source = convert.source(model)
    ruff(source.text)
    fresh = getattr(torch_writer.execute(source.text), source.class_name)()
    fresh.load_state_dict({k: torch.from_numpy(v) for k, v in source.state.items()})
    assert fresh.c.weight is fresh.c_2.weight
