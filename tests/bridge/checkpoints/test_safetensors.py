"""safetensors, against the library, and files that are none."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import bridge
from bridge import checkpoints
from bridge.checkpoints import Tensor
from bridge.checkpoints import safetensors as own

rng = np.random.default_rng(0)
ARRAYS = {
    "b.weight": rng.normal(size=(3, 4)).astype("float32"),
    "a": rng.normal(size=(2, 3, 5)),
    "half": rng.normal(size=7).astype("float16"),
    "count": np.array(3, "int64"),
    "mask": rng.random(5) > 0.5,
    "bytes": rng.integers(0, 255, (3,), np.uint8),
    "nothing": np.zeros((0, 4), "float32"),
    "naïve name \n": np.arange(4, dtype="int16"),
}


def as_tensors(arrays):
    return {name: Tensor(a.shape, a.dtype, lambda a=a: a) for name, a in arrays.items()}


def write(path, header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def test_a_file_of_the_library_is_read(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "a.safetensors", metadata={"format": "np"})
    with checkpoints.open(tmp_path / "a.safetensors") as found:
        assert found.keys() == ARRAYS.keys()
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype and found.tensors[name].nbytes == array.nbytes
            np.testing.assert_array_equal(found[name], array)


def test_the_library_reads_what_is_written(tmp_path):
    own.write(tmp_path / "a.safetensors", as_tensors(ARRAYS), {"source": "x"})
    found = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with safetensors.safe_open(tmp_path / "a.safetensors", "np") as file:
        assert file.metadata() == {"source": "x"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_short_floats(tmp_path, dtype):
    tensor = torch.randn(3, 5).to(getattr(torch, dtype))
    safetensors.torch.save_file({"x": tensor}, tmp_path / "a.safetensors")
    with checkpoints.open(tmp_path / "a.safetensors") as found:
        array = found["x"]
        assert array.dtype == getattr(ml_dtypes, dtype)
        np.testing.assert_array_equal(array.astype("float32"), tensor.float())
        own.write(tmp_path / "b.safetensors", found.checked(), {})
    again = safetensors.torch.load_file(tmp_path / "b.safetensors")["x"]
    assert again.dtype == tensor.dtype and torch.equal(again.float(), tensor.float())


def test_dtypes_that_it_has_not(tmp_path):
    with pytest.raises(bridge.BridgeError, match=r"no such dtypes: x is complex128, y is >f4"):
        own.write(tmp_path / "a.safetensors", as_tensors({"x": np.zeros(2, "complex128"), "y": np.zeros(2, ">f4")}), {})


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "content", "message"),
    [
        (b"{", b"", "JSONDecodeError"),
        ([], b"", "its header is no dictionary"),
        ({"x": ONE}, b"\0" * 7, "do not fill the file"),
        ({"x": ONE}, b"\0" * 9, "do not fill the file"),
        ({"x": ONE, "y": ONE}, b"\0" * 8, "do not fill the file"),
        ({"x": ONE | {"shape": [3]}}, b"\0" * 8, "has 8 bytes, not those of float32"),
        ({"x": ONE | {"shape": [-2]}}, b"\0" * 8, "no numbers from 0 on"),
        ({"x": ONE | {"shape": [2.0]}}, b"\0" * 8, "no numbers from 0 on"),
        ({"x": ONE | {"data_offsets": [8, 16]}}, b"\0" * 16, "do not fill the file"),
        ({"x": ONE | {"dtype": "F3"}}, b"\0" * 8, "KeyError"),
    ],
)
def test_files_that_are_none(tmp_path, header, content, message):
    path = write(tmp_path / "a.safetensors", header, content)
    with pytest.raises(bridge.BridgeError, match="a.safetensors cannot be read: .*" + message), checkpoints.open(path):
        pass


def test_a_header_of_any_length_is_not_read(tmp_path):
    (tmp_path / "a.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(bridge.BridgeError, match="its header would have 4,611,686,018,427,387,904 bytes"):
        checkpoints.open(tmp_path / "a.safetensors").__enter__()
