import numpy as np
import pytest
import scipy.linalg
from sklearn.metrics.pairwise import polynomial_kernel

from tfzoo.metrics import feature_distance
from tfzoo.metrics.feature_distance import FrechetDistance, KernelDistance, frechet_distance, kernel_distance

RNG = np.random.default_rng(7)
REAL, MADE = RNG.normal(size=(60, 6)), 0.3 + 1.2 * RNG.normal(size=(45, 6)) @ RNG.normal(size=(6, 6))


def gaussian(rows):
    return rows.mean(0), np.cov(rows.T)


def test_frechet_of_diagonal_covariances():
    s1, s2 = np.array([1.0, 2, 0, 0.5]), np.array([3.0, 0.5, 1, 0])
    found = frechet_distance(np.zeros(4), np.diag(s1**2), np.array([1.0, 0, 0, 2]), np.diag(s2**2))
    np.testing.assert_allclose(found, 5 + np.sum((s1 - s2) ** 2), rtol=1e-12)


def test_frechet_is_that_with_the_root_of_the_product():
    (m1, c1), (m2, c2) = gaussian(REAL), gaussian(MADE)
    expected = np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * scipy.linalg.sqrtm(c1 @ c2).real)
    np.testing.assert_allclose(frechet_distance(m1, c1, m2, c2), expected, rtol=1e-9)


def test_frechet_of_fewer_rows_than_dimensions():
    """Turned and moved, covariances of rank 4 in 50 dimensions have the distance that their 4 dimensions have."""
    turn = np.linalg.qr(RNG.normal(size=(50, 50)))[0][:4]
    small, other = RNG.normal(size=(5, 4)), 2 * RNG.normal(size=(5, 4))
    np.testing.assert_allclose(
        frechet_distance(*gaussian(small @ turn), *gaussian(other @ turn)),
        frechet_distance(*gaussian(small), *gaussian(other)),
        rtol=1e-9,
    )
    assert frechet_distance(*gaussian(small @ turn), *gaussian(small @ turn)) < 1e-12


def test_frechet_metric(features, pictures):
    metric = FrechetDistance(features)
    metric.update_state(*pictures)
    rows = [np.float64(features(each)) for each in pictures]
    np.testing.assert_allclose(metric.result(), frechet_distance(*gaussian(rows[0]), *gaussian(rows[1])), rtol=1e-9)


def by_scikit_learn(real, made):
    a, b, c = polynomial_kernel(real), polynomial_kernel(made), polynomial_kernel(real, made)
    off = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (a, b)]
    return sum(off) - 2 * c.mean()


@pytest.mark.parametrize("block", [1024, 7])
def test_kernel_distance_is_the_sum_over_pairs(block, monkeypatch):
    monkeypatch.setattr(feature_distance, "BLOCK", block)
    np.testing.assert_allclose(kernel_distance(REAL, MADE), by_scikit_learn(REAL, MADE), rtol=1e-10)


def test_kernel_distance_of_two_and_two():
    """k(a, b) = (a b + 1)^3 of one dimension: rows 0 and 1 against 1 and 2."""
    found = kernel_distance(np.array([[0.0], [1]]), np.array([[1.0], [2]]))
    np.testing.assert_allclose(found, 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4)


def test_kernel_distance_of_one_kind_is_around_0():
    found = [kernel_distance(*RNG.normal(size=(2, 30, 5))) for _ in range(200)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(200)
    assert min(found) < 0 < max(found)  # unbiased
    assert kernel_distance(REAL, REAL + 3) > 50 * np.std(found)


def test_the_mean_over_subsets():
    """Subsets of all rows are all rows; smaller ones differ, around the same value."""
    everything = kernel_distance(REAL[:45], MADE)
    np.testing.assert_allclose(kernel_distance(REAL[:45], MADE, subsets=3, subset_size=45), everything, rtol=1e-10)
    some = kernel_distance(REAL[:45], MADE, subsets=400, subset_size=20)
    assert some != everything and abs(some / everything - 1) < 0.1
    assert some == kernel_distance(REAL[44::-1], MADE[::-1], subsets=400, subset_size=20, seed=0)
    assert some != kernel_distance(REAL[:45], MADE, subsets=400, subset_size=20, seed=1)


def test_kernel_metric(features, pictures):
    metric = KernelDistance(features, room=53)
    metric.update_state(*pictures)
    rows = [np.float64(features(each)) for each in pictures]
    np.testing.assert_allclose(metric.result(), by_scikit_learn(*rows), rtol=1e-6)
    with pytest.raises(ValueError, match="subset_size=50, 53 real rows, 41 generated"):
        fewer = KernelDistance(features, room=53, subsets=2, subset_size=50)
        fewer.update_state(*pictures)
        fewer.result()


def test_too_few_pictures_give_no_number(features, pictures):
    for metric in (FrechetDistance(features), KernelDistance(features, room=9)):
        assert np.isnan(metric.result())
        metric.update_state(pictures[0][:5], pictures[1][:1])
        assert np.isnan(metric.result())
