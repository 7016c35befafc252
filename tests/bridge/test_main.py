"""The `bridge` command: what it writes, what it says, how it exits."""

import os
import pathlib
import resource
import subprocess
import sys

import keras
import numpy as np
import pytest

from bridge import BridgeError, __main__, _quiet, sources
from tests.bridge._command import bridge

layers = keras.layers
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def saved(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = image = keras.Input((9, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(x)
    model = check.randomise(keras.Model(image, layers.Dense(2, name="d")(layers.Flatten()(x)), name="example"))
    model.save("example.keras")
    return model


def test_there_and_back(saved):
    code, text = bridge("to-torch", "example.keras", "-o", "out")
    assert code == 0 and "equal" in text and "wrote out" in text
    code, text = bridge("to-keras", "out", "-o", "back.keras")
    assert code == 2 and "--trust" in text
    code, text = bridge("to-keras", "out", "-o", "back.keras", "--trust")
    assert code == 0, text
    again = keras.models.load_model("back.keras")
    for a, b in zip(saved.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert bridge("verify", "example.keras", "out", "--trust", "--html", "r.html")[0] == 0
    assert "Equal" in pathlib.Path("r.html").read_text()
    assert bridge("verify", "out", "back.keras", "--trust", "--html", "r.html")[0] == 0  # in either order
    assert sorted(os.listdir()) == ["back.keras", "example.keras", "out", "r.html"]


def test_a_failed_verification_exits_1(saved):
    from safetensors.numpy import load_file, save_file

    bridge("to-torch", "example.keras", "-o", "out", "--no-verify")
    assert not os.path.exists("out/report.json")
    state = load_file("out/model.safetensors")
    state["a.weight"] = state["a.weight"] * np.float32(1.001)
    save_file(state, "out/model.safetensors")
    code, text = bridge("verify", "example.keras", "out", "--trust")
    assert code == 1 and "a.kernel" in text


def test_a_function_of_the_users_own(saved, tmp_path):
    (tmp_path / "mine_for_main.py").write_text(
        "import torch\ndef net():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())\n"
    )
    code, text = bridge("to-keras", "mine_for_main:net", "--input", "2,3,9,8")
    assert code == 0, text
    assert keras.models.load_model("mine_for_main_net.keras").output_shape == (None, 7, 6, 4)
    assert bridge("verify", "mine_for_main_net.keras", "mine_for_main:net")[0] == 0
    code, text = bridge("to-keras", "mine_for_main:net", "-o", "x.keras")
    assert code == 2 and "--input" in text
    code, text = bridge("to-keras", "mine_for_main:net", "-o", "x.keras", "--input", "2,3,a")
    assert code == 2 and "2,3,a" in text
    for shape, message in {"2,3,999999,999999": "values. Accepted: up to", "2,3": "(2, 3)", "2,3,9,8,7": "7)"}.items():
        code, text = bridge("to-keras", "mine_for_main:net", "-o", "x.keras", "--input", shape)
        assert code == 2 and message in text and not os.path.exists("x.keras"), text
    code, text = bridge("inspect", "mine_for_main:net", "--input", "2,3,9,8")
    assert code == 0 and "convolution" in text
    assert bridge("to-torch", "mine_for_main:net")[0] == 2


def test_inputs_of_several_dtypes(saved, tmp_path):
    (tmp_path / "mine_tokens.py").write_text(
        "import torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.t = torch.nn.Embedding(5, 3)\n"
        "    def forward(self, x, y):\n        return self.t(x) * y.unsqueeze(-1)\n"
        "def net():\n    torch.manual_seed(0)\n    return Net()\n"
    )
    given = ["mine_tokens:net", "-o", "t.keras"]
    assert bridge("to-keras", *given, "--input", "2,6:int64", "--input", "2,6:bool")[0] == 0
    assert [x.dtype for x in keras.models.load_model("t.keras").inputs] == ["int64", "bool"]
    assert bridge("inspect", "mine_tokens:net", "--input", "2,?:int32", "--input", "2,?")[0] == 0
    code, text = bridge("to-keras", "mine_tokens:net", "-o", "u.keras", "--input", "2,6:long")
    assert code == 2 and "--input 2,6:long: accepted dtypes are bool, uint8" in text


def test_open_sizes(saved, tmp_path):
    (tmp_path / "mine_open.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())\n"
    )
    assert bridge("to-keras", "mine_open:net", "--input", "2,3,?,8", "-o", "o.keras")[0] == 0
    assert keras.models.load_model("o.keras").input_shape == (None, None, 8, 3)
    code, text = bridge("inspect", "mine_open:net", "--input", "2,3,?,?")
    assert code == 0 and "?, 4, ?, ?" in text, text
    for shape in ("2,3,??,8", "2,3,-?", "?,0"):
        code, text = bridge("to-keras", "mine_open:net", "--input", shape, "-o", "x.keras")
        assert code == 2 and f"--input {shape}: accepted are sizes" in text


def test_a_configuration_with_weights(saved):
    pathlib.Path("net.json").write_text(saved.to_json())
    code, text = bridge("inspect", "net.json")
    assert code == 0 and "690 parameters" in text
    code, text = bridge("to-torch", "net.json")
    assert code == 2 and "give --weights" in text
    saved.save_weights("w.weights.h5")
    assert bridge("to-torch", "net.json", "--weights", "w.weights.h5", "-o", "out", "--no-verify")[0] == 0
    assert bridge("verify", "net.json", "out", "--trust", "--weights", "w.weights.h5")[0] == 0
    for arguments in (("to-torch", "example.keras"), ("verify", "example.keras", "out", "--trust")):
        code, text = bridge(*arguments, "--weights", "w.weights.h5")
        assert code == 2 and "--weights w.weights.h5: example.keras" in text and "cannot take it" in text


def test_a_function_with_a_state_dict(saved, tmp_path):
    import torch

    (tmp_path / "mine_state.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())\n"
    )
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    torch.save(module.state_dict(), "s.pt")
    assert bridge("to-keras", "mine_state:net", "--input", "2,3,9,8", "--weights", "s.pt", "-o", "s.keras")[0] == 0
    kernel = keras.models.load_model("s.keras").weights[0]
    np.testing.assert_array_equal(kernel, module[0].weight.detach().permute(2, 3, 1, 0))
    assert bridge("verify", "s.keras", "mine_state:net", "--weights", "s.pt")[0] == 0
    assert bridge("verify", "s.keras", "mine_state:net")[0] == 1  # weights of its own
    code, text = bridge("verify", "s.keras", "mine_state:net", "--weights", "w.weights.h5")
    assert code == 2 and "cannot take it" in text


def test_exported_programs(saved):
    import torch

    module, example = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), torch.ones(2, 3, 9, 8)
    shapes = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=shapes), "p.pt2")
    for command in (("to-keras", "p.pt2"), ("inspect", "p.pt2"), ("verify", "example.keras", "p.pt2")):
        code, text = bridge(*command)
        assert code == 2 and "--trust" in text
    code, text = bridge("to-keras", "p.pt2", "--trust")
    assert code == 0 and "holds inference alone" in text
    assert keras.models.load_model("p.keras").input_shape == (None, None, 8, 3)
    assert bridge("verify", "p.keras", "p.pt2", "--trust")[0] == 0
    code, text = bridge("inspect", "p.pt2", "--trust")
    assert code == 0 and "112 parameters, 0 refused" in text
    code, text = bridge("to-keras", "p.pt2", "-o", "q.keras", "--trust", "--input", "2,3,9,8")
    assert code == 2 and "p.pt2 is a file that holds its own shapes and weights: leave out --input" in text


def test_inspect(saved):
    code, text = bridge("inspect", "example.keras")
    assert code == 0 and "kernel (3, 3, 3, 4)" in text and "690 parameters" in text, text


def test_refusals(saved):
    bridge("to-torch", "example.keras", "-o", "out", "--no-verify")
    for arguments, text in {
        ("to-torch", "example.keras", "-o", "out"): "out exists already",
        ("to-torch", "nothing.keras"): "nothing.keras: no such file",
        ("to-keras", "out", "-o", "example.keras", "--trust"): "example.keras exists already",
        ("to-keras", "out", "-o", "example.h5", "--trust"): "the output is a .keras file",
        ("to-keras", "nothing"): "nothing: no such file or folder",
        ("verify", "example.keras", "example.keras"): "must be a torch model. Received: Functional. Accepted: a folder",
        ("to-keras", "out", "--trust", "--input", "2,3,9,8"): "leave out --input",
        ("to-keras", "out", "--trust", "--weights", "w.pt"): "leave out --weights",
        ("inspect", "example.keras", "--input", "2,3,9,8"): "leave out --input",
        ("verify", "no.keras", "no", "--html", "no/r.html"): "no is no folder that can be written to",
        ("verify", "no.keras", "no", "--html", "out"): "--html out: it is a folder",
    }.items():
        code, said = bridge(*arguments)
        assert code == 2 and text in said, (arguments, said)
    assert sorted(os.listdir()) == ["example.keras", "out"]


def test_inspect_of_a_folder_reads_its_own_inputs(saved):
    bridge("to-torch", "example.keras", "-o", "out", "--no-verify")
    code, text = bridge("inspect", "out", "--trust")
    assert code == 0 and "kernel (3, 3, 3, 4)" in text and "690 parameters, 0 refused" in text
    code, text = bridge("inspect", "out")
    assert code == 2 and "--trust" in text
    code, text = bridge("inspect", "out", "--trust", "--input", "2,3,9,8")
    assert code == 2 and "out is a folder, which holds its own shapes and weights: leave out --input" in text


def run(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def test_errors_are_one_line_on_stderr(tmp_path):
    result = run("-m", "bridge", "to-torch", str(tmp_path / "no.keras"))
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == f"error: {tmp_path}/no.keras: no such file. {sources.ACCEPTED}\n"


@pytest.mark.parametrize("command", ["--help", "rules"])
def test_help_loads_no_framework_and_comes_at_once(command):
    code = (
        "import sys, time\nstart = time.process_time()\nsys.argv = ['bridge', sys.argv[1]]\n"
        "from bridge.__main__ import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\n"
        "found = {'tensorflow', 'keras', 'torch'} & set(sys.modules)\nassert not found, found\n"
        "print(time.process_time() - start, file=sys.stderr)"
    )
    result = run("-c", code, command)
    assert result.returncode == 0, result.stderr
    assert float(result.stderr) < 1  # second of the processor; a framework takes three


@pytest.mark.parametrize("command", ["to-torch", "to-keras", "verify"])
def test_a_full_disk_leaves_nothing_and_exits_3(tmp_path, command, monkeypatch, capsys):
    """A limit on the size of files is met as a full disk is, deep in what writes the weights."""
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(64, 5, name="c")], name="big")
    model.save(tmp_path / "big.keras")
    limit, output = (10_000, "deep/out") if command != "verify" else (100, "r.html")
    arguments = [command, "big.keras", "-o", output, "--no-verify"]
    if command != "to-torch":
        from bridge import save_torch

        save_torch(model, tmp_path / "folder", verify=False)
    if command == "to-keras":
        output = "deep/out.keras"
        arguments = [command, "folder", "--trust", "-o", output, "--no-verify"]
    elif command == "verify":
        arguments = [command, "big.keras", "folder", "--trust", "--html", output]
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bridge", *arguments])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(SystemExit) as ended:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            __main__.main()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert ended.value.code == 3, said
    assert f"error: {output} cannot be written: File too large" in said and "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "error, code, text",
    [
        (BridgeError("refused"), 2, "error: refused\n"),
        (OSError(28, "No space left on device"), 3, "No space left"),
        (PermissionError(13, "Permission denied"), 2, "Permission denied"),
        (MemoryError(), 3, "not enough memory"),
        (KeyError("x"), 3, "a fault of bridge itself (KeyError): please report it"),
    ],
)
def test_no_error_reads_as_a_failed_verification(monkeypatch, capsys, error, code, text):
    def fails(**options):
        raise error

    monkeypatch.setattr(__main__, "app", fails)
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    said = capsys.readouterr().err
    assert caught.value.code == code and text in said
    assert ("Traceback" in said) == isinstance(error, KeyError)


