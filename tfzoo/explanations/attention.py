"""What a Vision Transformer pays attention to, as maps over its patches.

Attention rollout (Abnar & Zuidema, 2020, https://arxiv.org/abs/2005.00928): a block mixes its tokens by its attention,
averaged over the heads, and beside it hands them on, so what it takes from where is half of each,

    mixing of a block = (attention + identity) / 2,

and what the last tokens take from the patches is the product of all blocks' mixings.
"""

import re

import keras
import numpy as np

WEIGHTS = re.compile(r".*attn_weights")  # of layers: `tfzoo.vit` calls them blocks_{i}_attn_weights


def attention(model: keras.Model, images) -> np.ndarray:
    """Compute each block's attention.

    Args:
        model: A functional Vision Transformer.
        images: `(B, H, W, C)`, as the model takes them.

    Returns:
        float32 `(B, blocks, heads, n, n)`; row i is what token i takes from each, and adds up to 1.

    Raises:
        ValueError: The model has no layers of attention's weights.
    """
    names = [layer.name for layer in model.layers if WEIGHTS.fullmatch(layer.name)]
    if not names:
        raise ValueError(
            f"attention is shown of a model whose layers called *attn_weights give it, as tfzoo.vit's. Received: "
            f"{model.name}. Grad-CAM explains others"
        )
    found = keras.Model(model.input, [model.get_layer(name).output for name in names])(images, training=False)
    return np.stack([np.asarray(one, np.float32) for one in (found if isinstance(found, list) else [found])], 1)


def rollout(model: keras.Model, images) -> np.ndarray:
    """Compute what the answer takes from each patch, through all blocks.

    Args:
        model: A functional Vision Transformer; the class token, if it has one, is the first.
        images: `(B, H, W, C)`, as the model takes them.

    Returns:
        float32 `(B, h, w)` over the grid of patches, from 0 on; the shares of the class token, or where there is none
        the mean of all tokens' shares. They add up to 1, but for what the class token keeps of itself.

    Raises:
        ValueError: The model has no layers of attention's weights, or its patches are no grid.
    """
    weights = attention(model, images).mean(2)  # (B, blocks, n, n)
    tokens = weights.shape[-1]
    mixed = np.eye(tokens, dtype=np.float32)[None]
    for block in range(weights.shape[1]):
        mixed = (weights[:, block] + np.eye(tokens, dtype=np.float32)) / 2 @ mixed
    grids = [
        layer.output.shape[1:3] for layer in model.layers if len(layer.output.shape) == 4 and "embed" in layer.name
    ]
    rows, columns = grids[0] if grids else (0, 0)
    before = tokens - rows * columns
    if before not in (0, 1):
        raise ValueError(
            f"the {tokens} tokens of {model.name} must be a grid of patches and at most one more. Received: a grid of "
            f"{rows} x {columns}"
        )
    shares = mixed[:, 0, 1:] if before else mixed.mean(1)
    return shares.reshape(-1, rows, columns)
