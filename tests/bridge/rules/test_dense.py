"""Dense on tensors of rank 2 to 5, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 5, 6), (3, 4, 5, 6), (None, None, 6)])
def test_ranks(check, shape, use_bias):
    x = keras.Input(shape, name="x")
    module, again = check.both_ways(keras.Model(x, layers.Dense(4, use_bias=use_bias, activation="relu", name="fc")(x)))
    kind = torch.nn.Linear if len(shape) < 3 else (torch.nn.Conv2d, torch.nn.Conv3d)[len(shape) - 3]
    assert isinstance(module.fc, kind) and (module.fc.bias is not None) == use_bias
    assert again.get_layer("fc").activation is keras.activations.relu and again.get_layer("fc").use_bias == use_bias


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_between_convolutions(check, rank):
    """Dense acts on the channels wherever the layout has put them, and nothing is permuted between."""
    x = keras.Input((*(6, 5, 7)[:rank], 3), name="x")
    convolution = getattr(layers, f"Conv{rank}D")
    y = layers.Dense(4, name="fc", activation="tanh")(convolution(5, 3, name="c1")(x))
    model = keras.Model(x, convolution(2, 3, name="c2")(y))
    module, again = check.both_ways(model)
    permutes = inspect.getsource(type(module)).count("permute")
    assert permutes == (4 if rank == 1 else 0)  # a sequence has its channels last but in convolutions
    assert [type(x) for x in again.layers if x.weights] == [convolution, layers.Dense, convolution]
    check.same_graph(model, module, (torch.randn(2, 6, 3) if rank == 1 else torch.randn(2, 3, *(6, 5, 7)[:rank]),))


def test_between_permutations_of_torch(check):
    """What torch permutes to reach the last axis, Keras has there."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c1, self.fc, self.c2 = torch.nn.Conv2d(3, 5, 3), torch.nn.Linear(5, 4), torch.nn.Conv2d(4, 2, 3)

        def forward(self, x):
            return self.c2(self.fc(self.c1(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    x, module = torch.randn(2, 3, 7, 9), Block()
    model = bridge.to_keras(module, (x,))
    assert [type(x) for x in model.layers[1:]] == [layers.Conv2D, layers.Dense, layers.Conv2D]
    assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), module(x).detach()) < 1e-5
    assert bridge.verify(model, module).passed


def test_one_layer_on_tensors_of_two_ranks(check):
    """A kernel has one shape in torch, so an image that meets the same layer as a row is permuted to it."""
    image, row = keras.Input((5, 7, 3), name="image"), keras.Input((3,), name="row")
    shared = layers.Dense(4, name="fc")
    model = keras.Model([image, row], [layers.Conv2D(2, 3, name="c")(shared(image)), shared(row)])
    module, again = check.both_ways(model)
    assert isinstance(module.fc, torch.nn.Linear) and len(again.weights) == len(model.weights)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_from_torch_and_back(check, shape, bias):
    module = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=bias)).double()
    x = torch.randn(shape, dtype=torch.float64)
    model = bridge.to_keras(module, (x,))
    with torch.no_grad():
        want = module(x).numpy()
        assert check.relative(check.to_first(np.asarray(model(check.to_last(x.numpy())))), want) < 1e-9
        assert check.relative(bridge.to_torch(model)(x).numpy(), want) < 1e-9


def test_a_frozen_bias_alone(check):
    """It is added by itself, as Keras trains a layer as a whole or not at all."""
    module = torch.nn.Sequential(torch.nn.Linear(6, 4))
    module[0].bias.requires_grad_(False)
    model = check.tied(module, torch.randn(2, 6))
    assert [w.shape for w in model.trainable_weights] == [(6, 4)]


def test_frozen(check):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, layers.Dense(2, name="b")(layers.Dense(4, trainable=False, name="a")(x)))
    module, again = check.both_ways(model)
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]
    assert [x.trainable for x in again.layers[1:]] == [False, True]


def test_behind_a_permutation_of_the_batch(check):
    """As at the end of a network for sequences: (length, batch, classes)."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.l = torch.nn.Conv1d(3, 4, 3), torch.nn.Linear(4, 5)

        def forward(self, x):
            return self.l(self.c(x).permute(2, 0, 1))

    module = Module()
    model = check.from_torch(module, torch.randn(2, 3, 7))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
