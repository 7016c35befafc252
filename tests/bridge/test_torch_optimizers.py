"""The optimizer of torch's own that is nearest to Keras'."""

import warnings

import pytest

import bridge
from tests.bridge._steps import SETTINGS, STEPS, batches, in_float64, made, network, same, train_keras, train_torch


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "Lion"])
def test_nearest_of_torchs_own(name):
    """torch's class goes on nearly as Keras does; that it is not the same is said, and of Nadam nothing."""
    with in_float64():
        model = network("convolutional")
        optimizer, data = made(name, model), batches(model, 2 * STEPS)
        train_keras(model, optimizer, data[:STEPS])
        module = bridge.to_torch(model, exact_training=True)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            other = bridge.optimizer_to_torch(optimizer, model, module, exact=False)
        assert type(other).__module__.startswith("torch.optim")
        said = [str(w.message) for w in said if "is not Keras'" in str(w.message)]
        if name.startswith(("Nadam", "SGD, plain")):
            assert not said
        else:
            assert len(said) == 1
        if any("left out" in text for text in said):
            return
        train_torch(module, other, data[STEPS:], SETTINGS[name].get("loss_scale_factor", 1.0))
        train_keras(model, optimizer, data[STEPS:])
        if name != "SGD, Nesterov, decay":  # whose decay torch has in the velocity
            near = 1e-6 if name.startswith(("Nadam", "SGD")) else 2e-2  # Keras rounds settings to float32
            same(model, module, near, near)
