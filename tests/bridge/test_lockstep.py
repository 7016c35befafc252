"""Ten optimizer steps on both sides: equal where the models are, and not where only their training differs."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import lockstep

layers = keras.layers


def network():
    x = keras.Input((9, 8, 3), name="x")
    y = layers.Conv2D(4, 3, strides=2, padding="same", name="a")(x)
    y = layers.Dropout(0.5, name="drop")(layers.ReLU()(layers.BatchNormalization(name="norm")(y)))
    return keras.Model(x, [layers.Dense(3, name="fc")(layers.Flatten()(y)), layers.Conv2D(2, 1, name="b")(y)])


def test_the_losses_fall_together(check):
    model = check.randomise(network())
    before = [np.asarray(w) for w in model.weights]
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed and report.steps["losses"] < 1e-12 and report.steps["weights"] < 1e-9
    for losses in report.losses.values():
        assert len(losses) == 10 and losses[-1] < losses[0]
    assert "losses of 10 steps float64" in str(report)
    for w, b in zip(model.weights, before, strict=True):  # neither side is changed
        np.testing.assert_array_equal(np.asarray(w), b)
    assert not module.training


def test_training_of_its_own_is_seen(check):
    """A module whose gradients are right at first and whose training goes another way afterwards."""
    model = check.randomise(network())
    module = bridge.to_torch(model)

    class Decays(type(module)):
        def forward(self, x):
            if self.training and torch.is_grad_enabled():
                self.steps = getattr(self, "steps", 0) + 1
                if self.steps > 3:
                    self.a.weight.data.mul_(0.999)
            return super().forward(x)

    module.__class__ = Decays
    report = bridge.verify(model, module)
    assert [kind for kind, _ in report.failures] == ["training", "training"]
    assert "over 10 steps of SGD the losses differ" in report.failures[0][1]
    assert "weights have moved elsewhere" in report.failures[1][1] and "a.kernel by" in report.failures[1][1]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_rate_makes_small_steps(scale):
    weights, gradients = [np.full((3, 4), 2.0)], [np.full((3, 4), 5.0 * scale)]
    rate = lockstep.rate(weights, gradients)
    moved = rate * np.linalg.norm(gradients[0]) / np.linalg.norm(weights[0])
    assert 0.5e-3 < moved <= 1e-3 and np.log2(rate) == int(np.log2(rate))
    assert lockstep.rate(weights, [np.zeros((3, 4))]) > 0


def test_a_frozen_network_takes_no_steps(check):
    model = check.randomise(network())
    model.trainable = False
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and not report.losses


def test_steps_too_large_are_made_smaller(check, monkeypatch):
    """Where the loss grows, the two sides go apart from nothing but rounding."""
    monkeypatch.setattr(lockstep, "MOVE", 10.0)
    model = check.randomise(network())
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert max(report.losses["keras"]) == report.losses["keras"][0]
    smaller = report.rate
    monkeypatch.setattr(lockstep, "SMALLER", {"float64": (1,)})
    report = bridge.verify(model, module)
    assert report.rate / smaller in (16, 256, 4096) and max(report.losses["keras"]) > report.losses["keras"][0]
    assert len(report.losses["torch"]) == 10


def test_constraints_are_left_out():
    """They belong to Keras' training; the report names them."""
    x = keras.Input((7, 5, 3))
    y = keras.layers.Conv2D(4, 3, kernel_constraint="non_neg", bias_constraint=keras.constraints.MaxNorm(0.01))(x)
    model = keras.Model(x, y)
    model.layers[1].kernel.assign(np.random.default_rng(0).normal(size=(3, 3, 3, 4)))
    report = bridge.verify(model, bridge.to_torch(model))
    assert report.passed and "kernel_constraint" in str(report) + str(report.notes)
