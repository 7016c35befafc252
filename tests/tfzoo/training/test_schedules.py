"""Learning rates: every step against its formula, Keras' own where it has one, and no state."""

import keras
import numpy as np
import pytest

from tfzoo.training import schedules


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in range(steps + 3)])


def formula(name, learning_rate, steps, w):
    """The module docstring's rates in float64."""
    step = np.arange(steps + 3)
    after = np.clip((step - w) / max(steps - w, 1), 0, 1)
    factor = {
        "constant": np.ones(len(step)),
        "cosine": (1 + np.cos(np.pi * after)) / 2,
        "step": np.where(2 * step < steps, 1, np.where(4 * step < 3 * steps, 0.1, 0.01)),
    }[name]
    return learning_rate * factor * (np.minimum(step / w, 1) if w else 1)


@pytest.mark.parametrize("name", schedules.NAMES)
@pytest.mark.parametrize(
    ("steps", "warm_up", "w"),
    [(100, 0.05, 5), (100, 0.29, 29), (100, 0.0, 0), (37, 0.3, 11), (41, 0.001, 1), (1, 0.05, 1), (2, 0, 0)],
)
def test_rates_are_the_formulas(name, steps, warm_up, w):
    schedule = schedules.schedule(name, 0.3, steps, warm_up)
    np.testing.assert_allclose(rates(schedule, steps), formula(name, 0.3, steps, w), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 19, 20, 39, 40, 60, 140])
def test_cosine_is_keras_own(steps):
    w = max(steps // 20, 1)
    expected = keras.optimizers.schedules.CosineDecay(0.0, max(steps - w, 1), warmup_target=3e-4, warmup_steps=w)
    np.testing.assert_array_equal(rates(schedules.schedule("cosine", 3e-4, steps), steps), rates(expected, steps))


def test_a_share_of_a_twentieth_is_an_integer_division():
    steps = [*range(1, 2000), 1_234_567, 10_000_000]
    found = [schedules.schedule("cosine", 1.0, n).warmup_steps for n in steps]
    np.testing.assert_array_equal(found, [max(n // 20, 1) for n in steps])


@pytest.mark.parametrize("name", schedules.NAMES)
def test_an_optimizer_comes_back_with_it_and_holds_no_rate(name):
    optimizer = keras.optimizers.SGD(schedules.schedule(name, 0.1, 40))
    optimizer.build([keras.Variable([1.0])])
    assert [variable.name for variable in optimizer.variables] == ["iteration"]
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    np.testing.assert_array_equal(rates(again._learning_rate, 40), rates(optimizer._learning_rate, 40))


def test_training_takes_the_rate_of_each_step():
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(schedules.schedule("step", 0.1, 8, warm_up=0.25))
    taken = []
    for _ in range(8):
        before = weight.numpy()
        optimizer.apply([keras.ops.ones(1)], [weight])
        taken.append(float((before - weight.numpy())[0]))
    np.testing.assert_allclose(taken, [0, 0.05, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], atol=1e-6)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ValueError, match="Received: 'cosin'; accepted: 'constant', 'cosine', 'step'. Choose one"):
        schedules.schedule("cosin", 0.1, 10)


def test_all_that_is_out_of_range_is_told_at_once():
    with pytest.raises(ValueError, match=r"learning_rate must .*: -1\nsteps must .*: 0\nwarm_up must .*: 1"):
        schedules.schedule("step", -1, 0, 1)
