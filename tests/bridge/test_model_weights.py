"""One model into another: what the confirmation by running sees, and that it leaves everything as it was."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import model_weights

layers = keras.layers


def model():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(3, name="a")(layers.BatchNormalization(epsilon=1e-5, name="n")(x)), name="m")


class Net(nn.Module):
    def __init__(self, fails=False):
        super().__init__()
        self.norm, self.last, self.fails = nn.BatchNorm1d(4), nn.Linear(4, 3), fails

    def forward(self, x):
        return self.last(self.norm(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_and_modes_stay(check, dtype):
    source, target = check.randomise(model()), Net().to(dtype)
    target.train()
    target.norm.eval()
    bridge.load_weights(target, source)
    assert target.training and not target.norm.training and target.last.weight.dtype == dtype
    np.testing.assert_allclose(target.last.weight.detach().float(), np.asarray(source.layers[-1].kernel).T, rtol=1e-3)


def test_code_of_ones_own_that_fails_leaves_everything_as_it_was(check, monkeypatch):
    target = Net()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    monkeypatch.setattr(model_weights.inference, "run", lambda *_: 1 / 0)
    with pytest.raises(bridge.BridgeError, match="ZeroDivisionError: division by zero. Nothing has been changed"):
        bridge.load_weights(target, check.randomise(model()))
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_numbers_that_are_none_on_both_sides_are_the_same(check):
    class Log(Net):
        def forward(self, x):
            return torch.log(super().forward(x))

    x = keras.Input((4,))
    y = keras.ops.log(layers.Dense(3, name="a")(layers.BatchNormalization(epsilon=1e-5, name="n")(x)))
    source, target = check.randomise(keras.Model(x, y)), Log().eval()
    bridge.load_weights(target, source)
    np.testing.assert_array_equal(target.last.bias.detach(), source.get_layer("a").bias)


def test_a_part_of_a_variable():
    variable = keras.Variable(np.arange(12.0).reshape(3, 4))
    cells = model_weights.Cells(variable, np.arange(12).reshape(3, 4)[:, 1:3])
    np.testing.assert_array_equal(np.asarray(cells), [[1, 2], [5, 6], [9, 10]])
    cells.assign(np.zeros((3, 2)))
    np.testing.assert_array_equal(np.asarray(variable), [[0, 0, 0, 3], [4, 0, 0, 7], [8, 0, 0, 11]])
