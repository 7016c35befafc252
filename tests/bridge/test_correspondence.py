"""What of a user's own module is what of a Keras model."""

import numpy as np
import pytest
import torch

import bridge
from tests.bridge._steps import STEPS, batches, in_float64, made, network, train_keras, train_torch


class Own(torch.nn.Module):
    """`recurrent()` by a user: other names, and both biases of the LSTM."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.reader, self.second = nn.LSTM(4, 6, batch_first=True), nn.GRU(6, 5, batch_first=True)
        self.reader.bias_hh_l0.requires_grad_(False).zero_()
        self.end = nn.Linear(5, 3)

    def forward(self, x):
        return self.end(self.second(self.reader(x)[0])[1][0])


def test_a_module_of_ones_own():
    with in_float64():
        model = network("recurrent")
        optimizer, data = made("Adam", model), batches(model, 2 * STEPS)
        train_keras(model, optimizer, data[:STEPS])
        module = Own().double()
        with pytest.raises(bridge.BridgeError, match="Own has not the weights of functional.*bridge.load_weights"):
            bridge.optimizer_to_torch(optimizer, model, module)
        bridge.load_weights(module, model)
        other = bridge.optimizer_to_torch(optimizer, model, module)
        assert len(other.param_groups[0]["params"]) == len(list(module.parameters())) - 1
        theirs = train_torch(module, other, data[STEPS:])
        np.testing.assert_allclose(theirs, train_keras(model, optimizer, data[STEPS:]), rtol=1e-9)
        back = bridge.optimizer_to_keras(other, module, loaded(network("recurrent"), module))
        for a, b in zip(back.variables, optimizer.variables, strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9, atol=1e-12)
        optimizer.clipnorm, optimizer.global_clipnorm = 0.1, None
        bridge.load_weights(module, model)
        with pytest.raises(
            bridge.BridgeError, match="clipnorm is of each weight, and these are .* second.bias_hh_l0, second.bias_ih"
        ):
            bridge.optimizer_to_torch(optimizer, model, module)


def loaded(model, module):
    bridge.load_weights(model, module)
    return model


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_layer_of_which_a_part_is_frozen(frozen):
    """Keras has two layers for it, as it trains a layer as a whole or not at all."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    getattr(module[0], frozen).requires_grad_(False)
    model = bridge.to_keras(module.eval(), (torch.randn(2, 4),))
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 2.0**-8)
    rng = np.random.default_rng(0)
    data = [(rng.normal(size=(4, 4)).astype("float32"), rng.normal(size=(4, 3))) for _ in range(2 * STEPS)]
    train_torch(module, optimizer, data[:STEPS])
    bridge.load_weights(model, module)
    other = bridge.optimizer_to_keras(optimizer, module, model)
    assert len(other._momentums) == 3
    theirs = train_torch(module, optimizer, data[STEPS:])
    np.testing.assert_allclose(train_keras(model, other, data[STEPS:]), theirs, rtol=1e-4)
    back = bridge.optimizer_to_torch(other, loaded(model, module), module)
    assert len(back.param_groups[0]["params"]) == 3
