"""Inverse autoregressive steps with a gate (IAF: Kingma et al., 2016, https://arxiv.org/abs/1606.04934, section 4).

    z_i' = g_i z_i + (1 - g_i) m_i      g_i = sigmoid(s_i + bias)      m_i, s_i = network(z_1 ... z_(i-1), context)

As all z are there, the step is one parallel pass, and log |det| is the sum of log g; the inverse, which nobody needs to
train or to sample, would take one number after the other. The network is masked (`tfzoo.flows.autoregressive`). Of
pictures, numbers come pixel by pixel, row after row, and in a pixel channel by channel.
"""

import numpy as np
from keras import layers, ops

from tfzoo.flows.autoregressive import degrees, mask, masked
from tfzoo.layers.weight import weight

KERNEL = 3  # of a masked convolution


def step(z, context, units: tuple[int, ...], activation: str, forget_bias: float, name: str):
    """Take a step, as a part of a functional model.

    Args:
        z: `(B, K)`, or pictures `(B, H, W, K)`.
        context: What all numbers are told, `(B, N)` or `(B, H, W, N)`.
        units: Hidden units, or channels, of the network.
        activation: Of these.
        forget_bias: Of the gate; with 1 or 2 a step begins by leaving the numbers nearly as they are.
        name: In front of its layers' names.

    Returns:
        z' and log g, whose sum is log |det dz'/dz|; both like z.
    """
    count = z.shape[-1]
    apply = masked if len(z.shape) == 2 else convolution
    hidden, before = z, np.arange(1, count + 1)
    for i, width in enumerate(units):
        behind = degrees(count, width)
        hidden = apply(hidden, mask(before, behind), f"{name}_hidden{i}")
        hidden = hidden + layers.Dense(width, use_bias=False, name=f"{name}_context{i}")(context)
        hidden = layers.Activation(activation, name=f"{name}_activation{i}")(hidden)
        before = behind
    last = mask(before, np.arange(count))
    mean = apply(hidden, last, f"{name}_mean")
    logit = apply(hidden, last, f"{name}_gate", "zeros") + forget_bias
    gate = ops.sigmoid(logit)
    return gate * z + (1 - gate) * mean, -ops.softplus(-logit)


def convolution(x, kept: np.ndarray, name: str, initializer="glorot_uniform"):
    """Apply a convolution that sees the pixels before, and of its own what `kept` keeps: N channels to M."""
    kernel = np.zeros((KERNEL, KERNEL, *kept.shape), "float32")
    kernel[: KERNEL // 2] = kernel[KERNEL // 2, : KERNEL // 2] = 1
    kernel[KERNEL // 2, KERNEL // 2] = kept
    kernel = weight(x, kernel.shape, f"{name}_kernel", initializer) * kernel
    bias = weight(x, kept.shape[1:], f"{name}_bias")
    x = ops.cast(x, kernel.dtype)  # ops.conv mixes none: a mask may have made the kernel more precise
    return ops.conv(x, kernel, padding="same", data_format="channels_last") + bias
