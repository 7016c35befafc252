import numpy as np
import pytest

from tfzoo.training.nan_guard import StopAtNaN, describe


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["loss", "critic_loss"])
def test_it_stops_at_the_step_and_describes_its_batch(value, name):
    asked = []
    guard = StopAtNaN(10, lambda step: asked.append(step) or np.float32([1, 2, np.nan, 6]))
    guard.on_epoch_begin(3)
    guard.on_train_batch_end(0, {"loss": 0.1, "critic_loss": 0.2})
    with pytest.raises(
        FloatingPointError, match=rf"the {name} became .*(nan|inf) at step 32\. .*1 to 6, mean 3, 1 not"
    ):
        guard.on_train_batch_end(1, {"loss": 0.1, "critic_loss": 0.2, name: value})
    assert asked == [31]


def test_a_log_may_have_several_values():
    guard = StopAtNaN(10)
    guard.on_train_batch_end(0, {"f1": np.float32([0.5, 0.1])})
    with pytest.raises(FloatingPointError, match=r"the f1 became \[0\.5 nan\] at step 1\."):
        guard.on_train_batch_end(0, {"f1": np.array([0.5, np.nan])})


def test_it_looks_at_the_validation():
    guard = StopAtNaN(10)
    guard.on_epoch_end(1, {"loss": 0.1, "val_loss": 0.1})
    with pytest.raises(FloatingPointError, match="the validation loss became nan at step 20"):
        guard.on_epoch_end(1, {"loss": 0.1, "val_loss": np.nan})


def test_a_batch_is_described_array_by_array():
    batch = {"image": np.zeros((2, 3), np.float32), "label": np.array([1, 3])}
    assert describe(batch) == "image (2, 3) 0 to 0, mean 0, 0 not finite; label (2,) 1 to 3, mean 2, 0 not finite"
    assert describe(np.full(2, np.nan)) == "(2,) empty, 2 not finite"
