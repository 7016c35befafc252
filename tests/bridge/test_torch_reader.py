"""Reading torch modules: sharing, open sizes, flags, views changed in place, everything wrong at once."""

import numpy as np
import pytest
import torch

import bridge
from bridge import torch_export, torch_reader

nn = torch.nn


def module_of(function, **children):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in children.items():
                setattr(self, name, child)

        def forward(self, *x):
            return function(self, *x)

    return Module()


def conv():
    return nn.Conv2d(3, 3, 3, padding=1)


X = torch.randn(2, 3, 6, 5)


def test_layers_go_by_their_paths():
    block = nn.Sequential(conv(), nn.ReLU())
    graph = torch_reader.read(nn.Sequential(block, nn.Sequential(block, conv())), (X,))
    assert [n.name for n in graph.nodes] == ["0.0", "0.1", "0.0", "0.1", "1.1"]
    assert graph.nodes[0].parameters == graph.nodes[2].parameters and len(graph.parameters) == 4
    activation = nn.Softsign()  # read as a whole, under its first name
    graph = torch_reader.read(nn.Sequential(conv(), activation, conv(), activation), (X,))
    assert [n.name for n in graph.nodes] == ["0", "1", "2", "1"]
    functional = torch_reader.read(module_of(lambda m, x: torch.relu(m.c(x)) + 1, c=conv()), (X,))
    assert [n.name for n in functional.nodes] == ["c", "", ""]


def test_parameters_have_the_names_of_the_state_dict_and_the_axes_of_keras():
    module = nn.Sequential(conv(), nn.BatchNorm2d(3))
    module[0].requires_grad_(False)
    graph = torch_reader.read(module, (X,))
    assert graph.parameters.keys() == module.state_dict().keys() - {"1.num_batches_tracked"}
    np.testing.assert_array_equal(
        graph.parameters["0.weight"].value, module[0].weight.detach().numpy().transpose(2, 3, 1, 0)
    )
    assert [p.trainable for p in graph.parameters.values()] == [False, False, True, True, False, False]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_is_open(batch):
    module = nn.Sequential(conv(), nn.Flatten(), nn.Linear(90, 4))
    model = bridge.to_keras(module, (torch.randn(batch, 3, 6, 5),))
    assert model.input_shape == (None, 6, 5, 3) and model.output_shape == (None, 4)
    assert model(np.zeros((7, 6, 5, 3), "float32")).shape == (7, 4)


def test_open_sizes():
    model = bridge.to_keras(nn.Sequential(conv(), nn.ReLU()), (X,), [{0, 2, 3}])
    assert model.input_shape == (None, None, None, 3)
    assert model(np.zeros((1, 9, 11, 3), "float32")).shape == (1, 9, 11, 3)


@pytest.mark.parametrize("training", [True, False])
def test_training_flags_are_put_back(training):
    module = nn.Sequential(conv(), nn.Dropout(0.5), nn.BatchNorm2d(3)).train(training)
    module[2].eval()
    statistics = module[2].running_mean.clone()
    bridge.to_keras(module, (X,))
    assert [m.training for m in module.modules()] == [training, training, training, False]
    torch.testing.assert_close(module[2].running_mean, statistics, rtol=0, atol=0)
    broken = nn.Sequential(nn.Dropout(), module_of(lambda m, x: x if x.sum() > 0 else -x)).train(training)
    with pytest.raises(bridge.BridgeError, match=r"cannot be exported by torch.export"):
        bridge.to_keras(broken, (X,))
    assert all(m.training == training for m in broken.modules())


def test_the_weights_are_copied():
    module = nn.Sequential(nn.Linear(3, 3))
    model = bridge.to_keras(module, (torch.randn(2, 3),))
    before = np.array(model.layers[-1].kernel)
    with torch.no_grad():
        module[0].weight.zero_()
    np.testing.assert_array_equal(np.asarray(model.layers[-1].kernel), before)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x.relu_() + x,
        lambda m, x: (lambda y: y.add_(1) * y)(x * 2),
        lambda m, x: (lambda y: y.permute(0, 2, 3, 1).add_(1))(x * 2),  # the tensor itself is not read again
    ],
)
def test_changes_in_place(check, function):
    module = module_of(lambda m, x: function(m, m.c(x)), c=conv()).double()
    x = X.double()
    with torch.no_grad():
        want = module(x).numpy()
    have = np.asarray(bridge.to_keras(module, (x,))(check.to_last(x.numpy())))
    assert check.relative(check.to_first(have), want) < 1e-9


