"""The same random numbers on both sides of a comparison."""

import keras
import numpy as np
import pytest
import torch

from bridge.fixed_noise import InTorch, in_keras


@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 4, 3)])
def test_both_sides_draw_the_same(shape):
    order = (0, 3, 1, 2) if len(shape) == 4 else (0, 1)
    x = torch.zeros([shape[a] for a in order])
    with in_keras(), InTorch():
        want = keras.random.normal(shape, mean=1.0, stddev=2.0), keras.random.uniform(shape, minval=-1.0, maxval=3.0)
        have = 1 + 2 * torch.randn_like(x), -1 + 4 * torch.rand(x.shape)
    for mine, theirs in zip(want, have, strict=True):
        np.testing.assert_allclose(theirs.numpy(), np.asarray(mine).transpose(order), rtol=1e-6, atol=1e-6)


def test_only_for_so_long():
    with in_keras(), InTorch():
        first = keras.random.normal((4,)), torch.randn(4)
        second = keras.random.normal((4,)), torch.randn(4)
    np.testing.assert_array_equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not np.array_equal(first[0], keras.random.normal((4,)))
    assert not torch.equal(first[1], torch.randn(4))


def test_gradients_pass():
    x = torch.ones(3, requires_grad=True)
    with InTorch():
        (x * torch.randn_like(x)).sum().backward()
        np.testing.assert_allclose(x.grad, torch.randn(3))
