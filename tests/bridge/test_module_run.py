"""What one run of a module records, and that it leaves no trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bridge.module_run import Run, untouched

X = torch.randn(2, 3, 6, 5)


def run(module, luck=1, told=None):
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with fakes:
        tensors = [fakes.from_tensor(X)]
    recorded = Run(module, fakes, luck, told)
    recorded(tensors)
    return recorded


def names(calls):
    return [(call.path, call.name) for call in calls]


def test_calls_go_by_the_modules_around_them():
    recorded = run(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten())))
    assert names(recorded.calls) == [("0", "conv2d"), ("1.0", "relu"), ("1.1", "flatten")]
    assert [call.places for call in recorded.calls][1] == ("", "1", "1.0")


def test_what_leads_to_an_output(check):
    module = check.module_of(lambda m, x: (m.c(x), m.d(x)), c=nn.Conv2d(3, 4, 3), d=nn.Conv2d(3, 4, 3))
    recorded = run(module)
    (_, first), (_, second) = recorded.outputs
    assert names(recorded.leading([first])) == [("c", "conv2d")]
    assert names(recorded.leading([second])) == [("d", "conv2d")]


def test_what_is_written_to_in_place_leads_there_too(check):
    module = check.module_of(lambda m, x: (y := m.c(x), y[:, 0].mul_(2))[0], c=nn.Conv2d(3, 4, 3))
    recorded = run(module)
    assert "mul_" in [call.name for call in recorded.leading([recorded.outputs[0][1]])]


def test_values_tell_what_was_computed_from_what(check):
    def forward(m, x):
        return m.c(x), m.c(x) * 1, m.c(x * 1)

    recorded = run(check.module_of(forward, c=nn.Conv2d(3, 4, 3)))
    one, two, three = (recorded.value(x) for _, x in recorded.outputs)
    again = run(recorded.module)
    assert len({one, two, three}) == 3 and [again.value(x) for _, x in again.outputs] == [one, two, three]


def test_luck_answers_where_a_number_is_asked_for(check):
    module = check.module_of(lambda m, x: x.relu() if x.sum() > 0 else x.tanh())
    assert [run(module, luck).calls[-1].name for luck in (1, 2)] == ["relu", "tanh"]
    with pytest.raises(RuntimeError, match="asks for the numbers in tensors again and again"):
        run(check.module_of(lambda m, x: [x.sum() > 0 and x for _ in range(2000)]))


def test_training_mode_is_the_runs_own():
    module = nn.Sequential(nn.Dropout(0.5)).eval()
    told = run(module)
    assert run(module, told=told).dropouts == told.dropouts == {("0", "dropout", 0): 0.5}
    assert not told.training and not module.training


def test_nothing_is_left_of_it():
    module = nn.Linear(2, 2)
    module.seen, module.count = [1], 0
    before, states = dict(vars(module)), (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state())
    with untouched(module):
        module.seen.append(2)
        module.count, module.more = 1, 2
        module.weight.requires_grad_(False)
        random.random(), np.random.rand(), torch.rand(1)
    assert vars(module) == before and module.seen == [1] and module.weight.requires_grad
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
