"""What is said, or refused, where a converted model would not be the module at other sizes."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge

OPEN = [{0, 2, 3}]


def thumbnails_are_doubled(m, x):
    return m.c(x) if x.shape[2] > 12 else 2 * m.c(x)


def columns_are_pooled(m, x):
    x = m.c(x)
    return F.avg_pool2d(x, (1, 2)) if x.shape[3] > 9 else x


@pytest.mark.parametrize(
    "function, shapes",
    [
        (thumbnails_are_doubled, ["(2, 3, 12, 19)"]),  # the nearest size that another way is gone for
        (columns_are_pooled, ["(2, 3, 17, 9)"]),
        (lambda m, x: columns_are_pooled(m, thumbnails_are_doubled(m, x)), ["(2, 3, 12, 19)", "(2, 3, 17, 9)"]),
        (lambda m, x: F.interpolate(F.max_pool2d(m.c(x), 4), x.shape[2:]), []),  # no size for the module itself
        (lambda m, x: m.c(x) if x.shape[2] > 12 else F.conv2d(x, m.c.weight, m.c.bias, padding=1), []),  # the same
        (lambda m, x: m.c(x).mean((2, 3)), []),
    ],
)
def test_a_decision_about_a_smaller_size(check, function, shapes):
    module = check.live_torch(check.module_of(function, c=check.conv()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = bridge.to_keras(module, (torch.randn(2, 3, 17, 19),), OPEN)
    said = [str(w.message) for w in caught if "goes another way for inputs of shape" in str(w.message)]
    assert len(said) == len(shapes) and all(a in b for a, b in zip(shapes, said, strict=True)), said
    x = torch.randn(3, 3, 13, 10)
    np.testing.assert_allclose(check.to_first(model(check.to_last(x.numpy()))), module(x).detach(), rtol=0, atol=1e-4)


def test_a_decision_about_the_batch(check):
    module = check.module_of(lambda m, x: m.c(x) * (1 if x.shape[0] > 2 else 3), c=check.conv())
    with pytest.warns(UserWarning, match=r"of shape \(2, 3, 6, 5\) than .*: there is a difference of 6.7e-01"):
        bridge.to_keras(module, (torch.randn(3, 3, 6, 5),))


def test_a_size_that_is_fixed_although_it_is_to_stay_open(check):
    module = check.module_of(lambda m, x: m.c(x).reshape(3, 4, 4, 3), c=nn.Conv2d(3, 4, 3))
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(module, (torch.zeros(3, 3, 6, 5),))
    assert "fixes sizes that are to stay open: axis 0 of input 0 at 3. One more was tried, and there is" in str(e.value)
    assert bridge.to_keras(module, (torch.zeros(3, 3, 6, 5),), [set()]).input_shape == (3, 6, 5, 3)


def test_another_number_of_axes(check):
    module = check.module_of(lambda m, x: m.c(x) if x.shape[2] > 12 else m.c(x).sum(1), c=check.conv())
    with pytest.warns(UserWarning, match=r"of shape \(2, 3, 12, 19\) than .*: there is another number of axes"):
        bridge.to_keras(module, (torch.randn(2, 3, 17, 19),), OPEN)
