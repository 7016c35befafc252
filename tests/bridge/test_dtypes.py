"""Dtype policies: half precision, mixed, several in one network, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch

import bridge

layers = keras.layers


def network(policies, extra=()):
    """A convolutional network whose layers have these policies in turn."""
    policies = iter(policies * 20)

    def policy():
        return {"dtype": keras.DTypePolicy(next(policies))}

    x = y = keras.Input((9, 8, 4), name="x")
    y = layers.Conv2D(6, 3, padding="same", strides=2, activation="relu", name="c", **policy())(y)
    y = layers.BatchNormalization(name="norm", **policy())(y)
    y = layers.DepthwiseConv2D(3, padding="same", name="d", **policy())(y)
    y = layers.LayerNormalization(name="ln", **policy())(y)
    for layer in extra:
        y = layer(**policy())(y)
    y = layers.GlobalAveragePooling2D(name="pool", **policy())(y)
    return keras.Model(x, layers.Dense(3, name="fc", **policy())(y), name="net")


LIMITS = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}


@pytest.mark.parametrize("size", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["", "mixed_"])
def test_one_policy(check, size, kind):
    model = check.randomise(network([kind + size]))
    module = bridge.to_torch(model)
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")
    want = np.asarray(model(x)).astype("float64")
    tensor = torch.from_numpy(check.to_first(x)).to(getattr(torch, model.inputs[0].dtype))
    have = module(tensor)
    assert have.dtype == getattr(torch, size)
    assert np.abs(have.detach().double().numpy() - want).max() < LIMITS[size] * np.abs(want).max()
    held = {p.dtype for p in module.parameters()}
    assert held == {torch.float32 if kind else getattr(torch, size)}
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert report.figures()["forward float64"] < 1e-9
    again = bridge.to_keras(module, (tensor,))
    assert again.get_layer("c").dtype_policy.name == kind + size
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a).astype("float64"), np.asarray(b).astype("float64"))
    assert bridge.verify(again, module).passed


def test_the_gradient_reaches_the_weights(check):
    """The weights of a mixed network are float32, and so are their gradients."""
    model = check.randomise(network(["mixed_bfloat16"]))
    module = bridge.to_torch(model).train()
    module(torch.randn(4, 4, 9, 8)).float().square().sum().backward()
    assert all(
        p.grad is not None and p.grad.dtype == torch.float32 and p.grad.any() for p in module.parameters() if p.ndim > 1
    )
    assert "in_dtype(self.c, torch.bfloat16, " in inspect.getsource(type(module))
    torch.compile(module, backend="eager", fullgraph=True)(torch.randn(4, 4, 9, 8))


def test_several_in_one(check):
    """A head in float64, a softmax in float32: what flows is converted where the layers convert it."""
    model = check.randomise(network(["mixed_bfloat16", "mixed_bfloat16", "float64", "float32"]))
    module = bridge.to_torch(model)
    held = {k: p.dtype for k, p in module.named_parameters()}
    assert held["d.weight"] == torch.float64 and held["ln.weight"] == held["c.weight"] == torch.float32
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")
    have = module(torch.from_numpy(check.to_first(x))).detach().double().numpy()
    want = np.asarray(model(x)).astype("float64")
    assert np.abs(have - want).max() < LIMITS["bfloat16"] * np.abs(want).max()
    assert bridge.verify(model, module).passed


def test_the_folder(check, tmp_path):
    for policy in ("bfloat16", "mixed_float16"):
        model = check.randomise(network([policy]))
        report = bridge.save_torch(model, tmp_path / policy)
        assert report.passed
        module = bridge.load_torch(tmp_path / policy, trust=True)
        assert module.fc.weight.dtype == (torch.bfloat16 if policy == "bfloat16" else torch.float32)


def test_half_precision_of_torch(check):
    for dtype in (torch.bfloat16, torch.float16):
        module = (
            torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).to(dtype).eval()
        )
        x = torch.randn(2, 3, 7, 5).to(dtype)
        model = bridge.to_keras(module, (x,))
        name = str(dtype).removeprefix("torch.")
        assert model.get_layer("0").dtype_policy.name == name
        have = np.asarray(model(check.to_last(x.double().numpy()).astype("float32"))).astype("float64")
        assert check.relative(check.to_first(have), module(x).double().detach()) < LIMITS[name]
        assert bridge.verify(model, module).passed


def test_what_is_refused(check):
    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(4, 3).half()

        def forward(self, x):
            return torch.nn.functional.linear(x, self.fc.weight.float())

    with pytest.raises(bridge.BridgeError, match="computes in float32 with weights of float16; keep its weights"):
        bridge.to_keras(Wide(), (torch.randn(2, 4),))
