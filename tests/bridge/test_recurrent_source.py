"""The classes for recurrent layers compute what torch's own modules do, where these have it."""

import pytest
import torch
from torch import nn

from bridge.recurrent_source import HELPERS
from bridge.torch_recurrent import HEADER
from bridge.torch_writer import execute

KINDS = {"LSTM": {}, "GRU": {}, "RNN": {"nonlinearity": "relu"}}


@pytest.fixture(scope="module")
def source():
    import textwrap

    return execute(HEADER + "\n\n".join(textwrap.dedent(text).strip() for text in HELPERS.values()))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_as_torch_has_it(source, kind, bidirectional):
    torch.manual_seed(0)
    own = getattr(nn, kind)(3, 4, batch_first=True, bidirectional=bidirectional, **KINDS[kind])
    whole = getattr(source, f"Keras{kind}")(3, 4, bidirectional=bidirectional, **KINDS[kind])
    options = {"activation": "ReLU"} if kind == "RNN" else {}
    steps = source.Recurrent(kind, 3, 4, bidirectional=bidirectional, **options)
    weights = own.state_dict() if kind == "GRU" else {k: v * ("bias_hh" not in k) for k, v in own.state_dict().items()}
    own.load_state_dict(weights)
    whole.load_state_dict(weights)
    steps.load_state_dict({k: v for k, v in weights.items() if kind == "GRU" or "bias_hh" not in k})
    x, ways = torch.randn(2, 5, 3), 1 + bidirectional
    states = [torch.randn(2, 4) for _ in range(ways * (1 + (kind == "LSTM")))]
    given = (torch.stack(states[::2]), torch.stack(states[1::2])) if kind == "LSTM" else torch.stack(states)
    y, last = own(x, given)
    last = [s for pair in zip(*last, strict=True) for s in pair] if kind == "LSTM" else list(last)
    for made in (whole(x, states), steps(x, states), steps(x, states, torch.ones(2, 5, dtype=torch.bool))):
        for have, want in zip(made, (y, *last), strict=True):
            torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("zero_masked", [False, True])
def test_a_masked_step_keeps_the_states(source, zero_masked):
    module, x = source.Recurrent("LSTM", 3, 4, zero_masked=zero_masked), torch.randn(2, 4, 3)
    mask = torch.tensor([[False, True, False, True], [True, True, False, False]])
    y, h, c = module(x, (), mask)
    first = module(x[:1, [1, 3]])  # the steps that count, one after the other
    torch.testing.assert_close(y[0, [1, 3]], first[0][0])
    torch.testing.assert_close(torch.stack([h[0], c[0]]), torch.stack([s[0] for s in first[1:]]))
    assert not y[0, 0].any() and torch.equal(y[0, 2], torch.zeros(4) if zero_masked else y[0, 1])
