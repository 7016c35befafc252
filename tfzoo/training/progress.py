"""What a training says while it lasts: a bar of the whole run on a terminal, and a line for every epoch.

epoch 3/28 - loss 0.5312 - iou 0.7012 - val_loss 0.6040 - val_iou 0.6514 - 131 examples/s - 0:14:05 left
"""

import datetime
import sys
import time
from typing import TextIO

import keras
import numpy as np

from tfzoo.training.speed import Speed

REFRESH = 0.1  # seconds: more often nobody reads it


class Progress(keras.callbacks.Callback):
    """Show how far a run is. Use it as a context around `fit`, so that a run that breaks off leaves the terminal whole.

    Args:
        speed: The run's; among the callbacks it comes before this one.
        stream: Where the lines go; where it is a terminal, there is a bar below them.
    """

    def __init__(self, speed: Speed, stream: TextIO | None = None):
        super().__init__()
        self.speed, self.stream = speed, stream or sys.stdout
        self.bar, self.shown = None, 0.0

    def __enter__(self) -> "Progress":
        if self.stream.isatty():
            self.bar = bar(self.stream)
            total = self.speed.epochs * self.speed.steps_per_epoch
            self.task = self.bar.add_task(self.doing(), total=total, completed=self.speed.steps, figures="")
            self.bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def doing(self, judging: bool = False) -> str:
        """Name the epoch, counted from 1, and what is done in it."""
        epoch = min(self.speed.epochs, (self.speed.steps - judging) // self.speed.steps_per_epoch + 1)
        return f"epoch {epoch}/{self.speed.epochs}{', validation' if judging else ''}"

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Move the bar, not more often than it can be read."""
        last = batch + 1 == self.speed.steps_per_epoch
        if self.bar and (last or time.monotonic() - self.shown >= REFRESH):
            pace = (
                self.pace() if self.speed.all.count else []
            )  # the first step alone says nothing: Keras compiled in it
            text = " ".join([*figures({"loss": (logs or {}).get("loss")}), *pace])
            self.bar.update(
                self.task, description=self.doing(judging=last), completed=self.speed.steps, figures=text, refresh=True
            )
            self.shown = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the epoch's line."""
        line = " - ".join([f"epoch {epoch + 1}/{self.speed.epochs}", *figures(logs or {}), *self.pace()])
        if self.bar:
            self.bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.stream, flush=True)  # a log is read while the run lasts

    def pace(self) -> list[str]:
        """Give examples per second and the time left, as far as they are known."""
        rate, left = self.speed.examples_per_second(), self.speed.left()
        words = [f"{rate:,.0f} examples/s" if rate >= 100 else f"{rate:.3g} examples/s"] if rate else []
        return words + ([f"{duration(left)} left"] if left is not None else [])


def bar(stream: TextIO):
    """Make the bar; it is drawn when it is told to, by no thread of its own."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = [TextColumn("{task.description}", markup=False), BarColumn(20), MofNCompleteColumn()]
    columns.append(TextColumn("{task.fields[figures]}", markup=False))
    return Bar(*columns, console=Console(file=stream), auto_refresh=False, transient=True)


def figures(logs: dict[str, float | None]) -> list[str]:
    """Write the numbers of logs for people: of training, then of validation, the loss first."""
    order = sorted(logs, key=lambda name: (name.startswith("val_"), name.removeprefix("val_") != "loss", name))
    values = {name: np.asarray(logs[name]) for name in order if logs[name] is not None}
    return [f"{name} {float(value):.4g}" for name, value in values.items() if not value.ndim]


def duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds: 0:14:05."""
    return str(datetime.timedelta(seconds=round(seconds)))
