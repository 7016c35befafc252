"""What TensorBoard shows of a run: scalars, pictures and the graph, in one file of events.

A run that goes on writes the same file on. What it has of epochs that are made again is cut off first, so every epoch
is there once, with the same step and the same values, and a TensorBoard that is already open reads on. TensorFlow's
own writer would begin another file, named after the time and the host, in which the same steps stand again.

TensorBoard itself is not needed to write: the records are TensorFlow's.
"""

import itertools
import os
import pathlib
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from bridge.models import functional
from tfzoo.training.speed import Speed

NAME = "events.out.tfevents.run"  # TensorBoard reads what has "tfevents" in its name
VERSION = "brain.Event:2"
FRAME = 16  # bytes of a record's length and checksums


class Events(keras.callbacks.Callback):
    """Write the events of a run: every scalar of the logs and the speed, by epoch from 0 as `log.csv` counts them.

    Args:
        folder: Where the file is; made when the training begins.
        epoch: Where the run begins; what the file has of later epochs is made again.
        speed: The run's; among the callbacks it comes before this one.
        graph: Gives what TensorBoard draws of the model, such as `graph_of` does; asked once in a run.
        draw: Gives a picture of the model's samples of now, a PNG; None where there is none.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        epoch: int,
        *,
        speed: Speed,
        graph: Callable[[], tf.compat.v1.GraphDef],
        draw: Callable[[], bytes] | None = None,
    ):
        super().__init__()
        self.path, self.epoch, self.speed, self.graph, self.draw = folder / NAME, epoch, speed, graph, draw

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Cut off what is made again, or begin the file with the graph."""
        if self.path.exists():
            purge(self.path, self.epoch)
        if not self.path.exists() or not self.path.stat().st_size:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            graph = self.graph().SerializeToString()
            append(self.path, [event(0, file_version=VERSION), event(0, graph_def=graph)])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the epoch's scalars and its picture."""
        scalars = {name: np.asarray(value) for name, value in (logs or {}).items()}
        scalars["examples_per_second"] = np.asarray(self.speed.examples_per_second() or np.nan)
        values = [
            tf.compat.v1.Summary.Value(tag=name, simple_value=float(value))
            for name, value in scalars.items()
            if not value.ndim
        ]
        if self.draw:
            values.append(tf.compat.v1.Summary.Value(tag="validation", image=picture(self.draw())))
        append(self.path, [event(epoch, summary=tf.compat.v1.Summary(value=values))])


def event(step: int, **what) -> tf.compat.v1.Event:
    """Make an event of now."""
    return tf.compat.v1.Event(wall_time=time.time(), step=step, **what)


def append(path: pathlib.Path, events: Iterable[tf.compat.v1.Event]) -> None:
    """Add events to the end of a file: all of them, or where there is no room, none.

    Args:
        path: The file; made where it is not there.
        events: What to add.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".partial-") as piece:
        write(piece.name, (each.SerializeToString() for each in events))
        content = pathlib.Path(piece.name).read_bytes()
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(content)
    except OSError:
        os.truncate(path, size)
        raise


def purge(path: pathlib.Path, epoch: int) -> None:
    """Cut off the scalars and pictures of an epoch and all behind it, and what a kill left half-written.

    The file stays the same one: made again, the records are as long as they were, so a reader is where it should be.

    Args:
        path: A file of events, by epoch.
        epoch: The first that goes.
    """
    kept = itertools.takewhile(lambda record: not made_again(record, epoch), records(path))
    os.truncate(path, sum(FRAME + len(record) for record in kept))


def made_again(record: bytes, epoch: int) -> bool:
    """Tell whether a record is of an epoch that is to come, or none of TensorBoard's at all."""
    try:
        found = tf.compat.v1.Event.FromString(record)
    except DecodeError:
        return True
    return found.HasField("summary") and found.step >= epoch


def records(path: pathlib.Path) -> Iterator[bytes]:
    """Read the records of a file up to its end, or to where it is damaged."""
    try:
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    except tf.errors.DataLossError:
        return


def write(path: str, contents: Iterable[bytes]) -> None:
    """Write records into a new file."""
    with tf.io.TFRecordWriter(path) as writer:
        for content in contents:
            writer.write(content)


def picture(content: bytes) -> tf.compat.v1.Summary.Image:
    """Give a PNG as TensorBoard wants it."""
    width, height = struct.unpack(">II", content[16:24])  # of its header
    return tf.compat.v1.Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)


def graph_of(networks: dict[str, keras.Model]) -> tf.compat.v1.GraphDef:
    """Give the graph of the networks' forward pass, without the weights.

    Args:
        networks: Functional models by name.
    """

    @tf.function
    def forward(inputs):
        return {name: networks[name](value, training=False) for name, value in inputs.items()}

    def spec(tensor):
        return tf.TensorSpec(tensor.shape, tensor.dtype)

    structures = {name: functional(network)._inputs_struct for name, network in networks.items()}
    return forward.get_concrete_function(keras.tree.map_structure(spec, structures)).graph.as_graph_def()
