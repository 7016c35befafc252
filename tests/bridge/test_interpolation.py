"""Weights of interpolation along one axis, against torch's own, and what they are taken for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bridge import interpolation
from bridge.graph import Unsupported

MODES = {
    ("nearest", "half_pixel"): ("nearest-exact", {}),
    ("nearest", "asymmetric"): ("nearest", {}),
    ("cubic", "half_pixel"): ("bicubic", {}),
    ("cubic", "align_corners"): ("bicubic", {"align_corners": True}),
}


def of_torch(function, rule, given, size, factor=None):
    """What torch makes of each pixel of a row of its own, (given, size)."""
    mode, options = MODES[function, rule]
    size = {"scale_factor": (1.0, factor)} if factor else {"size": (1, size)}
    return F.interpolate(torch.eye(given)[:, None, None], mode=mode, **size, **options)[:, 0, 0].numpy()


@pytest.mark.parametrize("given, size, factor", [(7, 10, None), (9, 4, None), (7, 9, 1.3), (5, 3, 0.7), (4, 1, None)])
@pytest.mark.parametrize("function, rule", interpolation.MATRICES)
def test_matrices(function, rule, given, size, factor):
    if factor and rule == "align_corners":
        factor = None  # the corners say where the pixels are
    matrix = interpolation.matrix(function, rule, given, size, factor)
    np.testing.assert_allclose(matrix, of_torch(function, rule, given, size, factor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("function, rule", interpolation.MATRICES)
def test_they_are_known(function, rule):
    matrices = [interpolation.matrix(function, rule, *sizes) for sizes in ((17, 24), (23, 9))]
    assert interpolation.named(matrices) == (function, rule, None)
    if rule != "align_corners":
        pairs = (17, 22, 1.3), (30, 21, 0.71)
        matrices = [interpolation.matrix(function, rule, *sizes) for sizes in pairs]
        found, same, factors = interpolation.named(matrices)
        assert (found, same) == (function, rule)
        for m, (given, size, _), factor in zip(matrices, pairs, factors, strict=True):
            np.testing.assert_array_equal(interpolation.matrix(function, rule, given, size, factor), m)


def test_others_are_not():
    matrix = interpolation.matrix("cubic", "half_pixel", 7, 10)
    assert interpolation.named([matrix * 1.01]) is None
    matrix[[2, 3], 4] = matrix[[3, 2], 4]
    assert interpolation.named([matrix]) is None


def test_the_simplest_fraction_comes_first():
    assert next(interpolation.fractions(7, 14)) == 2.0
    assert next(interpolation.fractions(10, 15)) == 1.5
    assert next(interpolation.fractions(9, 3)) == 1 / 3


@pytest.mark.parametrize("factor", [2, 3, 40, 41, 82])
def test_repeats(factor):
    """As torch's kernel, which is not told the sizes, has it."""
    x = torch.arange(256.0).reshape(1, 1, 256, 1)
    same = torch.equal(F.interpolate(x, scale_factor=(float(factor), 1.0)), x.repeat_interleave(factor, 2))
    assert interpolation.repeats(factor) == same


def test_rounding():
    """floor(1 * (2 / 82) * 41) is 1 in torch's double and 0 in its float32."""
    interpolation.check_rounding("asymmetric", (2,), (82,), None, "float32")
    interpolation.check_rounding("asymmetric", (2, 2), (2, 82), None, "float64")  # another kernel
    with pytest.raises(Unsupported, match="from 2 to 82 pixels, which torch rounds to another pixel in float64"):
        interpolation.check_rounding("asymmetric", (2,), (82,), None, "float64")


@pytest.mark.parametrize("given, size, exact", [(1, 2, True), (1, 8, True), (1, 3, False), (7, 10, False)])
def test_tensorflows_table(given, size, exact):
    """Weights at n / 1024 are in it: those of another place are those of the nearest one."""
    assert interpolation.in_table(given, size) == exact
