"""nn.MultiheadAttention and nn.Transformer: what the bridge says in their place is what they compute."""

import keras
import pytest
import torch
from torch import nn

import bridge
from bridge.torch_attention import multi_head_attention

RANDOM = torch.Generator().manual_seed(0)
X, Y, MEMORY = (torch.randn(s, generator=RANDOM) for s in [(2, 5, 12), (2, 4, 6), (2, 4, 12)])
LEFT_OUT = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDED = torch.tensor([[False] * 5, [False, False, True, False, True]])


class Attention(nn.Module):
    """A call of nn.MultiheadAttention, batch first, of x alone or of x and others."""

    def __init__(self, call=None, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)
        self.call = call or {}

    def forward(self, x, key=None, value=None):
        key, value = (x, x) if key is None else (key, value)
        made, weights = self.attention(x, key, value, **{"need_weights": False, **self.call})
        return made if weights is None else (made, weights)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    "call",
    [
        {},
        {"average_attn_weights": False},
        {"attn_mask": LEFT_OUT},
        {"attn_mask": LEFT_OUT, "is_causal": True},
        {"attn_mask": torch.where(LEFT_OUT, -1.5, 0.3)},
        {"attn_mask": torch.randn(6, 5, 5, generator=RANDOM)},
        {"key_padding_mask": PADDED},
        {"key_padding_mask": PADDED, "attn_mask": LEFT_OUT},
        {"key_padding_mask": PADDED * -9.0, "attn_mask": torch.where(LEFT_OUT, -1.5, 0.3)},
    ],
)
def test_it_is_what_torch_computes(call, need_weights):
    attention = nn.MultiheadAttention(12, 3).eval()
    a, x = attention, X.transpose(0, 1)
    nn.init.normal_(a.in_proj_bias)
    want = attention(x, x, x, need_weights=need_weights, **call)
    projections = a.in_proj_weight, a.in_proj_bias, None, None, False, 0.0, a.out_proj.weight, a.out_proj.bias
    have = multi_head_attention(x, x, x, 12, 3, *projections, training=False, need_weights=need_weights, **call)
    torch.testing.assert_close(have, want)


@pytest.mark.parametrize(
    "module, others",
    [
        (lambda: Attention(), ()),
        (lambda: Attention({"need_weights": True}), ()),
        (lambda: Attention(bias=False), (MEMORY, MEMORY)),
        (lambda: Attention(kdim=6, vdim=6), (Y, Y)),
    ],
)
def test_attention(check, module, others):
    check.from_torch(module(), X, *others)


def test_a_layer_has_no_permutation(check):
    module = nn.TransformerEncoderLayer(12, 3, 24, dropout=0, batch_first=True)
    model = check.from_torch(module, X)
    kinds = {type(o).__name__ for o in model.operations}
    assert "DotProductAttention" in kinds and not {"Permute", "Transpose"} & kinds


@pytest.mark.parametrize("kind, others", [(nn.TransformerEncoderLayer, ()), (nn.TransformerDecoderLayer, (MEMORY,))])
def test_transformers(kind, others):
    """Trained with Dropout, of the attention too."""
    module = kind(12, 3, 24, dropout=0.2, activation="gelu", norm_first=True, batch_first=True).eval()
    model = bridge.to_keras(module, (X, *others))
    rates = [o.rate for o in model.layers if isinstance(o, keras.layers.Dropout)]
    assert rates == [0.2] * (6 if others else 4)
    assert bridge.verify(model, bridge.to_torch(model)).passed
