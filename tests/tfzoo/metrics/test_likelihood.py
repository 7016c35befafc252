import math

import numpy as np
import pytest
import scipy.stats

from tfzoo.metrics.likelihood import BitsPerDimension, NegativeLogLikelihood, bits_per_dimension

RNG = np.random.default_rng(4)
LIKELIHOODS = RNG.normal(-300, 40, 11)


def test_nats_are_the_mean():
    metric = NegativeLogLikelihood()
    assert metric.result() == 0
    for rows in (slice(0, 4), slice(4, 11)):
        metric.update_state(LIKELIHOODS[rows])
    np.testing.assert_allclose(metric.result(), -LIKELIHOODS.mean(), rtol=1e-12)


def test_weights():
    weights = RNG.uniform(0, 2, 11)
    metric = BitsPerDimension(48, 256)
    assert metric.result() == 0
    metric.update_state(LIKELIHOODS, weights)
    expected = (-np.average(LIKELIHOODS, weights=weights) / 48 + math.log(256)) / math.log(2)
    np.testing.assert_allclose(metric.result(), expected, rtol=1e-12)


@pytest.mark.parametrize(("low", "high", "scale"), [(0, 1, 256), (-1, 1, 128), (0, 256, 1)])
def test_a_uniform_density_costs_8_bits(low, high, scale):
    nll = -12 * scipy.stats.uniform(low, high - low).logpdf(low + 0.3)  # of 12 dimensions
    np.testing.assert_allclose(bits_per_dimension(nll, 12, scale), 8, rtol=1e-12)


def test_the_unit_does_not_matter():
    """A normal density of levels, and that of the levels divided by 17, give the same bits."""
    levels = RNG.normal(8, 3, (5, 6))
    found = []
    for scale in (1, 17):
        metric = BitsPerDimension(6, scale)
        metric.update_state(scipy.stats.norm(8 / scale, 3 / scale).logpdf(levels / scale).sum(-1))
        found.append(float(metric.result()))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)


def test_a_fair_coin_costs_a_bit():
    assert bits_per_dimension(20 * math.log(2), 20, 1) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(("dimensions", "scale"), [(0, 256), (3, 0), (3, -1), (3, math.inf), (3, math.nan)])
def test_wrong_options(dimensions, scale):
    with pytest.raises(ValueError, match=f"256 for bytes.*Received: dimensions={dimensions}, scale={scale}"):
        BitsPerDimension(dimensions, scale)


@pytest.mark.parametrize("shape", [(), (4, 1), (4, 3, 3)])
def test_one_value_for_each_example(shape):
    with pytest.raises(ValueError, match=r"each example, \(B,\), summed over its dimensions. Received: \("):
        NegativeLogLikelihood().update_state(np.zeros(shape))
