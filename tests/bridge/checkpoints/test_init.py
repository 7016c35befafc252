"""What is a checkpoint, what is said of one that is none, and that arrays are read when they are asked for."""

import numpy as np
import pytest

import bridge
from bridge import checkpoints
from bridge.checkpoints import Checkpoint, Tensor


def test_arrays_are_read_when_they_are_asked_for():
    read = []
    made = Tensor((2,), np.dtype("float32"), lambda: read.append(1) or np.ones(2, "float32"))
    found = Checkpoint("file", {"a": made, "b": made}, [])
    assert len(found) == 2 and list(found) == ["a", "b"] and found.tensors["a"].nbytes == 8 and not read
    np.testing.assert_array_equal(found["a"], [1, 1])
    assert read == [1] and "c" not in found


@pytest.mark.parametrize("array", [np.ones(3, "float32"), np.ones(2)])
def test_what_is_not_as_was_said_is_refused(array):
    found = Checkpoint("file", {"a": Tensor((2,), np.dtype("float32"), lambda: array)}, [])
    with pytest.raises(bridge.BridgeError, match=r"file, a: cannot be read: .*, not float32 \(2,\)"):
        found["a"]
    with pytest.raises(bridge.BridgeError, match="file, a: cannot be read"):
        found.checked()["a"].read()


def test_no_such_file(tmp_path):
    for name in ("a.keras", "a.safetensors", "a.pt"):
        with pytest.raises(bridge.BridgeError, match=f"{name}: no such file. Accepted: a file that ends with"):
            checkpoints.open(tmp_path / name).__enter__()
