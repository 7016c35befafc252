"""`bridge weights`: a checkpoint into a model of one's own, from the command line."""

import json

import keras
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.bridge import _command

SOURCE = """
import keras
import torch


def model():
    keras.utils.set_random_seed(5)
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Dense(2, name="out")(keras.layers.Dense(3, activation="tanh", name="in")(x)))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


TABLES = {"mine": {"in": "first", "out": "second"}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    (path / "my_nets.py").write_text(SOURCE)
    return path


def run(folder, *arguments):
    return _command.run(folder, "weights", *arguments)


def test_there_and_back(folder):
    done = run(folder, "my_nets:model", "--into", "my_nets:Net", "-o", "net.safetensors")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote net.safetensors\n"
    state = load_file(folder / "net.safetensors")
    assert sorted(state) == ["first.bias", "first.weight", "second.bias", "second.weight"]
    (folder / "table.json").write_text(json.dumps({"in": "first", "out": "second"}))
    for names in ((), ("--names", "table.json"), ("--names", "my_nets:TABLES.mine")):
        done = run(
            folder, "net.safetensors", "--into", "my_nets:model", "-o", f"{len(names)}{names[-1:]!s:.4}.keras", *names
        )
        assert done.returncode == 0, done.stderr
    found = sorted(folder.glob("*.keras"))
    assert len(found) == 3
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    want = torch.tanh(torch.from_numpy(x) @ state["first.weight"].T + state["first.bias"])
    want = want @ state["second.weight"].T + state["second.bias"]
    for path in found:
        np.testing.assert_allclose(keras.models.load_model(path)(x), want, rtol=1e-5, atol=1e-6)


def test_weights_alone_into_a_module(folder):
    keras.utils.set_random_seed(5)
    x = keras.Input((4,))
    y = keras.layers.Dense(2, name="out")(keras.layers.Dense(3, activation="tanh", name="in")(x))
    keras.Model(x, y).save_weights(folder / "alone.weights.h5")
    done = run(folder, "alone.weights.h5", "--into", "my_nets:Net", "-o", "alone.pt")
    assert done.returncode == 2 and "alone.weights.h5 has weights alone" in done.stderr and "--input" in done.stderr
    done = run(folder, "alone.weights.h5", "--into", "my_nets:model", "--input", "1,4", "-o", "alone.keras")
    assert done.returncode == 2 and "example inputs are for a torch module" in done.stderr
    wrong = run(folder, "alone.weights.h5", "--into", "my_nets:Net", "--input", "2,5", "-o", "alone.pt")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") < 4 and "fake_tensor" not in wrong.stderr
    assert not list(folder.glob("alone.pt")) and not list(folder.glob("alone.keras"))
    for shape in ("2,4", "?,4"):
        done = run(
            folder, "alone.weights.h5", "--into", "my_nets:Net", "--input", shape, "-o", f"{shape[0]}.safetensors"
        )
        assert done.returncode == 0, done.stderr
        assert "that two of one shape are swapped" in done.stdout and "cannot be tried" in done.stdout
        state = load_file(folder / f"{shape[0]}.safetensors")
        given = torch.ones(1, 4)
        have = torch.tanh(given @ state["first.weight"].T + state["first.bias"]) @ state["second.weight"].T
        np.testing.assert_allclose(have + state["second.bias"], keras.Model(x, y)(given.numpy()), rtol=1e-5, atol=1e-6)


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)]).save(folder / "a.keras")
    before = sorted(folder.iterdir())
    done = run(folder, "my_nets:Net", "--into", "my_nets:model", "--dry-run")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "first.weight" in line)
    for text in ("in.kernel", "axes 1, 0", "[3, 4]", "[4, 3]", "by what is computed"):
        assert text in line
    assert "4 tensors" in done.stdout
    assert [p for p in sorted(folder.iterdir()) if p.name != "__pycache__"] == [
        p for p in before if p.name != "__pycache__"
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("my_nets:Net", "--into", "my_nets:model"), "give -o with a new file for the filled model, or --dry-run"),
        (("my_nets:Net", "--into", "my_nets:model", "-o", "x.txt"), "x.txt: the output is a .keras, .weights.h5"),
        (
            ("my_nets:Net", "--into", "my_nets:model", "-o", "x.pt"),
            "x.pt: a Functional is written as .keras or .weights.h5",
        ),
        (("none.pt", "--into", "my_nets:model", "-o", "x.keras"), "none.pt: no such file"),
        (("my_nets:Net", "--into", "my_nets:nothing", "-o", "x.keras"), "has no function 'nothing'"),
        (
            ("my_nets:model", "--into", "my_nets:model", "--dry-run", "--names", "my_nets:TABLES.x"),
            "there is no such table",
        ),
    ],
)
def test_what_is_refused(folder, arguments, text):
    done = run(folder, *arguments)
    assert done.returncode == 2 and text in done.stderr, done.stderr
    assert not list(folder.glob("x.*"))
