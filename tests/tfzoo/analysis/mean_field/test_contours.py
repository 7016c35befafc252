"""The ellipses hold what they say, and the picture shows the density where it is."""

import numpy as np
import pytest
from PIL import Image

from tfzoo.analysis.mean_field import contours
from tfzoo.analysis.mean_field.targets import Banana, correlated


def test_an_ellipse_holds_its_share():
    mean, covariance = np.array([1.0, -2.0]), np.array([[2.0, 0.6], [0.6, 0.5]])
    apart = contours.ellipse(mean, covariance, 0.9) - mean
    radius = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart)
    np.testing.assert_allclose(radius, radius[0], rtol=1e-12)
    z = np.random.default_rng(0).multivariate_normal(np.zeros(2), covariance, 100_000)
    inside = np.einsum("ni,ij,nj->n", z, np.linalg.inv(covariance), z) < radius[0]
    assert abs(inside.mean() - 0.9) < 0.004


def test_the_picture(tmp_path):
    target = correlated()
    best = target.mean_field()
    fits = {"mean field": (best.mean, np.diag(best.deviations**2)), "full rank": (np.zeros(2), target.covariance)}
    contours.draw_contours(target.log_density, fits, tmp_path / "new" / "gaussian.png")
    shown = np.asarray(Image.open(tmp_path / "new" / "gaussian.png").convert("RGB")).astype(int)
    assert shown.shape == (500, 500, 3)
    coloured = shown.max(-1) - shown.min(-1) > 60
    blue = coloured & (shown[..., 2] > shown[..., 0])
    orange = coloured & (shown[..., 0] > shown[..., 2])
    # The exact density is as long as the full rank's ellipses; the mean field's stay near the middle.
    across = [np.ptp(np.nonzero(colour[250:])[1]) for colour in (blue, orange)]
    assert 0 < across[0] < 0.7 * across[1]


def test_it_needs_no_fit(tmp_path):
    contours.draw_contours(Banana().log_density, {}, tmp_path / "banana.png", (-3, 3, -2, 10))
    shown = np.asarray(Image.open(tmp_path / "banana.png").convert("L"))
    assert shown.min() < 60  # the density


def test_what_cannot_be_is_said_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"q must be a mean \(2,\)(.|\n)*span must be left < right"):
        contours.draw_contours(Banana().log_density, {"q": (np.zeros(3), np.eye(3))}, tmp_path / "x.png", (1, 1, 0, 1))
    assert not list(tmp_path.iterdir())
