import numpy as np
import pytest
from skimage.data import astronaut
from skimage.metrics import structural_similarity

from tfzoo.metrics.image_quality import PSNR, SSIM

RNG = np.random.default_rng(3)
REAL = astronaut()[::8, ::8].reshape(2, 32, 64, 3)  # uint8
NOISY = np.clip(REAL + RNG.normal(0, [[[[8]]], [[[30]]]], REAL.shape), 0, 255).astype("uint8")


def decibels(real, made, max_val):
    return np.mean([10 * np.log10(max_val**2 / np.mean((r - m) ** 2)) for r, m in zip(real, made, strict=True)])


@pytest.mark.parametrize("max_val", [255, 1, 2])
def test_psnr_is_the_formula(max_val):
    real, made = (pictures.astype("float64") * (max_val / 255) for pictures in (REAL, NOISY))
    metric = PSNR(max_val)
    for i in range(2):
        metric.update_state(real[i : i + 1], made[i : i + 1])
    np.testing.assert_allclose(metric.result(), decibels(real, made, max_val), rtol=1e-5)


@pytest.mark.parametrize("max_val", [255, 1])
@pytest.mark.parametrize("window", [(11, 1.5), (5, 0.6)])
def test_ssim_is_that_of_scikit_image(max_val, window):
    size, sigma = window
    real, made = (pictures.astype("float64") * (max_val / 255) for pictures in (REAL, NOISY))
    options = {
        "data_range": max_val,
        "channel_axis": -1,
        "gaussian_weights": True,
        "sigma": sigma,
        "truncate": (size // 2) / sigma,
        "use_sample_covariance": False,
    }
    expected = [structural_similarity(r, m, **options) for r, m in zip(real, made, strict=True)]
    metric = SSIM(max_val, size, sigma)
    metric.update_state(real, made)
    np.testing.assert_allclose(metric.result(), np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize("kind", [PSNR, SSIM])
def test_bytes_beside_floats(kind):
    mixed, floats = kind(255), kind(255)
    mixed.update_state(REAL, NOISY.astype("float32"))
    floats.update_state(REAL.astype("float32"), NOISY.astype("float32"))
    assert mixed.result() == floats.result()


def test_weights_of_pictures():
    metric = PSNR(255)
    metric.update_state(REAL, NOISY, [1.0, 3.0])
    each = [decibels(REAL[i : i + 1] / 1.0, NOISY[i : i + 1] / 1.0, 255) for i in range(2)]
    np.testing.assert_allclose(metric.result(), (each[0] + 3 * each[1]) / 4, rtol=1e-5)


def test_pictures_without_an_error():
    for metric, best in ((PSNR(1), np.inf), (SSIM(1), 1)):
        assert metric.result() == 0  # nothing was compared yet
        metric.update_state(REAL / 255, REAL / 255)
        assert metric.result() == best


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_val": 0}, "1 for .0, 1., 2 for .-1, 1., 255 for bytes. Received: max_val=0"),
        ({"max_val": float("nan")}, "Received: max_val=nan"),
        ({"max_val": 1, "filter_size": 0}, "Received: filter_size=0"),
        ({"max_val": 1, "filter_sigma": 0}, "filter_sigma=0"),
    ],
)
def test_wrong_options(options, said):
    with pytest.raises(ValueError, match=said):
        SSIM(**options)


@pytest.mark.parametrize(
    ("real", "made", "said"),
    [
        ((2, 32, 32, 3), (2, 32, 32, 1), r"one shape. Received: y_true \(2, 32, 32, 3\), y_pred \(2, 32, 32, 1\)"),
        ((32, 32, 3), (32, 32, 3), r"pictures \(B, H, W, C\)"),
        ((2, 8, 8, 1), (2, 8, 8, 1), r"at least 11 rows and columns.*Give a smaller filter_size"),
    ],
)
def test_wrong_shapes(real, made, said):
    with pytest.raises(ValueError, match=said):
        SSIM(1).update_state(np.zeros(real), np.zeros(made))
