"""What the command line reads: every refusal is one clear error."""

import zipfile

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import BridgeError, sources

layers = keras.layers


@pytest.fixture
def path(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(3, 3, name="c")], name="small")
    model.save(tmp_path / "small.keras")
    return tmp_path / "small.keras"


def test_keras_files(path):
    model = sources.load(str(path))
    legacy = path.with_suffix(".h5")
    model.save(legacy)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2))
    np.testing.assert_array_equal(sources.load(str(legacy))(x), model(x))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty"])
def test_damaged_files(path, damage):
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        start = data.find(b'"class_name"')
        data[start : start + 40] = bytes(b ^ 255 for b in data[start : start + 40])
    elif damage == "text":
        data = b"not a model"
    else:
        data = b""
    path.write_bytes(data)
    with pytest.raises(BridgeError, match=f"{path.name} cannot be read as a Keras model") as caught:
        sources.load(str(path))
    text = str(caught.value)
    assert "not found" not in text and f"{len(data):,} bytes" in text and "save it again" in text


def test_python_code_in_a_file_is_not_run(tmp_path):
    x = keras.Input((4,))
    keras.Model(x, layers.Lambda(lambda t: t * 2, name="mine")(x)).save(tmp_path / "l.keras")
    with pytest.raises(BridgeError, match="never run from a file") as caught:
        sources.load(str(tmp_path / "l.keras"))
    assert "safe_mode" not in str(caught.value) and "unsafe" not in str(caught.value)


def test_classes_of_ones_own(tmp_path):
    class Mine(layers.Dense):
        pass

    x = keras.Input((4,))
    keras.Model(x, Mine(2)(x)).save(tmp_path / "m.keras")
    with pytest.raises(BridgeError, match=r"Import the module of your own classes first \(bridge: --import MODULE\)"):
        sources.load(str(tmp_path / "m.keras"))


def test_what_is_not_there():
    with pytest.raises(BridgeError, match="nothing.keras: no such file. Accepted: a .keras"):
        sources.load("nothing.keras")
    with pytest.raises(
        BridgeError, match="nothing: no such file or folder. Accepted: a .keras, .h5, .json or .pt2 file"
    ):
        sources.load("nothing")
    with pytest.raises(BridgeError, match="--import no_such_module"):
        sources.import_modules(["no_such_module"])


def test_functions(tmp_path, monkeypatch):
    (tmp_path / "mine_for_sources.py").write_text("import torch\ndef net():\n    return torch.nn.Linear(2, 3)\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(sources.load("mine_for_sources:net"), torch.nn.Linear)
    with pytest.raises(BridgeError, match="mine_for_sources:other"):
        sources.load("mine_for_sources:other")


@pytest.mark.parametrize(
    "source, text",
    {
        "math:sqrt": "the function failed: TypeError",
        "math:pi": "has no function 'pi'",
        ":m": "module '' cannot be imported",
        "builtins:exit": "the function failed: SystemExit",
        "builtins:dict": "the function returned dict",
        "no_such_module:fn": "module 'no_such_module' cannot be imported: ModuleNotFoundError",
        "failing:no_such": "module 'failing' has no function 'no_such'",
        "failing:attribute": "the function failed: AttributeError: 'int' object has no attribute 'missing'",
        "failing:nothing": "the function returned NoneType",
        "broken_syntax:fn": "module 'broken_syntax' cannot be imported: SyntaxError",
        "broken_import:fn": "module 'broken_import' cannot be imported: ZeroDivisionError",
        "leaving:fn": "module 'leaving' cannot be imported: SystemExit: 0",
    }.items(),
)
def test_functions_that_fail(tmp_path, monkeypatch, source, text):
    (tmp_path / "failing.py").write_text("def attribute(): return (1).missing\ndef nothing(): pass\n")
    (tmp_path / "broken_syntax.py").write_text("def (:\n")
    (tmp_path / "broken_import.py").write_text("1 / 0\n")
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BridgeError) as caught:
        sources.load(source)
    said = str(caught.value)
    assert said.startswith(f"{source}: ") and text in said and sources.FUNCTION in said and "--import" not in said
    if "cannot be imported" in text:
        with pytest.raises(BridgeError, match="^--import .* cannot be imported.*Accepted: the name of a module"):
            sources.import_modules([source.partition(":")[0]])


