"""Files of torch.save: names of all keys, every dtype, nothing that is run."""

import pathlib

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import checkpoints


def test_a_state_dict(tmp_path):
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    with checkpoints.open(tmp_path / "a.pt") as found:
        assert found.keys() == module.state_dict().keys()
        for name, value in module.state_dict().items():
            assert found.tensors[name].shape == tuple(value.shape)
            assert found[name].dtype == found.tensors[name].dtype
            np.testing.assert_array_equal(found[name], value)


def test_a_trainers_checkpoint(tmp_path):
    module = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    whole = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(whole, tmp_path / "a.pth")
    with checkpoints.open(tmp_path / "a.pth") as found:
        np.testing.assert_array_equal(found["model.weight"], module.weight.detach())
        np.testing.assert_array_equal(found["optimizer.state.0.exp_avg"], optimizer.state[module.weight]["exp_avg"])
        assert "epoch" in found.left_out and "optimizer.param_groups.0.lr" in found.left_out


@pytest.mark.parametrize("zipped", [True, False])
def test_every_dtype_and_layout(tmp_path, zipped):
    tensors = {
        "half": torch.randn(3, 4).half(),
        "bfloat16": torch.randn(3, 4).bfloat16(),
        "float8": torch.randn(3, 4).to(torch.float8_e4m3fn),
        "turned": torch.randn(3, 4).t(),
        "complex": torch.randn(3, dtype=torch.complex64),
        "one": torch.tensor(5),
        "none": torch.zeros(0, 3),
        "expanded": torch.tensor(2.0).expand(3, 2),
        "mask": torch.tensor([True, False]),
    }
    if not zipped:
        del tensors["float8"]  # which torch itself cannot read from its old format
    torch.save(tensors, tmp_path / "a.bin", _use_new_zipfile_serialization=zipped)
    with checkpoints.open(tmp_path / "a.bin") as found:
        assert found["bfloat16"].dtype == ml_dtypes.bfloat16
        assert not zipped or found["float8"].dtype == ml_dtypes.float8_e4m3fn
        for name, value in tensors.items():
            wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
            np.testing.assert_array_equal(found[name].astype(wide.numpy().dtype), wide)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (pathlib.Path(self.path), "run")


def test_no_code_is_run_and_damage_is_said(tmp_path):
    torch.save({"a": Evil(tmp_path / "evil")}, tmp_path / "evil.pt")
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-300])
    flipped = bytearray((tmp_path / "whole.pt").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (tmp_path / "flipped.pt").write_bytes(flipped)
    for name in ("evil.pt", "cut.pt", "flipped.pt"):
        with pytest.raises(bridge.BridgeError, match=f"{name} cannot be read"), checkpoints.open(tmp_path / name):
            pass
    assert not (tmp_path / "evil").exists()
