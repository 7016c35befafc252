"""The handwritten digits in black and white, and what simple models make of them."""

import numpy as np


def binary(part: str) -> np.ndarray:
    """Give the pictures of a part of the data, "training", "validation" or "held_out", as rows of 64 pixels 0 or 1."""
    from tfzoo.data import open

    source = open("digits", "images", seed=0)
    pictures = np.stack([example[0] for example in getattr(source, part)])
    return (pictures.reshape(len(pictures), -1) >= 128).astype("float64")


def grey(part: str) -> np.ndarray:
    """Give the same in greys of [0, 1]."""
    from tfzoo.data import open

    source = open("digits", "images", seed=0)
    pictures = np.stack([example[0] for example in getattr(source, part)])
    return pictures.reshape(len(pictures), -1) / 255


def mixture(components: int = 50, rounds: int = 200, seed: int = 0) -> float:
    """Give the log-likelihood in nats of the held-out digits by a mixture of independent pixels, trained by EM.

    Half an observation of each colour is added for each pixel of each component, or a pixel that is never set among so
    few pictures would be impossible.
    """
    x, held_out, rng = binary("training"), binary("held_out"), np.random.default_rng(seed)
    p = 0.25 + 0.5 * x[rng.choice(len(x), components, replace=False)]
    share = np.full(components, 1 / components)
    for _ in range(rounds):
        responsible = np.exp(each(x, p, share) - total(each(x, p, share))[:, None])  # (N, components)
        count = responsible.sum(0)
        p, share = (responsible.T @ x + 0.5) / (count[:, None] + 1), (count + 0.5) / (count + 0.5).sum()
    return float(total(each(held_out, p, share)).mean())


def independent() -> float:
    """Give the log-likelihood in nats of the held-out digits by independent pixels."""
    p = (binary("training").sum(0) + 0.5) / (len(binary("training")) + 1)
    return float(each(binary("held_out"), p[None], np.ones(1)).mean())


def each(x: np.ndarray, p: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Give the log-likelihood of rows and components `(N, components)`."""
    return x @ np.log(p).T + (1 - x) @ np.log1p(-p).T + np.log(share)


def total(values: np.ndarray) -> np.ndarray:
    """Give the logarithm of the sum of exponentials of each row."""
    peak = values.max(-1, keepdims=True)
    return (peak + np.log(np.exp(values - peak).sum(-1, keepdims=True)))[:, 0]


def principal(k: int) -> float:
    """Give the log-likelihood in nats of the digits for training, in greys, by probabilistic PCA of k components.

    It is the largest that any linear model with one variance for all pixels has (Tipping & Bishop, 1999).
    """
    x = grey("training")
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    variance, d = values[:-k].mean(), x.shape[1]
    return float(-(d * np.log(2 * np.pi) + np.log(values[-k:]).sum() + (d - k) * np.log(variance) + d) / 2)
