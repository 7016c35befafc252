"""torch's spectral_norm in either of its forms, and what becomes of its vectors in Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import bridge

CONV = torch.randn(3, 3, 5, 6, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
NORMS = {"parametrization": parametrizations.spectral_norm, "hook": nn.utils.spectral_norm}


def lived(module, x):
    """A module whose vectors have seen training, and whose weight has moved since, as after a step."""
    module.train()
    for _ in range(2):
        module(x)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    return module.eval()


@pytest.mark.parametrize(
    "norm, make, x, options",
    [
        (
            "parametrization",
            lambda: nn.Conv2d(3, 4, (2, 3), 2, bias=False),
            CONV,
            {"n_power_iterations": 3, "eps": 1e-3},
        ),
        ("parametrization", lambda: nn.Conv1d(3, 4, 2), CONV[:, :, 0], {"dim": 1}),
        ("parametrization", lambda: nn.Linear(5, 4), ROWS, {}),
        ("hook", lambda: nn.Conv2d(3, 4, 3, padding=1), CONV, {"n_power_iterations": 2}),
        ("hook", lambda: nn.Conv3d(3, 2, 2), CONV[..., None].repeat(1, 1, 1, 1, 2), {"dim": 1}),
        ("hook", lambda: nn.Linear(5, 4, bias=False), ROWS, {"eps": 1e-4}),
    ],
    ids=["2-new", "1-new", "dense-new", "2-old", "3-old", "dense-old"],
)
def test_layers(norm, make, x, options):
    """verify trains ten steps, in each of which the vectors go on: outputs, gradients, vectors and losses agree."""
    module = lived(nn.Sequential(NORMS[norm](make(), **options), nn.Tanh()), x)
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert report.layers and report.gradients and report.steps
    again = bridge.to_torch(model)
    report = bridge.verify(model, again)
    assert report.passed, str(report)
    mine, theirs = ({tuple(t.flatten().tolist()) for t in m.state_dict().values()} for m in (again, module))
    assert mine == theirs


def test_a_state_dict_of_a_parametrization_loads_into_what_comes_back(tmp_path):
    module = lived(nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))), CONV)
    model = bridge.to_keras(module, (CONV,))
    model.save(tmp_path / "model.keras")
    again = bridge.to_torch(keras.models.load_model(tmp_path / "model.keras"))
    again.load_state_dict(module.state_dict(), strict=True)
    torch.testing.assert_close(again.eval()(CONV), module(CONV))


@pytest.mark.parametrize("norm", NORMS)
def test_fit_follows_torch(norm, tmp_path):
    """Compiled training, where what is read must be read before what is written; then saved, loaded and evaluated."""
    x, y = CONV.repeat(4, 1, 1, 1), torch.randn(12, 4, generator=torch.Generator().manual_seed(2))
    layers = NORMS[norm](nn.Conv2d(3, 4, 3)), NORMS[norm](nn.Linear(48, 4))
    module = nn.Sequential(layers[0], nn.LeakyReLU(0.1), nn.Flatten(), layers[1])
    model = bridge.to_keras(lived(module, x), (x,))
    model.compile(keras.optimizers.SGD(0.25), "mse")
    model.fit(np.moveaxis(x.numpy(), 1, -1), y.numpy(), batch_size=4, epochs=2, shuffle=False, verbose=0)
    optimizer = torch.optim.SGD(module.train().parameters(), 0.25)
    for step in range(6):
        at = slice(4 * (step % 3), 4 * (step % 3) + 4)
        optimizer.zero_grad()
        F.mse_loss(module(x[at]), y[at]).backward()
        optimizer.step()
    model.save(tmp_path / "model.keras")
    trained = keras.models.load_model(tmp_path / "model.keras")
    want = module.eval()(x).detach().numpy()
    np.testing.assert_allclose(trained.predict(np.moveaxis(x.numpy(), 1, -1), verbose=0), want, rtol=2e-4, atol=2e-5)


def test_two_calls_iterate_twice():
    """One layer that is used twice goes on at each use, in either framework."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = parametrizations.spectral_norm(nn.Linear(5, 5))

        def forward(self, x):
            return self.layer(torch.tanh(self.layer(x)))

    module = lived(Twice(), ROWS)
    model = bridge.to_keras(module, (ROWS,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_frozen_weights_iterate_too():
    module = lived(nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 4)), nn.Linear(4, 2)), ROWS)
    for p in module[0].parameters():
        p.requires_grad_(False)
    report = bridge.verify(bridge.to_keras(module, (ROWS,)), module)
    assert report.passed, str(report)


def test_vectors_that_stand_still_are_found():
    """The seeded fault: inference agrees, training does not."""
    module = lived(nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 4))), ROWS)
    model = bridge.to_keras(module, (ROWS,))
    other = next(layer for layer in model.layers if isinstance(layer, keras.Model))
    other.get_layer("v").renorm_mean.assign(tf.random.stateless_normal([5], [0, 1]))
    report = bridge.verify(model, module)
    assert not report.passed and "renorm_mean: the weights differ" in str(report)
    other.trainable = False
    with pytest.raises(bridge.BridgeError, match="it is frozen: its vectors stand still in training, too"):
        bridge.to_torch(model)


def test_a_weight_of_one_axis_is_divided_by_its_norm():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5))

        def forward(self, x):
            return x * self.weight

    module = nn.Sequential(parametrizations.spectral_norm(Scale()))
    report = bridge.verify(bridge.to_keras(module, (ROWS,)), module)
    assert report.passed, str(report)
