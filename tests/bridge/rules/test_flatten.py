"""Flatten: the rows of the Dense behind it, or a permuted tensor, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers


@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 3), (2, 4, 5, 3)])
def test_alone(check, shape):
    x = keras.Input(shape, name="x")
    _, again = check.both_ways(keras.Model(x, layers.Flatten(name="f")(x)))
    assert any(isinstance(x, layers.Flatten) for x in again.layers)


def test_rank_2_is_nothing(check):
    """torch returns the input itself, which is read again here after it."""
    y = x = keras.Input((6,), name="x")
    y = layers.ReLU()(y)
    model = keras.Model(x, layers.Add()([layers.Dense(6, name="fc")(layers.Flatten()(y)), y]))
    module, again = check.both_ways(model)
    check.same_graph(model, module, (torch.randn(2, 6),))
    assert not any(isinstance(x, layers.Flatten) for x in again.layers)


@pytest.mark.parametrize("flatten", [torch.nn.Flatten(), lambda x: x.flatten(1), lambda x: x.view(x.size(0), -1)])
def test_rank_2_is_nothing_from_torch(check, flatten):
    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flatten, self.fc = flatten, torch.nn.Linear(6, 6)

        def forward(self, x):
            y = x.relu()
            return self.fc(self.flatten(y)) + y

    x, module = torch.randn(2, 6), Module()
    model = check.to_keras(module, (x,))
    assert check.relative(model(x.numpy()), module(x).detach()) < 1e-5
    check.same_graph(model, bridge.to_torch(model), (x,))


@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 1, 1), (1, 7, 1)])
@pytest.mark.parametrize("behind", [layers.ReLU, lambda: layers.Dense(4, name="fc")])
def test_one_cell_or_one_channel_has_one_order(check, shape, behind):
    x = keras.Input(shape, name="x")
    y = layers.Conv2D(8, shape[:2], name="c")(x) if shape[2] > 1 else layers.LeakyReLU(0.25)(x)
    module, again = check.both_ways(keras.Model(x, behind()(layers.Flatten()(y))))
    assert "permute" not in inspect.getsource(type(module))
    assert not any(isinstance(x, layers.Permute) for x in again.layers)


def test_one_cell_from_torch(check):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, (9, 7)), torch.nn.Flatten())
    x = torch.randn(2, 3, 9, 7)
    model = check.to_keras(module, (x,))
    assert check.relative(model(check.to_last(x.numpy())), module(x).detach()) < 1e-5
    assert [type(x) for x in model.layers[1:]] == [layers.Conv2D, layers.Flatten]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_rows_of_dense(check, rank):
    x = keras.Input((*(5, 4, 6)[:rank], 3), name="x")
    y = getattr(layers, f"Conv{rank}D")(4, 2, name="c")(x)
    model = keras.Model(x, layers.Dense(3, name="fc")(layers.ReLU()(layers.Flatten()(y))))
    module = check.both_ways(model).module
    permutes = inspect.getsource(type(module)).count("permute")
    assert permutes == (1 if rank == 1 else 0)  # sequences enter channels-last
    kernel = np.asarray(model.get_layer("fc").kernel).T
    assert not np.array_equal(module.fc.weight.detach().numpy(), kernel)
    np.testing.assert_array_equal(np.sort(module.fc.weight.detach().numpy(), axis=1), np.sort(kernel, axis=1))


def test_rows_after_a_permutation_come_back(check):
    x = keras.Input((4, 5, 3), name="x")
    y = layers.Permute((3, 1, 2))(layers.Conv2D(4, 2, name="c")(x))
    check.both_ways(keras.Model(x, layers.Dense(3, name="fc")(layers.Flatten()(y))))


def test_two_dense_layers_read_the_rows(check):
    x = keras.Input((4, 5, 3), name="x")
    y = layers.Flatten()(layers.Conv2D(4, 2, name="c")(x))
    module = check.both_ways(keras.Model(x, [layers.Dense(3, name="a")(y), layers.Dense(2, name="b")(y)])).module
    assert "permute" not in inspect.getsource(type(module))


def test_rows_that_leave_the_model_are_as_they_were(check):
    x = keras.Input((4, 5, 3), name="x")
    y = layers.Flatten()(layers.Conv2D(4, 2, name="c")(x))
    module = check.both_ways(keras.Model(x, [layers.Dense(3, name="a")(y), y])).module
    assert "permute" in inspect.getsource(type(module))


def test_rows_for_a_norm_are_as_they_were(check):
    x = keras.Input((4, 5, 3), name="x")
    y = layers.BatchNormalization(name="n")(layers.Flatten()(layers.Conv2D(4, 2, name="c")(x)))
    check.both_ways(keras.Model(x, layers.Dense(3, name="a")(y)))


def test_one_dense_behind_two_orders(check):
    """A kernel whose rows are wanted in two orders stays as it is; the tensors are permuted."""
    x, z = keras.Input((4, 4, 4), name="x"), keras.Input((64,), name="z")
    shared = layers.Dense(3, name="fc")
    y = layers.Conv2D(4, 2, padding="same", name="c")(x)
    branches = [shared(layers.Flatten()(y)), shared(layers.Flatten()(layers.Permute((3, 2, 1))(y))), shared(z)]
    module, again = check.both_ways(keras.Model([x, z], branches))
    np.testing.assert_array_equal(module.fc.weight.detach().numpy(), np.asarray(again.get_layer("fc").kernel).T)
    check.both_ways(keras.Model([x, z], branches[2:] + branches[:2]))
    check.both_ways(keras.Model(x, branches[:2]))


def test_one_dense_behind_one_order_twice(check):
    a, b = keras.Input((4, 4, 4), name="a"), keras.Input((4, 4, 4), name="b")
    shared = layers.Dense(3, name="fc")
    conv = layers.Conv2D(4, 2, padding="same", name="c")
    module = check.both_ways(keras.Model([a, b], [shared(layers.Flatten()(conv(t))) for t in (a, b)])).module
    assert "permute" not in inspect.getsource(type(module))


@pytest.mark.parametrize("flatten", [lambda: torch.nn.Flatten(), lambda: torch.nn.Flatten(-3)])
def test_from_torch_and_back(check, flatten):
    module = (
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), flatten(), torch.nn.Dropout(0.1), torch.nn.Linear(4 * 3 * 4, 5))
        .double()
        .eval()
    )
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        want = module(x).numpy()
        model = bridge.to_keras(module, (x,))
        assert check.relative(np.asarray(model(check.to_last(x.numpy()))), want) < 1e-9
        again = bridge.to_torch(model)
        assert check.relative(again(x).numpy(), want) < 1e-9
    assert not any(isinstance(x, layers.Permute) for x in model.layers)
    np.testing.assert_array_equal(again.state_dict()["3.weight"].numpy(), module[3].weight.detach().numpy())


@pytest.mark.parametrize(
    "take",
    [
        lambda x: x[:, :, -1],
        lambda x: x[:, :, -2],
        lambda x: x[:, :, 2],
        lambda x: x[:, :, :1].squeeze(2),
        lambda x: x[:, :, -1:].flatten(1),
        lambda x: x[:, :, -1:].transpose(1, 2)[:, 0],
    ],
)
def test_one_cell_of_an_open_axis(take):
    """Of the slice before it Keras knows no size: the reader does, so that nothing is permuted on either side."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.c, self.fc = torch.nn.Conv1d(3, 6, 3), torch.nn.Linear(6, 2)

        def forward(self, x):
            return self.fc(take(self.c(x)))

    module = Network().eval()
    model = bridge.to_keras(module, (torch.randn(2, 3, 9),), [{0, 2}])
    again = bridge.to_torch(model)
    assert bridge.verify(model, module).passed and bridge.verify(model, again).passed
    assert "permute" not in inspect.getsource(type(again))


def test_refusals():
    x = keras.Input((4, 5, 3), name="x")
    with pytest.raises(bridge.BridgeError, match=r"f .Flatten.: data_format='channels_first'.*use channels_last"):
        bridge.to_torch(keras.Model(x, layers.Flatten(data_format="channels_first", name="f")(x)))
