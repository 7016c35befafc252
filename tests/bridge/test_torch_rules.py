"""A training that began with one of torch's own optimizers goes on in Keras by torch's rule."""

import warnings

import numpy as np
import pytest
import torch

import bridge
from tests.bridge._steps import STEPS, batches, in_float64, network, same, train_keras, train_torch

OWN = {
    "SGD": {"lr": 2.0**-5},
    "SGD, momentum": {"lr": 2.0**-5, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"lr": 2.0**-7, "weight_decay": 0.01},
    "Adam, amsgrad": {"lr": 2.0**-7, "amsgrad": True, "eps": 1e-4},
    "AdamW": {"lr": 2.0**-7, "weight_decay": 0.1, "eps": 1e-4},
    "RMSprop": {"lr": 2.0**-8, "momentum": 0.8, "centered": True, "eps": 1e-3},
    "Adagrad": {"lr": 2.0**-5, "eps": 1e-3, "initial_accumulator_value": 0.1},
    "Adamax": {"lr": 2.0**-7, "eps": 1e-3},
    "NAdam": {"lr": 2.0**-7, "eps": 1e-4, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "NAdam, Keras'": {"lr": 2.0**-7, "momentum_decay": 1.0},
}


@pytest.mark.parametrize("name", OWN)
def test_from_torchs_own(name):
    with in_float64():
        model = network("convolutional")
        module, data = bridge.to_torch(model, exact_training=True), batches(model, 3 * STEPS)
        decayed = [p for p in module.parameters() if p.ndim > 1]
        groups = [{"params": decayed}, {"params": [p for p in module.parameters() if p.ndim == 1], "weight_decay": 0}]
        optimizer = getattr(torch.optim, name.partition(",")[0])(groups, **OWN[name])
        train_torch(module, optimizer, data[:STEPS])
        bridge.load_weights(model, module.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other = bridge.optimizer_to_keras(optimizer, module, model)
            mine = train_keras(model, other, data[STEPS : 2 * STEPS])
            np.testing.assert_allclose(mine, train_torch(module, optimizer, data[STEPS : 2 * STEPS]), rtol=1e-9)
            same(model, module, 1e-9, 1e-9)
            if name == "SGD":  # which is Keras' own
                return
            again = bridge.to_torch(model, exact_training=True)
            back = bridge.optimizer_to_torch(other, model, again)
            assert type(back) is type(optimizer)
        np.testing.assert_allclose(
            train_torch(again, back, data[2 * STEPS :]), train_torch(module, optimizer, data[2 * STEPS :]), rtol=1e-9
        )


@pytest.mark.parametrize("name", ["Adam", "AdamW", "RMSprop", "Adagrad", "Adamax", "NAdam"])
def test_an_embedding(name):
    """torch has the gradient of its rows whole, Keras in parts."""
    with in_float64():
        model = network("transformer")
        module, data = bridge.to_torch(model), batches(model, 2 * STEPS)
        optimizer = getattr(torch.optim, name)(module.parameters(), lr=2.0**-7)
        train_torch(module, optimizer, data[:STEPS])
        bridge.load_weights(model, module.state_dict())
        other = bridge.optimizer_to_keras(optimizer, module, model)
        mine = train_keras(model, other, data[STEPS:])
        np.testing.assert_allclose(mine, train_torch(module, optimizer, data[STEPS:]), rtol=1e-9)
        same(model, module, 1e-9, 1e-9)
