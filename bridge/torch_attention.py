"""nn.MultiheadAttention in the words that its parts are read in.

torch makes one batch of examples and heads, splits the projections by a new axis, and leaves Dropout out in eval mode.
Here the same is said with an axis for the heads, as a transformer written by hand has it, and with the rate.
"""

import torch
import torch.nn.functional as F


def multi_head_attention(
    query,
    key,
    value,
    embed_dim_to_check,
    num_heads,
    in_proj_weight,
    in_proj_bias,
    bias_k,
    bias_v,
    add_zero_attn,
    dropout_p,
    out_proj_weight,
    out_proj_bias,
    training=True,
    key_padding_mask=None,
    need_weights=True,
    attn_mask=None,
    use_separate_proj_weight=False,
    q_proj_weight=None,
    k_proj_weight=None,
    v_proj_weight=None,
    static_k=None,
    static_v=None,
    average_attn_weights=True,
    is_causal=False,
):
    """What F.multi_head_attention_forward returns, or None for a call that is left to it.

    The tensors are (T, B, E), the result has the Dropout of training.
    """
    others = (bias_k, bias_v, static_k, static_v)
    if query.ndim != 3 or add_zero_attn or any(x is not None for x in others):
        return None
    if use_separate_proj_weight:
        weights = [q_proj_weight, k_proj_weight, v_proj_weight]
        biases = [None] * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        parts = [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]
    elif query is key is value:
        parts = F.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
    else:
        weights = in_proj_weight.chunk(3)
        biases = [None] * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        parts = [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]
    query, key, value = (x.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for x in parts)  # (B, N, T, H)
    mask = _mask(attn_mask, key_padding_mask, query)
    causal = is_causal and mask is attn_mask and not need_weights
    if not need_weights:
        made = F.scaled_dot_product_attention(query, key, value, mask, dropout_p, is_causal and key_padding_mask is None)
        weights = None
    else:
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)
        scores = scores if mask is None else scores + mask
        weights = F.dropout(scores.softmax(-1), dropout_p)
        made = weights @ value
        weights = weights.mean(1) if average_attn_weights else weights
    made = made.permute(2, 0, 1, 3).flatten(2)
    return F.linear(made, out_proj_weight, out_proj_bias), weights
