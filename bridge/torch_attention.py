"""F.multi_head_attention_forward, of nn.MultiheadAttention and nn.Transformer, in words that read well.

torch makes one axis of batch and heads, splits the projections along a new axis, and leaves Dropout out in eval mode.
Here the heads have an axis, as in a transformer that is written by hand, and Dropout is called.
"""

import inspect
from types import SimpleNamespace

import torch
import torch.nn.functional as F

SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def multi_head_attention(*arguments, **keywords):
    """What F.multi_head_attention_forward returns for (T, B, E), or None where it is left to do that itself."""
    bound = SIGNATURE.bind(*arguments, **keywords)
    bound.apply_defaults()
    a = SimpleNamespace(**bound.arguments)
    if a.query.ndim != 3 or a.add_zero_attn or any(x is not None for x in (a.bias_k, a.static_k, a.static_v)):
        return None
    query, key, value = (x.unflatten(-1, (a.num_heads, -1)).permute(1, 2, 0, 3) for x in _projected(a))  # (B, N, T, H)
    weights = None
    if a.need_weights or a.dropout_p:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (B, N, T, S)
        mask = _mask(a, query, floats=True)
        weights = (scores if mask is None else scores + mask).softmax(-1)
        weights = F.dropout(weights, a.dropout_p, a.training) if a.dropout_p else weights
        made = weights @ value
    elif a.is_causal and a.key_padding_mask is None:
        made = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    else:
        made = F.scaled_dot_product_attention(query, key, value, _mask(a, query))
    made = F.linear(made.permute(2, 0, 1, 3).flatten(2), a.out_proj_weight, a.out_proj_bias)  # (T, B, E)
    if not a.need_weights:
        return made, None
    return made, weights.mean(1) if a.average_attn_weights else weights


def _projected(a) -> tuple[torch.Tensor, ...]:
    """Query, key and value, (T, B, E)."""
    if a.query is a.key is a.value and not a.use_separate_proj_weight:
        return F.linear(a.query, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)
    separate = (a.q_proj_weight, a.k_proj_weight, a.v_proj_weight)
    weights = separate if a.use_separate_proj_weight else a.in_proj_weight.chunk(3)
    biases = [None] * 3 if a.in_proj_bias is None else a.in_proj_bias.chunk(3)
    return tuple(F.linear(x, w, b) for x, w, b in zip((a.query, a.key, a.value), weights, biases, strict=True))


def _mask(a, query, floats: bool = False) -> torch.Tensor | None:
    """Both masks in one for F.scaled_dot_product_attention, (B, N, T, S); here True is what is left out."""
    masks = [None if a.key_padding_mask is None else a.key_padding_mask[:, None, None], a.attn_mask]
    if a.attn_mask is not None and a.attn_mask.ndim == 3:
        masks[1] = a.attn_mask.unflatten(0, (-1, a.num_heads))
    masks = [m for m in masks if m is not None]
    if masks and not floats and all(m.dtype == torch.bool for m in masks):
        return ~(masks[0] | masks[1] if masks[1:] else masks[0])
    masks = [torch.where(m, -torch.inf, 0.0).to(query.dtype) if m.dtype == torch.bool else m for m in masks]
    return masks[0] + masks[1] if masks[1:] else masks[0] if masks else None
