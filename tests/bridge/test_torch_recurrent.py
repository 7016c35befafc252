"""Recurrent modules are one operator in an export, over any number of steps, and compute what they did."""

import pytest
import torch
from torch import nn

import bridge
from bridge import convert, torch_export
from bridge.torch_writer import build


def exported(module, *inputs):
    return torch_export.export(module.eval(), inputs, [{0, 1}] + [set()] * (len(inputs) - 1))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
def test_one_operator(kind, options):
    module, x = kind(3, 4, **options), torch.randn(5, 2, 3)
    program = exported(module, x)
    targets = [str(n.target) for n in program.graph.nodes if "recurrent" in str(n.target)]
    assert targets == ["bridge.recurrent.default"]
    for other in (x, torch.randn(3, 6, 3)):
        want, have = module(other), program.module()(other)
        torch.testing.assert_close(have, want)
    assert kind.forward is vars(kind)["forward"] and "bridge" not in kind.forward.__module__


@pytest.mark.parametrize("options", [{"return_state": True}, {"return_sequences": True, "reset_after": False}], ids=str)
def test_helpers(check, options):
    import keras

    x = keras.Input((None, 3))
    layer = keras.layers.Bidirectional(keras.layers.GRU(4, **options))
    model = check.randomise(keras.Model(x, layer(x, mask=x[:, :, 0] > 0)))
    module = build(convert.source(model, False))
    next(module.parameters()).requires_grad_(False)
    program = exported(module, torch.randn(2, 5, 3))
    assert sum("recurrent" in str(n.target) for n in program.graph.nodes) == 1
    x = torch.randn(3, 7, 3)
    torch.testing.assert_close(program.module()(x), module(x))
    assert [p.requires_grad for p in module.parameters()][:2] == [False, True]


@pytest.mark.parametrize(
    "x", [torch.randn(5, 3), nn.utils.rnn.pack_sequence([torch.randn(5, 3)])], ids=["rank", "pack"]
)
def test_refused(x):
    module = nn.GRU(3, 4, batch_first=True)
    with pytest.raises(bridge.BridgeError, match="GRU is given a (tensor of rank 2|packed sequence)"):
        bridge.torch_recurrent._of_torch(module, x)
