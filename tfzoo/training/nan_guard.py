"""Stop a run as soon as its loss is no longer a number, and say on what it was lost."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class StopAtNaN(keras.callbacks.Callback):
    """Stop when a value of the logs is no longer a number.

    Args:
        steps_per_epoch: As `fit` has it.
        batch: Gives the batch of a step of the run, counted from 0, to describe what was trained on.
    """

    def __init__(self, steps_per_epoch: int, batch: Callable[[int], Any] | None = None):
        super().__init__()
        self.steps_per_epoch, self.batch, self.epoch = steps_per_epoch, batch, 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remember the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Raise FloatingPointError at the first step after which a value is not finite."""
        step = self.epoch * self.steps_per_epoch + batch
        for name, value in logs.items():
            if not np.isfinite(value).all():
                said = f" The batch of that step: {describe(self.batch(step))}." if self.batch else ""
                raise FloatingPointError(f"the {name} became {np.asarray(value)} at step {step + 1}.{said}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Raise FloatingPointError if a value of the validation is not finite."""
        for name, value in logs.items():
            if not np.isfinite(value).all():
                name = name.replace("val_", "validation ", 1)
                raise FloatingPointError(
                    f"the {name} became {np.asarray(value)} at step {(epoch + 1) * self.steps_per_epoch}."
                )


def describe(batch: Any) -> str:
    """Give shape, range and mean of each array of a batch, and how many values are not finite."""
    lines = []
    for path, value in keras.tree.flatten_with_path(batch):
        array = np.asarray(value)
        good = array[np.isfinite(array)]
        figures = f"{good.min():.4g} to {good.max():.4g}, mean {good.mean():.4g}" if good.size else "empty"
        lines.append(f"{' '.join(map(str, (*path, array.shape)))} {figures}, {array.size - good.size} not finite")
    return "; ".join(lines)
