"""Which pixels an interpolation takes along one axis, and with which weights: NumPy, as the frameworks work them out.

"nearest" takes the pixel in which a place lies; its places are worked out in float32, so that rounding belongs to the
result. "cubic" is torch's, of four pixels, the border's repeated. The places follow a rule, "half_pixel", "asymmetric"
or "align_corners", and what the sizes say or a factor that is not quite that.
"""

import math
from collections.abc import Iterator

import numpy as np

from bridge.graph import Unsupported

KEYS, TORCHS = -0.5, -0.75  # `a` of the two cubic functions
MATRICES = (  # the functions and rules of which `matrix` knows the weights
    *(("nearest", "half_pixel"), ("nearest", "asymmetric")),
    *(("cubic", "half_pixel"), ("cubic", "align_corners")),
)


def indices(rule: str, given: int, size: int, factor: float | None = None) -> np.ndarray:
    """The nearest pixels, worked out in float32 as both frameworks do it."""
    scale = np.float32(1 / factor) if factor else np.float32(given) / np.float32(size)
    places = np.arange(size, dtype="float32") + np.float32(0.5 if rule == "half_pixel" else 0)
    return np.minimum(np.floor(places * scale).astype(int), given - 1)


def matrix(
    function: str, rule: str, given: int, size: int, factor: float | None = None, dtype: str = "float32"
) -> np.ndarray:
    """The weights of nearest or of torch's cubic along one axis, (given, size)."""
    if function == "nearest":
        return np.eye(given, dtype=dtype)[:, indices(rule, given, size, factor)]
    columns = np.arange(size)
    if rule == "align_corners":
        places = columns * ((given - 1) / (size - 1) if size > 1 else 0.0)
    else:
        places = (columns + 0.5) * (1 / factor if factor else given / size) - 0.5
    weights, a = np.zeros((given, size)), TORCHS
    for tap in (-1, 0, 1, 2):
        pixel = np.floor(places).astype(int) + tap
        d = np.abs(places - pixel)
        inner, outer = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        np.add.at(weights, (np.clip(pixel, 0, given - 1), columns), np.where(d <= 1, inner, outer))
    return weights.astype(dtype)


def named(matrices: list[np.ndarray]) -> tuple[str, str, tuple[float, ...] | None] | None:
    """The first of `MATRICES` that these are, as one may be another at some sizes; perhaps with factors."""
    matrices = [m.astype("float32") for m in matrices]
    if any(np.abs(m.sum(0) - 1).max() > 1e-3 for m in matrices):
        return None
    for pair in MATRICES:
        if all(np.array_equal(m, matrix(*pair, *m.shape)) for m in matrices):
            return *pair, None
    for pair in MATRICES:
        factors = []
        for m in matrices if pair[1] != "align_corners" else ():
            made = (f for f in fractions(*m.shape) if np.array_equal(m, matrix(*pair, *m.shape, f)))
            if (factor := next(made, None)) is None:
                break
            factors.append(factor)
        if len(factors) == len(matrices):
            return *pair, tuple(factors)
    return None


def fractions(given: int, size: int) -> Iterator[float]:
    """The simple fractions that make one size of another, the simplest first."""
    for q in (*range(1, 101), 1000):
        for p in range(-(-size * q // given), -(-(size + 1) * q // given)):
            if math.gcd(p, q) == 1 and math.floor(given * (p / q)) == size:
                yield p / q


def repeats(factor: int) -> bool:
    """Whether torch's "nearest" is a repeat for a factor, at any size."""
    return np.array_equal(indices("asymmetric", 256, 256 * factor), np.arange(256).repeat(factor))


def check_rounding(rule: str, given, sizes, factors, dtype: str) -> None:
    """Refuse what torch's kernel for large images and for one or three axes rounds to another pixel.

    It works in the dtype of the tensor, with a fused product, and gives what comes out to floorf.
    """
    if None in (*given, *sizes) or (len(given) == 2 and sum(sizes) <= 128):
        return
    kind = np.float64 if dtype == "float64" else np.float32
    for n, m, f in zip(given, sizes, factors or (None,) * len(given), strict=True):
        scale = np.float64(kind(1 / f) if f else kind(n) / kind(m))
        if rule == "half_pixel":
            places = np.maximum((scale * (np.arange(m) + 0.5) - 0.5).astype(kind), 0) + kind(0.5)
        else:
            places = (scale * np.arange(m)).astype(kind)
        if not np.array_equal(np.minimum(np.floor(places.astype("float32")), n - 1), indices(rule, n, m, f)):
            raise Unsupported(
                f"nearest interpolation from {n} to {m} pixels, which torch rounds to another pixel in {dtype}, on one "
                "or three axes and on large images, than elsewhere",
                "use another size",
                final=True,
            )


def in_table(given: int, size: int) -> bool:
    """Whether all the cubic weights are in TensorFlow's table."""
    return all(((2 * i + 1) * given - size) * 1024 % (2 * size) == 0 for i in range(size))
