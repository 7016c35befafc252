"""F.multi_head_attention_forward, of nn.MultiheadAttention and nn.Transformer, in words that read well.

torch makes one axis of batch and heads, splits the projections along a new axis, and leaves Dropout out in eval mode.
Here the heads have an axis, as in a transformer that is written by hand, and Dropout is called.
"""

import inspect
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from bridge.graph import BridgeError

SIGNATURE = inspect.signature(F.multi_head_attention_forward)


def multi_head_attention(*arguments, **keywords):
    """What F.multi_head_attention_forward returns for (T, B, E) or (T, E)."""
    bound = SIGNATURE.bind(*arguments, **keywords)
    bound.apply_defaults()
    a = SimpleNamespace(**bound.arguments)
    if a.static_k is not None or a.static_v is not None:
        raise BridgeError("F.multi_head_attention_forward has static_k or static_v: give it the key and value instead")
    if a.query.ndim == 2:
        more = {k: getattr(a, k).unsqueeze(1) for k in ("query", "key", "value")}
        padding = None if a.key_padding_mask is None else a.key_padding_mask[None]
        made, weights = multi_head_attention(**{**vars(a), **more, "key_padding_mask": padding})
        return made.squeeze(1), None if weights is None else weights.squeeze(0)
    tensors = _with_more(a, *_projected(a))
    query, key, value = (x.unflatten(-1, (a.num_heads, -1)).permute(1, 2, 0, 3) for x in tensors)  # (B, N, T, H)
    weights = None
    if a.need_weights or a.dropout_p:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (B, N, T, S)
        # without weights torch has 0 where a row lets nothing through, which padding alone may do
        zeroed = not a.need_weights and a.key_padding_mask is not None
        mask = _mask(a, query, floats=not zeroed)
        zeroed = zeroed and mask.dtype == torch.bool
        if zeroed:
            scores = torch.where(mask, scores, -3e4 if scores.dtype == torch.float16 else -1e9)
        elif mask is not None:
            scores = scores + mask
        weights = scores.softmax(-1)
        weights = F.dropout(weights, a.dropout_p, a.training) if a.dropout_p else weights
        made = weights @ value
        made = made * mask.to(made.dtype).amax(-1, keepdim=True) if zeroed else made
    elif a.is_causal and a.key_padding_mask is None and key.shape[2] == a.key.shape[0]:
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


def _with_more(a, query, key, value) -> tuple[torch.Tensor, ...]:
    """Query, key and value, the latter two with a step more that is learned, or is 0; all may attend to it."""
    more = [] if a.bias_k is None else [(a.bias_k, a.bias_v)]
    more += [(torch.zeros_like(key[:1]), torch.zeros_like(value[:1]))] if a.add_zero_attn else []
    for steps in more:
        key, value = (torch.cat([x, m.expand(1, *x.shape[1:])]) for x, m in zip((key, value), steps, strict=True))
        for name in ("attn_mask", "key_padding_mask"):
            if (mask := getattr(a, name)) is not None:
                setattr(a, name, F.pad(mask, (0, 1)))
    return query, key, value


def canonical_mask(mask, *arguments, **keywords):
    """F._canonical_mask, which makes numbers of booleans, and of a row that lets nothing through no number at all."""
    return mask


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
