"""What two checkpoints differ in, by kinds of files and by numbers."""

import numpy as np
import safetensors.numpy
import torch

from bridge.checkpoints import conversion, difference

A = {
    "same": np.arange(6.0),
    "far": np.array([1.0, -4.0, 2.0]),
    "shape": np.zeros((2, 3)),
    "dtype": np.ones(3, "float32"),
    "nan": np.array([1.0, np.nan, np.inf]),
    "gone": np.zeros(1),
    "whole": np.array([2**62], "int64"),
}
B = A | {
    "far": np.array([1.0, -4.5, 2.25]),
    "shape": np.zeros((3, 2)),
    "dtype": np.ones(3, "float64"),
    "new": np.zeros(2),
    "whole": np.array([2**62 + 1], "int64"),
}
del B["gone"]


def test_everything_that_differs_is_said(tmp_path):
    safetensors.numpy.save_file(A, tmp_path / "a.safetensors")
    torch.save({name: torch.tensor(value) for name, value in B.items()}, tmp_path / "b.pt")
    found = difference.compare(tmp_path / "a.safetensors", tmp_path / "b.pt")
    assert found and found.missing == ["gone"] and found.extra == ["new"]
    assert found.shapes == [("shape", (2, 3), (3, 2))] and found.dtypes == [("dtype", "float32", "float64")]
    assert sorted(found.far) == [("far", 0.5, 0.125), ("whole", 1.0, 1.0 / 2**62)]
    assert found.not_finite == [("nan", "first"), ("nan", "second")] and found.equal == 2
    lines = difference.rows(found)
    assert ["gone", "there", "missing", "", ""] in lines and ["far", "", "", "0.5", "1.2e-01"] in lines
    assert len(lines) == 8


def test_nan_against_a_number_is_infinitely_far(tmp_path):
    for name, value in {"a": [np.nan, 1.0], "b": [0.0, 1.0]}.items():
        safetensors.numpy.save_file({"x": np.array(value)}, tmp_path / f"{name}.safetensors")
    found = difference.compare(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found.far == [("x", np.inf, np.inf)] and found.not_finite == [("x", "first")]


def test_a_file_and_what_it_was_converted_to_are_the_same(files, tmp_path):
    conversion.convert(files[".keras"], tmp_path / "a.safetensors")
    found = difference.compare(files[".keras"], tmp_path / "a.safetensors")
    assert not found and found.equal > 20 and difference.rows(found) == []
