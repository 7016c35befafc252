"""Another project's names: the state dict has them, and the network computes the same."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import naming

layers = keras.layers
TABLE = {
    r"stage(\d)_(conv|bn)": r"layer\1.0.\2",
    r"mix(\d+)": {"kernel": r"blocks.\1.in_proj_weight", "bias": r"blocks.\1.in_proj_bias"},
    r"mix.*|head": "never",
}


def network(bias=True, calls=1):
    image = keras.Input((6, 5, 3))
    x = layers.Conv2D(4, 3, name="stage1_conv")(image)
    x = layers.BatchNormalization(name="stage1_bn")(x)
    x = layers.Reshape((12, 4))(x)
    mix = layers.Dense(4, use_bias=bias, name="mix7")
    for _ in range(calls):
        x = keras.ops.tanh(mix(x))
    return keras.Model(image, layers.Dense(2, name="head")(layers.Flatten()(x)), name="net")


def random_weights(model, seed=0):
    rng = np.random.default_rng(seed)
    for v in model.variables:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "variance" in v.name else rng.normal(0, 0.5, v.shape))
    return model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("calls", [1, 2])
def test_a_table_names_modules_and_weights(bias, calls):
    model = random_weights(network(bias, calls))
    module = bridge.to_torch(model, names=TABLE)
    expected = [f"layer1.0.{n}" for n in ("conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean")]
    expected += ["layer1.0.bn.running_var", "layer1.0.bn.num_batches_tracked", "never.weight", "never.bias"]
    expected += ["blocks.7.in_proj_weight", *(["blocks.7.in_proj_bias"] if bias else [])]
    assert sorted(module.state_dict()) == sorted(expected)
    kernel = model.get_layer("mix7").kernel.numpy()
    np.testing.assert_array_equal(module.state_dict()["blocks.7.in_proj_weight"], kernel.T)
    x = np.random.default_rng(1).normal(size=(2, 6, 5, 3)).astype("float32")
    made = module(torch.tensor(x.transpose(0, 3, 1, 2))).detach().numpy()
    assert np.ptp(made, axis=0).max() > 0.1
    np.testing.assert_allclose(made, model(x), rtol=1e-4, atol=1e-5)
    bridge.assert_equivalent(model, module)


def test_weights_by_themselves_are_trained():
    module = bridge.to_torch(random_weights(network()), names=TABLE)
    module(torch.randn(2, 3, 6, 5)).square().sum().backward()
    there = [p for name, p in module.named_parameters() if name.startswith("blocks.7")]
    assert len(there) == 2 and all(p.requires_grad and p.grad.abs().sum() > 0 for p in there)


def test_without_a_table_names_are_those_of_the_layers():
    assert "stage1_conv.weight" in bridge.to_torch(network()).state_dict()


def test_only_a_dense_layer_has_names_for_its_weights():
    with pytest.raises(bridge.BridgeError, match="net cannot be named so:\n  - stage1_conv .convolution.: the table"):
        bridge.to_torch(network(), names={"stage1_conv": {"kernel": "a", "bias": "b"}})


@pytest.mark.parametrize("name", ["a; import os", "x.__class__", '"]; evil["', "self.forward", "1.2.3", "café", ""])
def test_no_name_of_a_table_can_be_code(name):
    module = bridge.to_torch(random_weights(network()), names={"head": name})
    assert len(module.state_dict()) == 11
    module(torch.zeros(1, 3, 6, 5))


def test_the_first_pattern_that_fits_all_of_a_name_counts():
    assert naming.look_up(TABLE, "stage1_conv") == "layer1.0.conv"
    assert naming.look_up(TABLE, "stage1_conv2") == "stage1_conv2"
    assert naming.look_up(TABLE, "mixed") == "never"
    assert naming.look_up(TABLE, "mix3")["bias"] == "blocks.3.in_proj_bias"
