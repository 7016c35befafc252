"""Reading torch modules: sharing, open sizes, flags, views changed in place, everything wrong at once."""

import numpy as np
import pytest
import torch

import bridge
from bridge import torch_export, torch_reader

nn = torch.nn


X = torch.randn(2, 3, 6, 5)


def test_layers_go_by_their_paths(check):
    block = nn.Sequential(check.conv(), nn.ReLU())
    graph = torch_reader.read(nn.Sequential(block, nn.Sequential(block, check.conv())), (X,))
    assert [n.name for n in graph.nodes] == ["0.0", "0.1", "0.0", "0.1", "1.1"]
    assert graph.nodes[0].parameters == graph.nodes[2].parameters and len(graph.parameters) == 4
    activation = nn.Softsign()  # read as a whole, under its first name
    graph = torch_reader.read(nn.Sequential(check.conv(), activation, check.conv(), activation), (X,))
    assert [n.name for n in graph.nodes] == ["0", "1", "2", "1"]
    functional = torch_reader.read(check.module_of(lambda m, x: torch.relu(m.c(x)) + 1, c=check.conv()), (X,))
    assert [n.name for n in functional.nodes] == ["c", "", ""]


def test_parameters_have_the_names_of_the_state_dict_and_the_axes_of_keras(check):
    module = nn.Sequential(check.conv(), nn.BatchNorm2d(3))
    module[0].requires_grad_(False)
    graph = torch_reader.read(module, (X,))
    assert graph.parameters.keys() == module.state_dict().keys() - {"1.num_batches_tracked"}
    np.testing.assert_array_equal(
        graph.parameters["0.weight"].value, module[0].weight.detach().numpy().transpose(2, 3, 1, 0)
    )
    assert [p.trainable for p in graph.parameters.values()] == [False, False, True, True, False, False]


def test_the_weights_are_copied():
    module = nn.Sequential(nn.Linear(3, 3))
    model = bridge.to_keras(module, (torch.randn(2, 3),))
    before = np.array(model.layers[-1].kernel)
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(np.asarray(model.layers[-1].kernel), before)


def test_everything_wrong_is_said_at_once(check):
    inner = check.module_of(lambda m, x: torch.lgamma(x) + torch.digamma(x))
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(nn.Sequential(check.conv(), inner, nn.BatchNorm2d(3, momentum=None)), (X,))
    assert "Sequential has 3 operator(s) that cannot be carried" in str(e.value)
    assert [o.path for o in e.value.obstacles] == ["1", "1", "2"]
    assert "no rule for the operator lgamma" in str(e.value) and "digamma" in str(e.value)


def test_outputs_that_are_no_tensors_are_refused(check):
    with pytest.raises(bridge.BridgeError):
        bridge.to_keras(check.module_of(lambda m, x: (m.c(x), 3), c=check.conv()), (X,))


def test_structures_are_kept(check):
    module = check.module_of(lambda m, x, y: {"b": (m.c(x), [y * 2]), "a": x + y}, c=check.conv())
    model = bridge.to_keras(module, (X, X))
    have = model([check.to_last(X.numpy())] * 2)
    assert have.keys() == {"a", "b"} and len(have["b"]) == 2
    with torch.no_grad():
        want = module(X, X)
    assert check.relative(check.to_first(np.asarray(have["b"][0])), want["b"][0]) < 1e-5
    assert check.relative(check.to_first(np.asarray(have["b"][1][0])), want["b"][1][0]) < 1e-5


def test_run_gives_every_tensor(check):
    module = nn.Sequential(check.conv(), nn.ReLU(), nn.Flatten())
    program = torch_export.export(module, (X,))
    graph, seen = torch_reader.read(module, (X,), program=program), torch_reader.run(program, [X])
    assert all(seen[n.outputs[0].name].shape[1:] == n.outputs[0].shape[1:] for n in graph.nodes)
