import numpy as np
import pytest
import tensorflow as tf

from tfzoo.metrics.accumulators import Moments, Rows

ROWS = np.random.default_rng(6).normal((0, 1000, -3), size=(29, 3)).astype("float32")


def test_moments_are_those_of_numpy():
    kept = Moments(3, "kept")
    for rows in (ROWS[:10], ROWS[10:10], ROWS[10:]):
        kept.update_state(rows)
    mean, covariance = kept.moments()
    np.testing.assert_allclose(mean, ROWS.astype("float64").mean(0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(ROWS.astype("float64").T), rtol=1e-7, atol=1e-9)
    assert kept.result() == 29


def test_moments_of_one_row_are_no_numbers():
    kept = Moments(3, "kept")
    kept.update_state(ROWS[:1])
    assert all(np.isnan(moment).all() for moment in kept.moments())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rows_are_kept(jit_compile):
    kept = Rows(30, 3, "kept")
    update = tf.function(kept.update_state, jit_compile=jit_compile)
    for rows in (ROWS[:10], ROWS[10:10], ROWS[10:]):
        update(tf.constant(rows))
    np.testing.assert_array_equal(kept.rows(), ROWS)
    kept.reset_state()
    kept.update_state(ROWS[:2])
    np.testing.assert_array_equal(kept.rows(), ROWS[:2])


def test_rows_of_zeros_are_rows():
    kept = Rows(5, 2, "kept")
    kept.update_state(np.zeros((3, 2), "float32"))
    np.testing.assert_array_equal(kept.rows(), np.zeros((3, 2)))


def test_no_more_rows_than_there_is_room_for():
    kept = Rows(28, 3, "kept")
    kept.update_state(ROWS[:28])
    assert len(kept.rows()) == 28
    kept.update_state(ROWS[28:])
    with pytest.raises(ValueError, match=r"kept had room for 28 of 29 rows. Received: room=28. Give room for all"):
        kept.rows()
    with pytest.raises(ValueError, match=r"Received: room=0"):
        Rows(0, 3, "kept")


def test_a_call_that_belongs_to_no_replica():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        kept = Rows(28, 3, "kept")
        with pytest.raises(RuntimeError, match="this call is of none. Call update_state in strategy.run"):
            kept.update_state(ROWS)
