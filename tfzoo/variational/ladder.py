"""The networks of a ladder of latents (Kingma et al., 2016, https://arxiv.org/abs/1606.04934, figure 3, appendix C.1).

    up      h - convolution -+- of the posterior: mean, log scale, context
                             '- convolution * scale + h                       to the level above
    down    t - convolution -+- prior: mean, log scale                        (of the highest level 0 and 0)
            t - convolution -+- the rest of the posterior: mean, log scale, context
                             '- and z - convolution * scale + t               to the level below

    start = mean + sigma * noise        z = flow(start, context), or of a sample prior mean + prior sigma * latent

The two networks share the way down. Rows of latents have the highest level first.
"""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops


def shapes(image_shape: tuple[int, int, int], latents: int, levels: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Give the shape of each level's latents, the lowest level first."""
    height, width, _ = image_shape
    scales = [i + 1 for i, count in enumerate(levels) for _ in range(count)]
    return [(height >> scale, width >> scale, latents) for scale in scales]


def channels(image_shape: tuple[int, int, int], latents: int, levels: tuple[int, ...]) -> np.ndarray:
    """Give which of a row's latents are of one channel of one level, `(K, levels * latents)` of 0 and 1."""
    sizes = shapes(image_shape, latents, levels)[::-1]
    places = np.concatenate([np.tile(np.arange(latents), h * w) + i * latents for i, (h, w, _) in enumerate(sizes)])
    return np.eye(len(sizes) * latents, dtype="float32")[places]


def ladder(
    image_shape: tuple[int, int, int],
    latents: int,
    levels: tuple[int, ...],
    width: int,
    scale: float,
    context: int,
    activation: str,
    flow: Callable,
    head: Callable,
) -> dict[str, keras.Model]:
    """Build the networks.

    Args:
        image_shape: `(H, W, C)`.
        latents: Channels of a level's latents.
        levels: How many levels there are of half the picture's size, of a quarter, and so on.
        width: Channels of the features.
        scale: Of what a level adds to them.
        context: Channels that the flow is told.
        activation: In front of each convolution.
        flow: From a level's start and context, pictures, and its number to z and the log determinant of each number.
        head: From pictures `(B, H, W, C)` to what the decoder gives.

    Returns:
        `inference`, from `image` and `noise` `(B, K)` to `start_mean`, `start_log_scale`, `start`, `log_determinant`,
        `latent`, in units of its prior, and `prior_log_scale`, all `(B, K)`, and what the decoder gives; and `decoder`,
        from `latent` to that.
    """
    sizes = shapes(image_shape, latents, levels)
    top, row = len(sizes) - 1, sum(map(math.prod, sizes))
    smaller = [i > 0 and sizes[i] != sizes[i - 1] for i in range(top + 1)]  # than the level below
    made: dict[str, layers.Layer] = {}

    def once(name: str, kind: Callable, *arguments, **options):
        """Make a layer, or give the one of this name: both networks go the same way down."""
        return made.setdefault(name, kind(*arguments, name=name, **options))

    def convolution(x, filters: int, name: str, kind: Callable = layers.Conv2D, stride: int = 1):
        x = once(f"{name}_activation", layers.Activation, activation)(x)
        return once(name, kind, filters, 3, stride, "same")(x)

    x = keras.Input((image_shape[0] // 2, image_shape[1] // 2, width), name="features")
    end = keras.Model(x, head(convolution(x, image_shape[2], "pixels", layers.Conv2DTranspose, 2)), name="picture")

    def way_down(latents_of_top, z_of: Callable) -> dict:
        """Give what the decoder gives, by what a level's z is made of: its number, the features, and its prior."""
        ones = ops.ones_like(latents_of_top[..., :1])
        t = once("first", layers.Dense, width, use_bias=False)(ones)  # a vector that is trained
        for i in reversed(range(top + 1)):
            filters = (width, latents, latents) if i < top else (width,)
            hidden, *prior = split(convolution(t, sum(filters), f"down{i}"), *filters)
            x = ops.concatenate([hidden, z_of(i, t, *prior)], -1)
            if smaller[i]:
                t = once(f"down{i}_doubled", layers.UpSampling2D)(t)
                t = t + scale * convolution(x, width, f"down{i}_residual", layers.Conv2DTranspose, 2)
            else:
                t = t + scale * convolution(x, width, f"down{i}_residual")
        return end(t)

    def pictures(numbers) -> list:
        """Cut a row of latents into the levels', the lowest first."""
        rows = split(numbers, *map(math.prod, reversed(sizes)))
        return [
            layers.Reshape(size, name=f"level{i}")(x) for i, (size, x) in enumerate(zip(sizes, rows[::-1], strict=True))
        ]

    image, noise = keras.Input(image_shape, name="image"), keras.Input((row,), name="noise")
    h, from_below = layers.Conv2D(width, 3, 2, "same", name="stem")(image), []
    for i in range(top + 1):
        filters = (latents, latents, context, width) if i < top else (latents, latents, context)
        said = split(convolution(h, sum(filters), f"up{i}", stride=1 + smaller[i]), *filters)
        from_below.append(said[:3])
        if i < top:
            h = layers.AveragePooling2D(2, name=f"up{i}_halved")(h) if smaller[i] else h
            h = h + scale * convolution(said[3], width, f"up{i}_residual")

    noises, levels_found = pictures(noise), {}

    def inferred(i: int, t, prior_mean=None, prior_log_scale=None):
        filters = (latents, latents, context)
        said = split(convolution(t, sum(filters), f"posterior{i}"), *filters)
        mean, log_scale, told = (a + b for a, b in zip(from_below[i], said, strict=True))
        start = mean + ops.exp(log_scale) * noises[i]
        z, log_determinant = flow(start, told, i)
        latent = z if i == top else (z - prior_mean) * ops.exp(-prior_log_scale)
        prior_log_scale = ops.zeros_like(z) if i == top else prior_log_scale
        levels_found[i] = (mean, log_scale, start, log_determinant, latent, prior_log_scale)
        return z

    given = way_down(noises[top], inferred)
    names = ("start_mean", "start_log_scale", "start", "log_determinant", "latent", "prior_log_scale")
    found = {
        name: layers.Concatenate(name=name)(
            [layers.Flatten(name=f"{name}{i}")(levels_found[i][k]) for i in levels_found]
        )
        for k, name in enumerate(names)
    }
    inference = keras.Model({"image": image, "noise": noise}, found | given, name="inference")

    latent = keras.Input((row,), name="latent")
    own = pictures(latent)

    def sampled(i: int, t, mean=0.0, log_scale=None):
        return own[i] if log_scale is None else mean + ops.exp(log_scale) * own[i]

    decoder = keras.Model(latent, way_down(own[top], sampled), name="decoder")
    return {"inference": inference, "decoder": decoder}


def split(x, *sizes: int) -> list:
    """Cut the last axis into pieces of these sizes."""
    return ops.split(x, np.cumsum(sizes)[:-1].tolist(), -1) if len(sizes) > 1 else [x]
