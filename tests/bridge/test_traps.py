"""What a converter could overlook in silence: each is carried exactly, or refused with a reason."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge

layers = keras.layers
IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution whose use is up to `body`."""

    def __init__(self, body, **parts):
        super().__init__()
        self.body, self.conv = body, nn.Conv2d(3, 4, 3)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.body(self, x)


def refused(body, match, dynamic=None, **parts):
    with pytest.raises(bridge.BridgeError, match=match):
        bridge.to_keras(Net(body, **parts).eval(), (IMAGE,), dynamic)


def test_a_branch_on_an_open_size():
    def odd(net, x):
        return net.conv(F.pad(x, (0, 0, 0, 1)) if x.shape[2] % 2 else x)

    refused(odd, "goes another way for inputs of shape", [{0, 2, 3}])
    assert bridge.to_keras(Net(odd).eval(), (IMAGE,)).output_shape == (None, 8, 7, 4)  # that size alone
    refused(lambda net, x: net.conv(x) * (2 if x.shape[0] < 3 else 1), "goes another way for inputs of shape")


def test_statistics_of_the_batch_at_inference():
    def body(net, x):
        return F.batch_norm(net.conv(x), net.norm.running_mean, net.norm.running_var, training=True)

    refused(body, "normalises by the batch", norm=nn.BatchNorm2d(4))


def test_an_overridden_call():
    class Fivefold(keras.Model):
        def call(self, x, training=None, mask=None):
            return 5 * super().call(x, training=training)

    x = keras.Input((8, 8, 3))
    with pytest.raises(bridge.BridgeError, match="must be a functional"):
        bridge.to_torch(Fivefold(x, layers.Conv2D(2, 3)(x)))


@pytest.mark.parametrize("functional", [True, False])
def test_a_change_in_place_behind_a_dropout(functional):
    def body(net, x):
        y = net.conv(x)
        z = F.dropout(y, 0.5, net.training) if functional else net.drop(y)
        return y + F.relu_(z)

    refused(body, "in training it calls add on other tensors", drop=nn.Dropout(0.5))


@pytest.mark.parametrize(
    "drop",
    [
        lambda net, y: net.drop(y),
        lambda net, y: F.dropout(y, 0.5, net.training, inplace=True),
        lambda net, y: F.dropout2d(y, 0.5, net.training, inplace=True),
    ],
)
def test_a_dropout_in_place(drop):
    """Refused where its input is read again, which the graph cannot say; else it is a Dropout as any other."""
    parts = {"drop": nn.Dropout(0.5, inplace=True)}
    refused(
        lambda net, x: drop(net, y := net.conv(x)) + y,
        "in training it calls add on other tensors|dropout_ changes",
        **parts,
    )
    plain = Net(lambda net, x: F.relu(drop(net, net.conv(x))), **parts).eval()
    assert bridge.verify(bridge.to_keras(plain, (IMAGE,)), plain).passed


def test_a_skip_around_a_dropout(check):
    """In eval mode Dropout returns its input itself, and the skip must not be read as behind it."""
    net = Net(lambda net, x: net.conv(x) + net.drop(net.conv(x)) * 2, drop=nn.Dropout(0.5)).eval()
    model = bridge.to_keras(net, (IMAGE,))
    assert bridge.verify(model, net).passed
    skip = Net(lambda net, x: (y := net.conv(x)) + net.drop(y), drop=nn.Dropout(0.5)).eval()
    model = bridge.to_keras(skip, (IMAGE,))
    add = next(x for x in model.layers if isinstance(x, layers.Add))
    assert {t._keras_history.operation.name for t in add.input} == {"conv", "drop"}


def test_what_is_keras_own_in_training_is_said():
    x = keras.Input((6, 6, 3))
    y = layers.Conv2D(2, 3, kernel_regularizer="l2", kernel_constraint="non_neg", name="c")(x)
    model = keras.Model(x, y)
    module = bridge.to_torch(model)
    assert "c: kernel_regularizer belongs to Keras' training" in str(bridge.verify(model, module))
    import sys

    text = sys.modules[type(module).__module__].__doc__
    assert "Note: c: kernel_regularizer belongs to Keras' training" in text and "kernel_constraint" in text


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_the_folder_keeps_the_dtype(tmp_path, dtype):
    x = keras.Input((6, 6, 3), dtype=dtype)
    model = keras.Model(x, layers.Conv2D(2, 3, dtype=dtype, name="c")(x))
    bridge.save_torch(model, tmp_path / "out", verify=False)
    module = bridge.load_torch(tmp_path / "out", trust=True)
    assert str(module.c.weight.dtype) == f"torch.{dtype}"
    np.testing.assert_array_equal(module.c.weight.detach().numpy().transpose(2, 3, 1, 0), model.get_layer("c").kernel)


def test_quantised_layers():
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(3, name="d")(x))
    model.get_layer("d").quantize("int8")
    with pytest.raises(
        bridge.BridgeError, match="its dtype policy is int8_from_float32 .*rebuild the model with one of"
    ):
        bridge.to_torch(model)


