"""Schedules, and what is kept of an optimizer with Keras' rule."""

import warnings

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import optimizers
from tests.bridge._steps import STEPS, batches, made, network, train_keras, train_torch

SCHEDULES = {
    "ExponentialDecay": ({"decay_steps": 2, "decay_rate": 0.5}, {"staircase": True}),
    "InverseTimeDecay": ({"decay_steps": 3, "decay_rate": 0.7}, {"staircase": True}),
    "PolynomialDecay": ({"decay_steps": 4, "end_learning_rate": 1e-4, "power": 1.5}, {"cycle": True}),
    "CosineDecay": ({"decay_steps": 7, "alpha": 0.1}, {"warmup_target": 0.1, "warmup_steps": 3}),
    "CosineDecayRestarts": ({"first_decay_steps": 3, "m_mul": 0.5}, {"t_mul": 1.0}),
}


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name, more):
    config = {"initial_learning_rate": 0.05, **SCHEDULES[name][0], **(SCHEDULES[name][1] if more else {})}
    schedule = getattr(keras.optimizers.schedules, name)(**config)
    rates(schedule, 20)


def test_schedule_of_constants():
    rates(keras.optimizers.schedules.PiecewiseConstantDecay([3, 5], [0.1, 0.2, 0.3]), 8)


def rates(schedule, number):
    """A schedule in torch has the rates that it has in Keras, in either kind of optimizer, and comes back."""
    model = network("recurrent")
    optimizer = keras.optimizers.SGD(schedule, momentum=0.5)
    optimizer.build(model.trainable_variables)
    optimizer._iterations.assign(2)
    module = bridge.to_torch(model)
    want = [float(schedule(i)) for i in range(2, number)]
    assert len(set(want)) > 1
    for p in module.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    exact = bridge.optimizer_to_torch(optimizer, model, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = bridge.optimizer_to_torch(optimizer, model, module, exact=False)
    back = bridge.optimizer_to_keras(exact, module, model)
    assert back._learning_rate.get_config() == {**schedule.get_config(), "name": back._learning_rate.name}
    found = [[], []]
    for _ in want:
        found[1].append(own.param_groups[0]["lr"])
        for one in (exact, own):
            one.step()
        own.scheduler.step()
        found[0].append(exact.param_groups[0]["lr"])
    np.testing.assert_allclose(found[0], want, rtol=2e-6)
    np.testing.assert_allclose(found[1], want, rtol=2e-6)


def test_state_dicts(tmp_path):
    """What torch saves of such an optimizer is all of it, and is read without a program."""
    model = network("convolutional")
    optimizer, data = made("Adam, averaged", model), batches(model, 2 * STEPS)
    train_keras(model, optimizer, data[:STEPS])
    module = bridge.to_torch(model)
    first = bridge.optimizer_to_torch(optimizer, model, module)
    torch.save(first.state_dict(), tmp_path / "a.pt")
    twin = bridge.to_torch(model)
    second = optimizers.Adam([{"params": [p for p in twin.parameters() if p.requires_grad]}])
    second.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    train_torch(module, first, data[STEPS:])
    train_torch(twin, second, data[STEPS:])
    for a, b in zip(module.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_training_ends_with_the_average_in_the_weights_place():
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    mine = keras.optimizers.SGD(0.125, use_ema=True, ema_momentum=0.5)
    mine.build(model.trainable_variables)
    weight = torch.from_numpy(np.asarray(model.trainable_variables[0])).clone()
    theirs = optimizers.SGD([weight], 0.125, use_ema=True, ema_momentum=0.5)
    for step in range(3):
        gradient = np.full((3, 2), step - 0.7, "float32")
        mine.apply([keras.ops.convert_to_tensor(gradient), keras.ops.zeros(2)], model.trainable_variables)
        weight.grad = torch.from_numpy(gradient)
        theirs.step()
    before = weight.clone()
    mine.finalize_variable_values(model.trainable_variables)
    theirs.finalize()
    assert not torch.equal(before, weight)
    np.testing.assert_allclose(weight, model.trainable_variables[0], rtol=1e-6)
