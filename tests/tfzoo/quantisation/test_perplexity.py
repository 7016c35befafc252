"""Perplexity by its definition, over several batches."""

import numpy as np
import pytest

from tfzoo.quantisation.perplexity import Perplexity, count, perplexity


def test_known_ones():
    assert float(perplexity(np.full(9, 3.0, "float32"))) == pytest.approx(9, rel=1e-6)
    assert float(perplexity(np.eye(9, dtype="float32")[2])) == pytest.approx(1)
    p = np.array([0.5, 0.25, 0.25])
    assert float(perplexity((8 * p).astype("float32"))) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_all_batches_count_as_one():
    batches = [np.array([[0, 0], [1, 4]]), np.array([[4, 4], [4, 2]])]
    metric = Perplexity(5)
    for batch in batches:
        metric.update_state(batch)
    counts = np.bincount(np.concatenate(batches).ravel(), minlength=5)
    np.testing.assert_array_equal(count(np.stack(batches), 5), counts)
    assert float(metric.result()) == pytest.approx(float(perplexity(counts.astype("float32"))))
    metric.reset_state()
    metric.update_state(batches[0][:1])
    assert float(metric.result()) == pytest.approx(1)
