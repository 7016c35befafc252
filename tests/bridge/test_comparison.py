"""What a comparison takes for equal, and copies to make it."""

import keras
import pytest
import torch

import bridge

layers = keras.layers


class Its(torch.nn.Module):
    """What a module makes itself follows its dtype: the largest number, positions, angles."""

    def __init__(self):
        super().__init__()
        self.self = torch.nn.Linear(4, 4)  # as in transformers

    def forward(self, x, t):  # (B, 3, 4), (B)
        scores = self.self(x)
        keep = torch.ones(3, 3, dtype=torch.bool).tril().expand(x.shape[0], 3, 3)
        scores = torch.where(keep, scores @ scores.mT, torch.finfo(scores.dtype).min)
        angle = t[:, None] * torch.exp(torch.arange(4) * -0.3)
        return scores.softmax(-1, dtype=torch.float32).to(x.dtype) @ x + (angle.sin() + torch.arange(4).cos())[:, None]


@pytest.mark.parametrize("t", [torch.tensor([3, 1]), torch.tensor([0.3, 0.7])])
def test_a_module_that_makes_tensors(check, t):
    module, x = Its(), torch.randn(2, 3, 4)
    check.live_torch(module, x, t)
    model = bridge.to_keras(module, (x, t))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.to_torch(model).state_dict().keys() >= module.state_dict().keys()
    other = Its()
    other.load_state_dict(module.state_dict())
    other.self.bias.data[0] += 1e-6
    assert not bridge.verify(model, other).passed


def test_tensors_that_are_plain_attributes(check):
    module = check.module_of(
        lambda m, x: torch.nn.functional.conv2d(m.c(x), m.kernel, groups=4), c=torch.nn.Conv2d(3, 4, 3)
    )
    module.kernel = torch.randn(4, 1, 3, 3)
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 8, 7),)), module).passed


@pytest.mark.filterwarnings("ignore")
def test_a_weight_that_a_hook_has_computed():
    """torch.nn.utils.weight_norm keeps the product of the last call, which deepcopy refuses."""
    module = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Conv2d(3, 4, 3)))
    module(torch.randn(2, 3, 5, 5)).sum().backward()
    assert bridge.verify(bridge.to_keras(module, (torch.randn(2, 3, 5, 5),)), module).passed


def test_the_padding_of_a_maximum_is_no_fault(check):
    """torch's MaxPool2d pads with -inf, and so does Keras before its own."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(3, 2, 1), torch.nn.Conv2d(4, 2, 1))
    model = bridge.to_keras(module, (torch.randn(2, 3, 9, 8),))
    assert any("pad" in operation.name for operation in model.operations)
    assert bridge.verify(model, module).passed


def test_what_is_zero_but_for_rounding(check):
    """No tensor that is zero in theory has any right digit: it is judged by what it is made from."""
    x = keras.Input((6, 5, 3))
    y = layers.Conv2D(4, 3, name="c")(x)
    centred = y - layers.GlobalAveragePooling2D(keepdims=True)(y)
    model = check.randomise(keras.Model(x, [layers.GlobalAveragePooling2D()(centred), y]))
    report = bridge.verify(model, bridge.to_torch(model))
    assert not [s for k, s in report.failures if k == "forward"], report
