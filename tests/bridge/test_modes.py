"""Layers whose `call` does something else in training mode."""

import keras
import numpy as np
import pytest
import torch

import bridge

layers, ops = keras.layers, keras.ops


class Noisy(layers.Layer):
    """A layer of layers that adds noise, and drops, in training."""

    def build(self, shape):
        self.dense, self.drop = layers.Dense(shape[-1], name="dense"), layers.Dropout(0.3, name="drop")
        self.norm = layers.BatchNormalization(name="norm")
        for part in (self.dense, self.norm):
            part.build(shape)
        self.scale = self.add_weight(shape=(shape[-1],), name="scale", initializer="ones")

    def call(self, x, training=None):
        y = self.norm(self.dense(x), training=training)
        if training:
            y = self.drop(y + self.scale * keras.random.normal(ops.shape(y)), training=True)
        return ops.tanh(y)


class Straight(layers.Layer):
    """Whole numbers in inference, and the numbers themselves in training."""

    def call(self, x, training=False):
        return x if training else ops.round(x)


class Estimator(layers.Layer):
    """Rounding whose gradient is that of doing nothing, in either mode (Bengio et al., 2013)."""

    def call(self, x, training=False):
        return x + ops.stop_gradient(ops.round(x) - x)


def network(check, layer):
    x = keras.Input((6,), name="x")
    return check.randomise(keras.Model(x, layers.Dense(3, name="head")(layer(layers.Dense(4, name="first")(x)))))


@pytest.mark.parametrize("layer", [Noisy, Straight, Estimator])
def test_both_modes(check, layer):
    model = network(check, layer(name="own"))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert sum(map(torch.Tensor.numel, module.parameters())) == sum(
        int(np.prod(w.shape)) for w in model.trainable_weights
    )
    x = torch.randn(64, 6)
    same = torch.equal(module.eval()(x), module.train()(x))
    assert same == (layer is Estimator)


def test_what_both_modes_do_is_done_once(check):
    module = bridge.to_torch(network(check, Noisy(name="own")))
    calls = []
    module.own.dense.register_forward_hook(lambda *_: calls.append(1))
    module.train()(torch.randn(4, 6))
    assert len(calls) == 1
    assert int(module.own.norm.num_batches_tracked) == 1


def test_the_wrong_mode_is_told(check):
    model = network(check, Straight(name="own"))
    module = bridge.to_torch(model)
    mode = next(m for m in module.modules() if type(m).__name__ == "ByMode")
    mode.forward = lambda told, trained: trained if not mode.training else told
    assert not bridge.verify(model, module).passed


def test_refused(check):
    class Shapes(layers.Layer):
        def call(self, x, training=False):
            return x[:, :2] if training else x

    class Idle(layers.Layer):
        def build(self, shape):
            self.norm = layers.BatchNormalization(name="norm")
            self.norm.build(shape)

        def call(self, x, training=False):
            return x if training else self.norm(x)

    x = keras.Input((4,), name="x")
    for layer, text in ((Shapes(), "other tensors in training mode"), (Idle(), "calls norm in inference alone")):
        with pytest.raises(bridge.BridgeError, match=text):
            bridge.to_torch(keras.Model(x, layer(x)))
    module = bridge.to_torch(network(check, Straight()))
    with pytest.raises(bridge.BridgeError, match="it does something else in training mode"):
        bridge.to_keras(module, (torch.randn(2, 6),))


class DropPath(layers.Layer):
    """Stochastic depth of one's own."""

    def call(self, x, training=None):
        if training:
            keep = ops.floor(0.8 + keras.random.uniform((ops.shape(x)[0], 1)))
            return x * keep / 0.8
        return x


class Residual(layers.Layer):
    """A layer that hands its mode on by name, and adds to the loss."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.drop = layers.Dense(4, name="dense"), DropPath(name="drop")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x, training=None):
        y = self.dense(x)
        self.add_loss(ops.mean(ops.square(y)))
        return x + self.drop(y, training=training)


def test_a_mode_that_is_handed_on(check):
    model = network(check, Residual(name="own"))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert any("own: add_loss belongs to Keras' training" in note for note in report.notes)
    assert not torch.equal(module.eval()(x := torch.randn(64, 6)), module.train()(x))
