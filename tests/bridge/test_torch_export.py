"""Exporting torch modules: open sizes, flags, decisions in Python, and nothing is computed."""

import numpy as np
import pytest
import torch

import bridge
from bridge import torch_export, torch_reader

nn = torch.nn


X = torch.randn(2, 3, 6, 5)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_is_open(check, batch):
    module = nn.Sequential(check.conv(), nn.Flatten(), nn.Linear(90, 4))
    model = bridge.to_keras(module, (torch.randn(batch, 3, 6, 5),))
    assert model.input_shape == (None, 6, 5, 3) and model.output_shape == (None, 4)
    assert model(np.zeros((7, 6, 5, 3), "float32")).shape == (7, 4)


def test_open_sizes(check):
    model = bridge.to_keras(nn.Sequential(check.conv(), nn.ReLU()), (X,), [{0, 2, 3}])
    assert model.input_shape == (None, None, None, 3)
    assert model(np.zeros((1, 9, 11, 3), "float32")).shape == (1, 9, 11, 3)


@pytest.mark.parametrize("training", [True, False])
def test_training_flags_are_put_back(check, training):
    module = nn.Sequential(check.conv(), nn.Dropout(0.5), nn.BatchNorm2d(3)).train(training)
    module[2].eval()
    statistics = module[2].running_mean.clone()
    bridge.to_keras(module, (X,))
    assert [m.training for m in module.modules()] == [training, training, training, False]
    torch.testing.assert_close(module[2].running_mean, statistics, rtol=0, atol=0)
    broken = nn.Sequential(nn.Dropout(), check.module_of(lambda m, x: x if x.sum() > 0 else -x)).train(training)
    with pytest.raises(bridge.BridgeError, match=r"cannot be exported by torch.export"):
        bridge.to_keras(broken, (X,))
    assert all(m.training == training for m in broken.modules())


@pytest.mark.parametrize("inputs", [X, [X], (X, 3), ("a",)])
def test_inputs_must_be_a_tuple_of_tensors(check, inputs):
    with pytest.raises(bridge.BridgeError, match="example_inputs must be a tuple of torch tensors"):
        bridge.to_keras(nn.Sequential(check.conv()), inputs)


def test_one_tensor_may_be_the_example_of_several_inputs(check):
    x = torch.randn(2, 3)
    model = bridge.to_keras(check.module_of(lambda m, x, y, z: x + y * 2 + z * 3), (x, x, x))
    np.testing.assert_array_equal(
        model([k * np.ones((1, 1), "float32").repeat(3, 1) for k in (1, 2, 3)]), np.full((1, 3), 14)
    )


def test_any_number_of_arguments(check):
    module = check.module_of(lambda m, x, y, z: x + y * 2 + z * 3)
    model = bridge.to_keras(module, (X, X, X))
    have = model([k * check.to_last(X.numpy()) for k in (1, 2, 3)])
    assert check.relative(check.to_first(np.asarray(have)), module(X, 2 * X, 3 * X)) < 1e-6


def test_a_helper_with_another_source_is_not_taken_for_ours():
    namespace = {"torch": torch, "nn": nn, "F": nn.functional}

    class SharedDropout(nn.Dropout):
        """Not the bridge's."""

        def __init__(self, p, axes):
            super().__init__(p)
            self.axes = axes

        def forward(self, x):
            return x + len(namespace)

    assert torch_export.known_class(SharedDropout(0.5, (1,))) is None
    graph = torch_reader.read(nn.Sequential(SharedDropout(0.5, (1,))), (X,))
    assert [n.operator for n in graph.nodes] == ["add"]


def test_nothing_is_computed(check):
    """Neither for the export nor to try another batch."""
    real = []

    def function(m, x):
        real.append(not isinstance(x, torch._subclasses.FakeTensor))
        return m.c(x)

    bridge.to_keras(check.module_of(function, c=check.conv()), (X,))
    assert real and not any(real)


@pytest.mark.parametrize(
    "function, tried",
    [
        (lambda m, x, y: (m.c(x), m.c(y)), False),
        (lambda m, x, y: m.c(x) + m.c(y), True),  # rows and columns of one size
        (lambda m, x, y: m.c(x) if x.shape[2] < 100 else x, True),
        (lambda m, x, y: m.c(x) if x.shape[2] % 3 == 0 else x, True),
        (lambda m, x, y: m.c(x).reshape(2, -1), True),
    ],
)
def test_another_size_is_tried_where_something_was_asked_of_it(check, monkeypatch, function, tried):
    calls, unlifted = [], torch.export.ExportedProgram.module
    monkeypatch.setattr(torch.export.ExportedProgram, "module", lambda *a: calls.append(a) or unlifted(*a))
    try:
        torch_export.export(check.module_of(function, c=check.conv()), (X, X), [{0, 2, 3}] * 2)
    except bridge.BridgeError as e:
        assert "goes another way" in str(e)
    assert bool(calls) == tried


def test_an_error_names_the_module_that_it_is_raised_in(check):
    inner = check.module_of(lambda m, x: m.c(x) if x.sum() > 0 else x, c=check.conv())
    with pytest.raises(
        bridge.BridgeError, match=r"in 1 \(Module\), whose Python asks for the numbers in a tensor: use to"
    ):
        bridge.to_keras(torch.nn.Sequential(torch.nn.ReLU(), inner), (X,))
    wrong = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Conv2d(5, 2, 3)))
    with pytest.raises(bridge.BridgeError, match=r"with inputs of shape \(2, 3, 6, 5\), in 1.0 \(Conv2d\): "):
        bridge.to_keras(wrong, (X,))
