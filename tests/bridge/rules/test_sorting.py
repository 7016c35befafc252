"""Sorted tensors and the largest cells, both ways."""

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops


@pytest.mark.parametrize("shape, axis", [((5,), -1), ((4, 3), 1), ((3, 5, 4), 2), ((3, 5, 4), -1)], ids=str)
def test_sort(check, shape, axis):
    x = keras.Input(shape, name="x")
    check.both_ways(keras.Model(x, [layers.ReLU()(ops.sort(x, axis)), ops.argsort(x, axis)]))


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 5, 6)], ids=str)
def test_top_k(check, shape):
    x = keras.Input(shape, name="x")
    values, places = ops.top_k(x, 3)
    check.both_ways(keras.Model(x, [layers.ReLU()(values), places]))


FUNCTIONS = {
    "sort": lambda x: x.sort(1)[0],
    "both": lambda x: x.sort(-1),
    "argsort": lambda x: x.argsort(1),
    "stable": lambda x: torch.argsort(x, stable=True, dim=2),
    "descending": lambda x: x.sort(1, descending=True),
    "argsort descending": lambda x: x.argsort(-1, descending=True),
    "topk": lambda x: x.topk(2, 1),
    "topk values": lambda x: x.topk(3)[0],
    "topk places": lambda x: x.topk(3)[1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch(check, name):
    check.from_torch(check.Function(FUNCTIONS[name]), torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)))


def test_equal_cells():
    """Of them the first is first, as in TensorFlow; torch.topk alone would give any."""
    x = keras.Input((33,), name="x")
    values, places = ops.top_k(x, 10)
    module = bridge.to_torch(keras.Model(x, [values, places, ops.argsort(x)]))
    array = np.random.default_rng(0).integers(0, 4, (16, 33)).astype("float32")
    for have, want in zip(module(torch.from_numpy(array)), (*ops.top_k(array, 10), ops.argsort(array)), strict=True):
        np.testing.assert_array_equal(have.numpy(), np.asarray(want))


class Routed(nn.Module):
    """The tokens with the highest scores, in the order of those."""

    def __init__(self):
        super().__init__()
        self.score, self.mix = nn.Linear(6, 1), nn.Linear(6, 4)

    def forward(self, x):
        places = self.score(x).squeeze(-1).topk(3).indices
        return self.mix(torch.gather(x, 1, places.unsqueeze(-1).repeat(1, 1, 6)))


def test_network():
    torch.manual_seed(0)
    module, x = Routed().eval(), torch.randn(2, 7, 6)
    model = bridge.to_keras(module, (x,))
    again = bridge.to_torch(model)
    torch.testing.assert_close(again(x), module(x))
    np.testing.assert_allclose(np.asarray(model(x.numpy())), module(x).detach().numpy(), atol=1e-5)


def test_refusals(check):
    x = keras.Input((5, 3), name="x")
    with pytest.raises(bridge.BridgeError, match="sorts the flattened tensor, the batch along; give it an axis"):
        bridge.to_torch(keras.Model(x, ops.sort(x, None)))
    with pytest.raises(bridge.BridgeError, match="sorted=False, whose order TensorFlow does not say"):
        bridge.to_torch(keras.Model(x, ops.top_k(x, 2, sorted=False)[0]))
    with pytest.raises(bridge.BridgeError, match="largest=False, sorted=True; give a fixed k"):
        bridge.to_keras(check.Function(lambda x: x.topk(2, largest=False)[0]), (torch.randn(2, 5),))
    with pytest.raises(bridge.BridgeError, match="descending order along an axis of an open size"):
        bridge.to_keras(check.Function(lambda x: x.sort(1, descending=True)[0]), (torch.randn(2, 5),), [{0, 1}])
