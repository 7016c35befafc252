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

    def __init__(self, call=None, masks=(), opposite=False, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)
        self.call, self.masks, self.opposite = call or {}, masks, opposite

    def forward(self, x, *more):
        masks = {k: ~m if self.opposite else m for k, m in zip(self.masks, more, strict=False)}
        key, value = more if more and not masks else (x, x)
        made, weights = self.attention(x, key, value, **{"need_weights": False, **self.call, **masks})
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


def given(masks, **options):
    """A call of x and of masks."""
    return lambda: Attention({}, masks=masks, **options)


@pytest.mark.parametrize(
    "module, masks, dynamic",
    [
        (given(("key_padding_mask",)), (PADDED,), None),
        (given(("key_padding_mask",), dropout=0.2), (PADDED,), None),
        (given(("key_padding_mask",), add_bias_kv=True), (PADDED,), None),
        (given(("key_padding_mask",), add_zero_attn=True, bias=False), (PADDED * -9.0,), None),
        (given(("attn_mask",)), (LEFT_OUT,), [{0}, set()]),
        (given(("key_padding_mask", "attn_mask"), dropout=0.2), (PADDED, LEFT_OUT), [{0}, {0}, set()]),
    ],
)
def test_masks_that_flow(check, module, masks, dynamic):
    """A row that lets nothing through is 0, as F.scaled_dot_product_attention has it."""
    module, inputs = module().eval(), (X, *masks)
    model = bridge.to_keras(module, inputs, dynamic)
    report = bridge.verify(model, module, [x.numpy() for x in inputs])
    assert report.passed, str(report)
    back = bridge.to_torch(model)
    torch.testing.assert_close(back(*inputs), module(*inputs), rtol=1e-4, atol=1e-5)
    if masks[0] is PADDED:
        full = torch.ones_like(PADDED), *masks[1:]
        assert torch.isfinite(module(X, *full)).all()
        torch.testing.assert_close(back(X, *full), module(X, *full), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(module(X, *full), module(*inputs))


@pytest.mark.parametrize(
    "options", [{"add_bias_kv": True}, {"add_zero_attn": True}, {"add_bias_kv": True, "dropout": 0.3}]
)
def test_steps_that_are_added(options):
    module = Attention({"attn_mask": LEFT_OUT, "need_weights": True}, **options).eval()
    model = bridge.to_keras(module, (X,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert model(X.numpy())[1].shape == (2, 5, 6)
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_an_example_without_a_batch():
    module = Attention({"key_padding_mask": PADDED[1]}).eval()
    model = bridge.to_keras(module, (X[0],), [set()])
    report = bridge.verify(model, module, [X[0].numpy()])
    assert report.passed, str(report)


def test_what_is_refused():
    class Static(nn.MultiheadAttention):
        def forward(self, x):
            projections = self.in_proj_weight, self.in_proj_bias, None, None, False, 0.0
            more = self.out_proj.weight, self.out_proj.bias
            return nn.functional.multi_head_attention_forward(x, x, x, 12, 3, *projections, *more, static_k=x)[0]

    with pytest.raises(bridge.BridgeError, match="has static_k or static_v: give it the key and value instead"):
        bridge.to_keras(Static(12, 3), (X,))


def test_a_fault_is_seen():
    """A mask the other way round, query and key in each other's place."""
    module = Attention({}, masks=("key_padding_mask",)).eval()
    inputs = X, PADDED
    model, arrays = bridge.to_keras(module, inputs), [x.numpy() for x in inputs]
    other = Attention({}, masks=("key_padding_mask",), opposite=True).eval()
    other.load_state_dict(module.state_dict())
    assert not bridge.verify(model, other, arrays).passed
    weight = module.attention.in_proj_weight
    weight.data = torch.cat([weight.data[12:24], weight.data[:12], weight.data[24:]])
    assert not bridge.verify(model, module, arrays).passed


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
