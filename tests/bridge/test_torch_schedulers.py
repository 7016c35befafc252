"""torch's schedulers go to Keras as schedules with the same rates, or are refused."""

import warnings

import keras
import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

import bridge
from tests.bridge._steps import batches as drawn
from tests.bridge._steps import in_float64, network, same, train_keras, train_torch

KINDS = {
    "StepLR": ({"step_size": 2, "gamma": 0.5}, "ExponentialDecay"),
    "MultiStepLR": ({"milestones": [2, 6], "gamma": 0.3}, "PiecewiseConstantDecay"),
    "ExponentialLR": ({"gamma": 0.8}, "ExponentialDecay"),
    "PolynomialLR": ({"total_iters": 9, "power": 2.0}, "PolynomialDecay"),
    "CosineAnnealingLR": ({"T_max": 10, "eta_min": 0.01}, "CosineDecay"),
}


def trained(name, config, **options):
    """A module that has taken four steps with a scheduler, and its Keras model."""
    model = network("recurrent")
    module = bridge.to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, **options)
    scheduler = getattr(lr_scheduler, name)(optimizer, **config)
    data = drawn(model, 8)
    for batch in data[:4]:
        train_torch(module, optimizer, [batch])
        scheduler.step()
    bridge.load_weights(model, module.state_dict())
    return model, module, optimizer, scheduler, data[4:]


@pytest.mark.parametrize("name", KINDS)
def test_the_training_goes_on(name):
    with in_float64():
        model, module, optimizer, scheduler, data = trained(name, KINDS[name][0], momentum=0.5)
        other = bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler)
        assert type(other._learning_rate).__name__ == KINDS[name][1] and int(other.iterations) == 4
        rates = []
        for batch in data:
            rates.append((float(other.learning_rate), optimizer.param_groups[0]["lr"]))
            train_keras(model, other, [batch])
            train_torch(module, optimizer, [batch])
            scheduler.step()
        np.testing.assert_allclose(*np.transpose(rates), rtol=1e-6)
        assert len(set(rates)) > 1
        same(model, module, 1e-6, 1e-6)


def test_any_other_is_written_down():
    config = {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3}
    model, module, optimizer, scheduler, _ = trained("CyclicLR", config, momentum=0.5)
    with pytest.raises(bridge.BridgeError, match="CyclicLR changes the momentum, too, .*cycle_momentum=False"):
        bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler, steps=9)
    config["cycle_momentum"] = False
    model, module, optimizer, scheduler, _ = trained("CyclicLR", config, momentum=0.5)
    with pytest.raises(bridge.BridgeError, match="Keras has no schedule for CyclicLR: give steps="):
        bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler)
    other = bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler, steps=9)
    found = [float(other._learning_rate(step)) for step in range(4, 9)]
    wanted = []
    for _ in found:
        wanted.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_scheduler_that_is_not_given_is_noticed():
    model, module, optimizer, _, _ = trained("ExponentialLR", {"gamma": 0.5})
    with pytest.raises(bridge.BridgeError, match="the optimizer has a scheduler, .*: give it as scheduler="):
        bridge.optimizer_to_keras(optimizer, module, model)


def test_one_that_is_stepped_by_the_epoch_is_refused():
    model = network("recurrent")
    module = bridge.to_torch(model)
    optimizer = torch.optim.Adam(module.parameters())
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    train_torch(module, optimizer, drawn(model, 3))
    scheduler.step()
    bridge.load_weights(model, module.state_dict())
    with pytest.raises(bridge.BridgeError, match="the scheduler has been stepped 1 times, and the optimizer 3"):
        bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler)


def test_that_of_the_bridge_comes_back():
    model = network("recurrent")
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 9)
    optimizer = keras.optimizers.SGD(schedule)
    optimizer.build(model.trainable_variables)
    module = bridge.to_torch(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = bridge.optimizer_to_torch(optimizer, model, module, exact=False)
    back = bridge.optimizer_to_keras(own, module, model, scheduler=own.scheduler)
    assert back._learning_rate.get_config()["decay_steps"] == 9


@pytest.mark.parametrize("name", ["SequentialLR", "ChainedScheduler"])
def test_several_together_are_written_down(name):
    model = network("recurrent")
    module = bridge.to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    inside = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 0.7)]
    more = {"milestones": [3]} if name == "SequentialLR" else {}
    given = (optimizer, inside) if more else (inside,)
    scheduler = getattr(lr_scheduler, name)(*given, **more)
    data, rates = drawn(model, 8), []
    for i, batch in enumerate(data):
        if i == 2:
            bridge.load_weights(model, module)
            other = bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler, steps=8)
            mine = [float(other._learning_rate(step)) for step in range(2, 8)]
        rates.append(optimizer.param_groups[0]["lr"])
        train_torch(module, optimizer, [batch])
        scheduler.step()
    np.testing.assert_allclose(mine, rates[2:], rtol=1e-6)
    assert len(set(mine)) > 4


def test_what_no_schedule_can_be():
    model = network("recurrent")
    module = bridge.to_torch(model)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    for scheduler, text in (
        (lr_scheduler.ReduceLROnPlateau(optimizer), "ReduceLROnPlateau goes by the loss"),
        (lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=9), "OneCycleLR changes the momentum, too"),
    ):
        with pytest.raises(bridge.BridgeError, match=text):
            bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler, steps=9)


def test_the_steps_of_several_are_those_of_the_first():
    """torch's SGD does not count its own."""
    model = network("recurrent")
    module = bridge.to_torch(model)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    inside = [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3), lr_scheduler.ExponentialLR(optimizer, 0.7)]
    scheduler, data = lr_scheduler.ChainedScheduler(inside), drawn(model, 6)
    for batch in data[:3]:
        train_torch(module, optimizer, [batch])
        scheduler.step()
    bridge.load_weights(model, module)
    other = bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler, steps=6)
    assert int(other.iterations) == 3
    for batch in data[3:]:
        train_torch(module, optimizer, [batch])
        train_keras(model, other, [batch])
        scheduler.step()
    same(model, module, 1e-5, 1e-5)


def test_a_rate_that_was_changed_by_hand():
    model, module, optimizer, scheduler, _ = trained("StepLR", {"step_size": 2, "gamma": 0.5}, momentum=0.5)
    optimizer.param_groups[0]["lr"] *= 0.1
    with pytest.raises(bridge.BridgeError, match="is not what StepLR has set: give steps="):
        bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler)
    other = bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler, steps=8)
    wanted = []
    for _ in range(4):
        wanted.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    np.testing.assert_allclose([float(other._learning_rate(step)) for step in range(4, 8)], wanted, rtol=1e-6)


def test_a_momentum_that_is_changed_deep_inside():
    model = network("recurrent")
    module = bridge.to_torch(model)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    cycle = lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=9)
    one = lr_scheduler.SequentialLR(optimizer, [cycle, lr_scheduler.ExponentialLR(optimizer, 0.7)], [8])
    with pytest.raises(bridge.BridgeError, match="changes the momentum, too"):
        scheduler = lr_scheduler.ChainedScheduler([one])
        bridge.optimizer_to_keras(optimizer, module, model, scheduler=scheduler, steps=9)