def test_an_interrupt_says_so_and_exits_130(monkeypatch, capsys):
    from bridge import inspect

    def supported():
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "supported", supported)
    monkeypatch.setattr(sys, "argv", ["bridge", "rules"])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_tables_are_not_cut_in_a_file(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    code, text = bridge("rules")
    assert code == 0 and "Conv2DTranspose" in text


def test_nothing_of_tensorflows_is_printed(saved, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"PYTHONPATH": str(ROOT)}
    result = run("-m", "bridge", "inspect", "example.keras", cwd=tmp_path, env=environment)
    assert result.returncode == 0 and result.stderr == ""


def test_what_was_held_back_is_shown_when_it_matters(capfd):
    with _quiet.held_back():
        os.write(2, b"chatter")
    with pytest.raises(KeyboardInterrupt), _quiet.held_back():
        os.write(2, b"chatter")
        raise KeyboardInterrupt
    with pytest.raises(ImportError), _quiet.held_back():
        os.write(2, b"the reason")
        raise ImportError
    assert capfd.readouterr().err == "the reason"


def test_round_trip_of_a_unet_through_other_processes(check, tmp_path):
    """Nothing can have been kept aside in memory: the weights are changed in the file between two processes."""
    from safetensors.numpy import load_file, save_file

    import tfzoo

    model = check.randomise(tfzoo.build("unet", size="tiny"))
    model.save(tmp_path / "unet.keras")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    arguments = ("-m", "bridge", "to-torch", "unet.keras", "-o", "out", "--no-verify")
    result = run(*arguments, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    weights = tmp_path / "out/model.safetensors"
    save_file({k: v + 1 if v.dtype.kind == "f" else v for k, v in load_file(weights).items()}, weights)
    result = run("-m", "bridge", "to-keras", "out", "-o", "back.keras", "--trust", cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    again = keras.models.load_model(tmp_path / "back.keras", compile=False)
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a + np.float32(1), b)


def test_checkpoints_are_converted_and_compared(saved):
    code, text = bridge("convert", "example.keras", "a.safetensors")
    assert code == 0 and text == "wrote a.safetensors: 4 tensors, 2,760 bytes\n"
    code, text = bridge("diff", "example.keras", "a.safetensors")
    assert code == 0 and "4 the same, 0 of other numbers" in text
    saved.get_layer("a").bias.assign_add([0, 0.25, 0, 0])
    saved.save("other.keras")
    code, text = bridge("diff", "a.safetensors", "other.keras")
    assert code == 1 and "a/1" in text and "0.25" in text and "3 the same, 1 of other numbers" in text
    code, text = bridge("convert", "example.keras", "a.safetensors")
    assert code == 2 and "a.safetensors exists already" in text
    code, text = bridge("diff", "example.keras", "nowhere.pt")
    assert code == 2 and "nowhere.pt: no such file. Accepted: a file that ends with" in text