def test_a_configuration_and_its_weights(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    model = keras.models.load_model(path)
    path.with_suffix(".json").write_text(model.to_json())
    with pytest.raises(BridgeError, match="neither small.weights.h5 nor model.weights.h5 beside it: give --weights"):
        sources.load("small.json")
    assert sources.load("small.json", bare=True).count_params() == 57
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2))
    model.save_weights("model.weights.h5")
    model.save_weights("elsewhere.weights.h5")
    for weights in ([], ["elsewhere.weights.h5"], ["small.keras"]):
        np.testing.assert_array_equal(sources.load("small.json", weights=weights)(x), model(x))
        assert weights == []  # it has been used
    path.with_name("model.weights.h5").rename("small.weights.h5")
    with pytest.raises(BridgeError, match="small.weights.h5 holds weights alone: name the .json"):
        sources.load("small.weights.h5")
    np.testing.assert_array_equal(sources.load("small.json")(x), model(x))
    other = keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(4, 3)])
    other.save_weights("other.weights.h5")
    with pytest.raises(
        BridgeError, match=r"other.weights.h5 cannot be loaded into small.*2 missing: c/kernel.*\(3, 3, 2, 4\)"
    ):
        sources.load("small.json", weights=["other.weights.h5"])
    with pytest.raises(BridgeError, match="missing.weights.h5: no such file"):
        sources.load("small.json", weights=["missing.weights.h5"])


def test_a_configuration_out_of_a_keras_file(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with zipfile.ZipFile(path) as archive:
        archive.extractall()
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2))
    np.testing.assert_array_equal(sources.load("config.json")(x), sources.load(str(path))(x))


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU())
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x, y):
        return {"a": self.head(self.block(x).mean((2, 3))), "b": self.block(y)}


@pytest.mark.parametrize("axes", [set(), {0}, {0, 2, 3}])
def test_exported_programs(tmp_path, monkeypatch, axes):
    monkeypatch.chdir(tmp_path)
    network, example = Network().eval(), torch.randn(2, 2, 8, 9)
    shapes = ({a: torch.export.Dim.AUTO for a in axes},) * 2
    torch.export.save(torch.export.export(network, (example, example + 1), dynamic_shapes=shapes), "net.pt2")
    with pytest.raises(
        BridgeError, match="net.pt2 can run a program: torch.export.load evaluates .* unpickles .*--trust"
    ):
        sources.load("net.pt2")
    module, examples, dynamic = sources.load_program("net.pt2", trust=True)
    assert dynamic == [axes, axes] and [e.shape for e in examples] == [example.shape] * 2
    model = bridge.to_keras(module, examples, dynamic)
    assert model.name == "Network" and {"block.0", "block.1", "head"} <= {x.name for x in model.layers}
    assert model.inputs[0].shape == tuple(
        None if a in axes else n for a, n in zip((0, 2, 3, 1), (2, 8, 9, 2), strict=True)
    )
    for other in (module, sources.load("net.pt2", trust=True)):
        report = bridge.verify(model, other)
        assert report.passed, report
        assert not report.gradients and any("holds inference alone" in note for note in report.notes)
    assert bridge.verify(model, network).gradients if axes else True
    with torch.no_grad():
        module.head.bias += 0.01
    assert not bridge.verify(model, module).passed


def test_exported_programs_of_more_than_tensors(tmp_path):
    program = torch.export.export(torch.nn.ReLU(), (), {"input": torch.ones(2)})
    torch.export.save(program, tmp_path / "k.pt2")
    with pytest.raises(BridgeError, match="k.pt2 takes more than tensors by position"):
        sources.load_program(str(tmp_path / "k.pt2"), trust=True)


def test_state_dicts(tmp_path):
    from safetensors.torch import save_file

    a, b = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    torch.save(a.state_dict(), tmp_path / "a.pt")
    sources.load_state(b, str(tmp_path / "a.pt"))
    torch.testing.assert_close(a.weight, b.weight)
    torch.save(torch.nn.DataParallel(a).state_dict(), tmp_path / "module.pt")
    for module in (b, torch.nn.DataParallel(b)):
        torch.nn.init.zeros_(b.weight)
        sources.load_state(module, str(tmp_path / "module.pt"))
        torch.testing.assert_close(a.weight, b.weight)
    save_file({"weight": a.weight.detach(), "other": a.bias.detach()}, tmp_path / "a.safetensors")
    with pytest.raises(BridgeError, match=r"a.safetensors cannot be loaded into Linear.*bias.*other"):
        sources.load_state(b, str(tmp_path / "a.safetensors"))
    torch.save(torch.nn.Sequential(a), tmp_path / "pickle.pt")  # a whole module: pickled code
    with pytest.raises(BridgeError, match="pickle.pt cannot be read as a state dict"):
        sources.load_state(b, str(tmp_path / "pickle.pt"))
