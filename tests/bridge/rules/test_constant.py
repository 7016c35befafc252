"""What torch works out of buffers and numbers alone is a constant, and its axes follow what it meets."""

import inspect

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import torch_reader

layers, ops = keras.layers, keras.ops


class Masked(nn.Module):
    """A mask that is made on the way."""

    def __init__(self, make):
        super().__init__()
        self.make, self.fc = make, nn.Linear(5, 5)
        self.mask = nn.Buffer(torch.ones(8, 8).tril())

    def forward(self, x):
        return torch.where(self.make(self), self.fc(x), 0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.mask[:5, :5] == 0,
        lambda m: m.mask[:5, :5].bool() & ~torch.eye(5).bool(),
        lambda m: torch.arange(5)[None] <= torch.arange(5)[:, None],
        lambda m: torch.triu(torch.full((5, 5), float("-inf")), diagonal=1) == 0,
        lambda m: torch.ones(5, 5).tril_() > 0,
    ],
)
def test_masks_made_on_the_way(check, make):
    module = Masked(make)
    model = check.from_torch(module, torch.randn(2, 5, 5))
    assert [n.operator for n in torch_reader.read(module.float(), (torch.randn(2, 5, 5),)).nodes].count("constant") == 1
    assert bridge.verify(model, module.double()).passed


def test_a_change_through_a_view(check):
    def make(m):
        mask = torch.zeros(5, 5)
        mask[1:3].fill_(1)
        return mask > 0

    check.from_torch(Masked(make), torch.randn(2, 5, 5))


def test_axes_follow_the_layout(check):
    x = keras.Input((5, 4, 3), name="x")
    y = ops.where(x > 0, layers.Conv2D(3, 1, name="a")(x), np.arange(60, dtype="float32").reshape(5, 4, 3) / 60)
    module = check.both_ways(keras.Model(x, layers.Conv2D(2, 1, name="b")(y))).module
    assert "permute" not in inspect.getsource(type(module))
    assert [tuple(b.shape) for b in module.buffers()] == [(1, 3, 5, 4)]
