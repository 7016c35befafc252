"""From any kind of file to another: the same names and numbers, one tensor in memory at a time, whole or not at all."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

import bridge
from bridge import checkpoints
from bridge.checkpoints import conversion


@pytest.mark.parametrize("ending", [".safetensors", ".h5", ".pt"])
@pytest.mark.parametrize("source", [".keras", ".weights.h5", ".h5", "tf"])
def test_names_and_numbers_stay(files, tmp_path, source, ending):
    count, size, left_out = conversion.convert(files[source], tmp_path / f"a{ending}")
    with checkpoints.open(files[source]) as before, checkpoints.open(tmp_path / f"a{ending}") as after:
        assert before.keys() == after.keys() and count == len(before) > 20 and left_out == []
        assert size == sum(array.nbytes for array in before.values())
        for name, array in before.items():
            assert after[name].dtype == array.dtype
            np.testing.assert_array_equal(after[name], array)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


def test_from_torch_by_way_of_hdf5(tmp_path):
    state = {"a.weight": torch.randn(3, 4).bfloat16(), "b": torch.tensor(3), "c": torch.randn(2, dtype=torch.float64)}
    torch.save({"model": state, "epoch": 3}, tmp_path / "a.pt")
    assert conversion.convert(tmp_path / "a.pt", tmp_path / "b.h5")[2] == ["epoch"]
    conversion.convert(tmp_path / "b.h5", tmp_path / "c.safetensors")
    found = safetensors.torch.load_file(tmp_path / "c.safetensors")
    assert found.keys() == {f"model.{name}" for name in state}
    for name, value in state.items():
        assert found[f"model.{name}"].dtype == value.dtype and torch.equal(found[f"model.{name}"], value)


@pytest.mark.parametrize("name", ["a.weights.h5", "a.keras", "a.txt", "there.pt"])
def test_outputs_that_are_refused(files, tmp_path, name):
    (tmp_path / "there.pt").write_bytes(b"kept")
    message = "exists already" if name == "there.pt" else "a checkpoint is converted to .safetensors, .h5, .pt"
    with pytest.raises(bridge.BridgeError, match=message):
        conversion.convert(files[".keras"], tmp_path / name)
    assert (tmp_path / "there.pt").read_bytes() == b"kept" and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_of_what_cannot_be_written(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.ones(3), np.ones(2, "complex128")
    with pytest.raises(bridge.BridgeError, match="safetensors has no such dtypes: y is complex128"):
        conversion.convert(tmp_path / "a.h5", tmp_path / "b.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


SCRIPT = """
import resource, sys
from bridge.checkpoints import conversion
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
conversion.convert(sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
assert not {"tensorflow", "keras", "torch"} & sys.modules.keys()
"""


def test_one_tensor_is_in_memory_at_a_time(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(20):
            file[f"x{i}"] = np.full((1000, 2500), i, "float32")  # 10 MB
    for pair in (("a.h5", "b.safetensors"), ("b.safetensors", "c.h5")):
        command = [sys.executable, "-c", SCRIPT, *(tmp_path / name for name in pair)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 60_000  # kB, of 200 MB; h5py itself takes some
