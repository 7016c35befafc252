"""A module is run as it is used, and left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from bridge import inference


def net(dtype):
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).to(dtype)
    module.train()
    module[1].eval()  # frozen statistics
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_run(dtype):
    module = net(dtype)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    (found,) = inference.run(module, [x])
    assert [part.training for part in module] == [True, False, True, True] and module.training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x).to(dtype)).float()
    np.testing.assert_array_equal(found.astype("float32"), wanted)
    assert np.ptp(found, axis=0).max() > 0


def test_the_mode_is_put_back_after_a_failure():
    module = net(torch.float32)
    with pytest.raises(RuntimeError):
        inference.run(module, [np.ones((2, 7), "float32")])
    assert [part.training for part in module] == [True, False, True, True]


def test_several_outputs():
    class Two(nn.Module):
        def forward(self, x, i):
            return {"b": x * 2, "a": i + 1}

    a, b = inference.run(Two(), [np.ones((2, 2), "float32"), np.array([3])])
    assert a.tolist() == [4] and b.sum() == 8