def test_weights_without_a_place():
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(3, name="d")(x))
    model.get_layer("d").enable_lora(2)
    with pytest.raises(bridge.BridgeError, match="its weights .*lora.* have no place"):
        bridge.to_torch(model)


def test_keras_set_to_channels_first():
    net = Net(lambda net, x: net.conv(x)).eval()
    keras.config.set_image_data_format("channels_first")
    try:
        model = bridge.to_keras(net, (IMAGE,))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert bridge.verify(model, net).passed


def test_a_nested_model_with_the_name_of_its_layer(check):
    inner = keras.Sequential([layers.Conv2D(4, 3, name="encoder"), layers.ReLU()], name="encoder")
    check.both_ways(keras.Sequential([keras.Input((8, 8, 3)), inner]), same_layers=False)


def test_only_the_first_cause_is_listed():
    """What follows from an obstacle is none of its own."""

    def body(net, x):
        return F.linear(torch.lgamma(net.conv(x)), net.w.lgamma() * 2)

    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(Net(body, w=nn.Parameter(torch.randn(2, 7))).eval(), (IMAGE,))
    assert [(o.path, o.reason.split()[0]) for o in e.value.obstacles] == [("forward", "there")]


def test_a_forward_that_was_replaced():
    net = Net(lambda net, x: net.act(net.conv(x)), act=nn.Softsign()).eval()
    net.act.forward = lambda x: 2 * x
    model = bridge.to_keras(net, (IMAGE,))
    assert bridge.verify(model, net).passed
    np.testing.assert_allclose(
        model(IMAGE.permute(0, 2, 3, 1))[0], 2 * net.conv(IMAGE)[0].detach().permute(1, 2, 0), rtol=1e-4, atol=1e-5
    )


def test_weights_that_keras_cannot_hold():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    net[0].register_buffer("turns", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(bridge.BridgeError, match=r"0.turns .weight.: its dtype is torch.complex64; convert the module"):
        bridge.to_keras(net, (IMAGE,))


def test_outputs_in_a_named_tuple():
    from collections import namedtuple

    net = Net(lambda net, x: namedtuple("Outputs", "image other")(net.conv(x), x * 2)).eval()
    model = bridge.to_keras(net, (IMAGE,))
    assert bridge.verify(model, net).passed and len(model.outputs) == 2


def test_an_input_without_a_batch():
    with pytest.raises(bridge.BridgeError, match="has no batch"):
        bridge.to_keras(nn.Conv2d(3, 4, 3), (torch.randn(3, 8, 8),))


def test_dynamic_of_another_length():
    with pytest.raises(bridge.BridgeError, match=r"2 input\(s\), example_inputs has 1"):
        bridge.to_keras(nn.Conv2d(3, 4, 3), (IMAGE,), [{0}, {0}])


def test_one_linear_on_two_orders_of_a_flattened_tensor():
    def body(net, x):
        x = net.conv(x)
        return net.line(x.flatten(1)) + net.line(x.permute(0, 2, 3, 1).flatten(1))

    net = Net(body, line=nn.Linear(196, 3)).eval()
    assert bridge.verify(bridge.to_keras(net, (IMAGE,)), net).passed


def test_padding_that_pads_and_crops():
    net = Net(lambda net, x: net.conv(F.pad(x, (-1, -1, 2, 0))))
    assert bridge.verify(bridge.to_keras(net.eval(), (IMAGE,)), net).passed


@pytest.mark.parametrize(
    "flat",
    [
        lambda x: x.view(x.size(0), -1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.reshape(-1, 196),
        lambda x: torch.flatten(x, 1),
    ],
)
def test_ways_to_flatten(flat):
    net = Net(lambda net, x: net.line(flat(net.conv(x))), line=nn.Linear(196, 3)).eval()
    model = bridge.to_keras(net, (IMAGE,))
    assert any(isinstance(x, layers.Flatten) for x in model.layers)
    assert bridge.verify(model, net).passed


def test_a_reshape_that_takes_the_batch_along(check):
    net = Net(lambda net, x: net.conv(x).reshape(-1, 7)).eval()
    model = bridge.to_keras(net, (IMAGE,))
    assert check.relative(model(check.to_last(IMAGE.numpy())), net(IMAGE).detach()) < 1e-5


def test_a_frozen_model_with_a_layer_that_is_not():
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, layers.Conv2D(2, 3, name="c")(x))
    model.trainable = False
    model.get_layer("c").trainable = True
    assert not model.trainable_variables
    assert not any(p.requires_grad for p in bridge.to_torch(model).parameters())


def test_memory_is_free_when_it_is_no_longer_needed():
    """A name for every residual branch would keep all of them to the end of forward."""
    import inspect

    x = y = keras.Input((6, 6, 3))
    for i in range(3):
        y = layers.Add()([layers.Conv2D(3, 3, padding="same", name=f"c{i}")(y), y])
    source = inspect.getsource(type(bridge.to_torch(keras.Model(x, layers.ReLU()(y)))))
    assert source.count("        del ") == 2  # the caller holds the input
