"""A layer that changes at each of its calls is called in the same order in both frameworks."""

import keras
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bridge
from bridge import tracing


def two(m, a, b):
    """The branches go on apart, so that Keras would run them from the last to the first."""
    return torch.cat([F.relu(m.n(m.l(a))), F.relu(m.n(m.l(b)))], 1)


def one_behind_the_other(m, a, b):
    return torch.cat([m.k(F.relu(m.n(m.k(a)))), F.tanh(m.n(F.relu(m.n(b))))], 1)


def crossed(m, a, b):
    """Each layer reads what the other has made."""
    return torch.cat([F.relu(m.k(F.relu(m.n(a)))), F.relu(m.n(F.relu(m.k(b))))], 1)


def returned(m, a, b):
    first = m.n(m.l(a))
    return first, F.relu(m.n(m.l(b))), F.tanh(first)


@pytest.mark.parametrize("function", [two, one_behind_the_other, crossed, returned])
def test_from_torch(check, function):
    layers = {"l": nn.Linear(4, 4), "n": nn.BatchNorm1d(4, momentum=0.5), "k": nn.BatchNorm1d(4, momentum=0.5)}
    module = check.module_of(function, **layers)
    x = torch.randn(3, 4), torch.randn(3, 4) + 2
    check.live_torch(module, *x)
    model = check.to_keras(module, x)
    report = bridge.verify(model, module, [t.numpy() for t in x])
    assert report.passed, str(report)
    exact = bridge.to_torch(model, exact_training=True).train()
    model([t.numpy() for t in x], training=True)
    exact(*x)
    for name in ("n", "k"):
        if name in [x.name for x in model.layers]:
            have, want = exact.get_submodule(name), model.get_layer(name)
            np.testing.assert_allclose(have.running_mean, want.moving_mean, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(have.running_var, want.moving_variance, rtol=1e-5, atol=1e-6)


def test_a_model_keeps_it_in_its_file(check, tmp_path):
    module = check.module_of(two, l=nn.Linear(4, 4), n=nn.BatchNorm1d(4))
    model = bridge.to_keras(module, (torch.randn(3, 4), torch.randn(3, 4)))
    model.save(tmp_path / "model.keras")
    for x in (model, keras.models.load_model(tmp_path / "model.keras")):
        norm = x.get_layer("n")
        calls = [norm._inbound_nodes.index(n) for n in tracing.nodes(x) if n.operation is norm]
        assert calls == sorted(calls) and len(calls) == 2


def test_what_does_not_change_is_as_it_was():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    model = bridge.to_keras(module, (torch.randn(3, 4),))
    assert not any(isinstance(x, keras.layers.Identity) for x in model.layers)