def through_a_view(m, x):
    y = x * 2
    y.permute(0, 2, 3, 1).add_(1)
    return y


def through_two_views(m, x):
    y = x * 2
    a, b = y.transpose(1, 2), y.transpose(2, 3)
    a.relu_()
    return b


@pytest.mark.parametrize("function", [through_a_view, through_two_views])
def test_changes_through_another_view_are_refused(function):
    with pytest.raises(
        bridge.BridgeError, match="changes in place a tensor that is read again through another view; use the operation"
    ):
        bridge.to_keras(module_of(function), (X,))


def test_everything_wrong_is_said_at_once():
    inner = module_of(lambda m, x: torch.lgamma(x) + torch.digamma(x))
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(nn.Sequential(conv(), inner, nn.BatchNorm2d(3, momentum=None)), (X,))
    assert "Sequential has 3 operator(s) that cannot be carried" in str(e.value)
    assert [o.path for o in e.value.obstacles] == ["1", "1", "2"]
    assert "no rule for the operator lgamma" in str(e.value) and "digamma" in str(e.value)


@pytest.mark.parametrize("inputs", [X, [X], (X, 3), ("a",)])
def test_inputs_must_be_a_tuple_of_tensors(inputs):
    with pytest.raises(bridge.BridgeError, match="example_inputs must be a tuple of torch tensors"):
        bridge.to_keras(nn.Sequential(conv()), inputs)


def test_outputs_that_are_no_tensors_are_refused():
    with pytest.raises(bridge.BridgeError):
        bridge.to_keras(module_of(lambda m, x: (m.c(x), 3), c=conv()), (X,))


def test_structures_are_kept(check):
    module = module_of(lambda m, x, y: {"b": (m.c(x), [y * 2]), "a": x + y}, c=conv())
    model = bridge.to_keras(module, (X, X))
    have = model([check.to_last(X.numpy())] * 2)
    assert have.keys() == {"a", "b"} and len(have["b"]) == 2
    with torch.no_grad():
        want = module(X, X)
    assert check.relative(check.to_first(np.asarray(have["b"][0])), want["b"][0]) < 1e-5
    assert check.relative(check.to_first(np.asarray(have["b"][1][0])), want["b"][1][0]) < 1e-5


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


def test_one_tensor_may_be_the_example_of_several_inputs(check):
    x = torch.randn(2, 3)
    model = bridge.to_keras(module_of(lambda m, x, y, z: x + y * 2 + z * 3), (x, x, x))
    np.testing.assert_array_equal(
        model([k * np.ones((1, 1), "float32").repeat(3, 1) for k in (1, 2, 3)]), np.full((1, 3), 14)
    )


def test_any_number_of_arguments(check):
    module = module_of(lambda m, x, y, z: x + y * 2 + z * 3)
    model = bridge.to_keras(module, (X, X, X))
    have = model([k * check.to_last(X.numpy()) for k in (1, 2, 3)])
    assert check.relative(check.to_first(np.asarray(have)), module(X, 2 * X, 3 * X)) < 1e-6


def test_run_gives_every_tensor():
    module = nn.Sequential(conv(), nn.ReLU(), nn.Flatten())
    program = torch_export.export(module, (X,))
    graph, seen = torch_reader.read(module, (X,), program=program), torch_reader.run(program, [X])
    assert all(seen[n.outputs[0].name].shape[1:] == n.outputs[0].shape[1:] for n in graph.nodes)


def test_nothing_is_computed():
    """Neither for the export nor to try another batch."""
    real = []

    def function(m, x):
        real.append(not isinstance(x, torch._subclasses.FakeTensor))
        return m.c(x)

    bridge.to_keras(module_of(function, c=conv()), (X,))
    assert real and not any(real)
