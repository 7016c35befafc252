"""What people watch a training by: a bar or lines, `speed.csv`, TensorBoard, a picture; the chief alone has it."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from apps import run_folder
from bridge.files import aside
from tfzoo.training.double import Double, same_random_numbers
from tfzoo.training.events import Events, graph_of
from tfzoo.training.progress import Progress
from tfzoo.training.speed import Speed


class Watching:
    """What a run is watched by.

    Args:
        folder: The run folder.
        epoch: Where the run begins.
        speed: The run's; it measures before what is here.
        double: Of the model in training.
        sample: Draws what a model makes of validation data into a PNG; None where there is no such data.

    Attributes:
        progress: To be entered around `fit`.
        speeds: The lines of `speed.csv`.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        epoch: int,
        *,
        speed: Speed,
        double: Double,
        sample: Callable[[keras.Model, pathlib.Path], None] | None,
    ):
        self.folder, self.epoch, self.speed, self.double, self.sample = folder, epoch, speed, double, sample
        self.progress, self.speeds = Progress(speed), run_folder.SpeedLog(folder, epoch, speed)

    def callbacks(self, saved: Callable[[], Any]) -> list[keras.callbacks.Callback]:
        """Give the callbacks.

        Args:
            saved: A context in which the weights are those to be drawn with.
        """
        draw = functools.partial(self.draw, saved) if self.sample else None
        events = Events(self.folder / "tensorboard", self.epoch, speed=self.speed, graph=self.graph, draw=draw)
        return [events, self.speeds, self.progress]

    def graph(self):
        """Give the graph of the model."""
        return graph_of(run_folder.networks(self.double.model))

    def draw(self, saved: Callable[[], Any]) -> bytes:
        """Draw samples of the model as it is now into `samples/validation.png`, and give the PNG."""
        path = self.folder / "samples" / "validation.png"
        with saved():
            self.double.learn()
        with aside(path) as side, same_random_numbers():
            self.sample(self.double.model, side)
        return path.read_bytes()
