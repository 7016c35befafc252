"""Recurrent modules are one operator in an export, over any number of steps, and compute what they did."""

import pytest
import torch
from torch import nn

import bridge
from bridge import convert, torch_export, torch_recurrent
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
        torch_recurrent._of_torch(module, x)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_states_have_the_batch_of_the_sequence(kind):
    """torch's own functions do not look, and read what lies behind a state that is too small."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = kind(3, 4)

        def forward(self, x, *states):
            return self.r(x, states if kind is nn.LSTM else states[0])[0]

    states = (torch.randn(1, 2, 4),) * (1 + (kind is nn.LSTM))
    program = torch_export.export(Net().eval(), (torch.randn(5, 2, 3), *states), [{0, 1}, *[{1}] * len(states)])
    x, *given = (n.meta["val"] for n in program.graph.nodes if n.name in program.graph_signature.user_inputs)
    assert {str(s.shape[1]) for s in given} == {str(x.shape[1])} and str(x.shape[0]) != str(x.shape[1])
    with pytest.raises(RuntimeError, match="a state is"):
        torch_recurrent._of_torch(Net().r, torch.randn(5, 3, 3), states if kind is nn.LSTM else states[0])
    with pytest.raises(bridge.BridgeError, match="dynamic. names the axes"):
        bridge.to_keras(Net().eval(), (torch.randn(5, 2, 3), *states), [{1}, *[{0}] * len(states)])
