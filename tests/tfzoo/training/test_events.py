"""The file is read back by TensorBoard itself."""

import io
import os
import resource

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from tfzoo.training import events
from tfzoo.training.events import NAME, Events, graph_of
from tfzoo.training.speed import Speed


def network(name="net"):
    image = keras.Input((4, 4, 3), name="image")
    return keras.Model(image, keras.layers.Conv2D(2, 3, padding="same", name="logits")(image), name=name)


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (7, 5), (colour, 0, 0)).save(file, "PNG")
    return file.getvalue()


def speed(examples_per_second):
    found = Speed(1, steps_per_epoch=1, epochs=9)
    found.examples_per_second = lambda: examples_per_second
    return found


def run(folder, epochs, start=0, draw=None, factor=1.0):
    """Write events of some epochs."""
    callback = Events(
        folder, start, speed=speed(3.5), graph=lambda: graph_of({"model": network()}), draw=draw and (lambda: draw)
    )
    callback.on_train_begin()
    for epoch in range(start, epochs):
        logs = {"loss": factor / (epoch + 1), "val_iou": np.float32(0.1 * epoch), "per_class": np.ones(3)}
        callback.on_epoch_end(epoch, logs)


def read(folder):
    """Let TensorBoard read a folder, everything that is there."""
    found = EventAccumulator(str(folder), size_guidance={SCALARS: 0, IMAGES: 0}, purge_orphaned_data=False)
    return found.Reload()


def scalars(folder, name):
    return [(point.step, point.value) for point in read(folder).Scalars(name)]


def test_scalars_are_those_of_the_logs(tmp_path):
    run(tmp_path, 3)
    found = read(tmp_path)
    assert set(found.Tags()["scalars"]) == {"loss", "val_iou", "examples_per_second"}
    expected = [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    np.testing.assert_allclose(scalars(tmp_path, "loss"), expected, rtol=1e-6)
    np.testing.assert_allclose(scalars(tmp_path, "val_iou"), [(0, 0.0), (1, 0.1), (2, 0.2)], rtol=1e-6)
    assert scalars(tmp_path, "examples_per_second") == [(0, 3.5), (1, 3.5), (2, 3.5)]


def test_pictures_are_those_that_were_drawn(tmp_path):
    run(tmp_path, 2, draw=png(200))
    found = read(tmp_path).Images("validation")
    assert [image.step for image in found] == [0, 1] and (found[0].width, found[0].height) == (7, 5)
    assert np.asarray(Image.open(io.BytesIO(found[0].encoded_image_string)))[0, 0].tolist() == [200, 0, 0]


def test_the_graph_is_that_of_the_networks_and_holds_no_weights(tmp_path):
    both = {"generator": network("generator"), "critic": network("critic")}
    Events(tmp_path, 0, speed=speed(1.0), graph=lambda: graph_of(both)).on_train_begin()
    graph = tf.compat.v1.GraphDef.FromString(read(tmp_path).Graph().SerializeToString())
    for name in both:
        convolutions = [node for node in graph.node if node.op == "Conv2D" and node.name.startswith(name)]
        assert len(convolutions) == 1 and "logits" in convolutions[0].name
    with tf.Graph().as_default():
        tf.graph_util.import_graph_def(graph)  # TensorFlow takes it for a whole one
    constants = [tf.make_ndarray(node.attr["value"].tensor).size for node in graph.node if node.op == "Const"]
    assert max(constants, default=0) < 10


def test_a_run_that_goes_on_has_every_epoch_once(tmp_path):
    run(tmp_path, 4, draw=png(1), factor=7.0)
    graph = read(tmp_path).Graph()
    run(tmp_path, 5, start=2, draw=png(2))
    np.testing.assert_allclose(
        scalars(tmp_path, "loss"), [(0, 7.0), (1, 3.5), (2, 1 / 3), (3, 0.25), (4, 0.2)], rtol=1e-6
    )
    assert [image.step for image in read(tmp_path).Images("validation")] == [0, 1, 2, 3, 4]
    assert read(tmp_path).Graph() == graph
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize("start", [3, 2, 1])
def test_a_tensorboard_that_is_open_reads_on(start, tmp_path):
    run(tmp_path, 3, draw=png(9))
    viewer = read(tmp_path)
    run(tmp_path, 5, start=start, draw=png(9))
    assert [point.step for point in viewer.Reload().Scalars("loss")] == [0, 1, 2, 3, 4]
    assert [image.step for image in viewer.Images("validation")] == [0, 1, 2, 3, 4]


def test_where_nothing_is_made_again_the_file_only_grows(tmp_path):
    run(tmp_path, 2)
    before = (tmp_path / NAME).read_bytes()
    run(tmp_path, 4, start=2)
    assert (tmp_path / NAME).read_bytes().startswith(before)


@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_a_file_with_nothing_in_it_is_begun_anew(content, tmp_path):
    (tmp_path / NAME).write_bytes(content)
    run(tmp_path, 2, start=1)
    assert read(tmp_path).Graph().node and [step for step, _ in scalars(tmp_path, "loss")] == [1]


@pytest.mark.parametrize("rubbish", [b"x", b"x" * 100, b"half"])
def test_what_a_kill_left_half_written_is_taken_out(rubbish, tmp_path):
    run(tmp_path, 3)
    path = tmp_path / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] if rubbish == b"half" else whole + rubbish)
    run(tmp_path, 4, start=3 if rubbish != b"half" else 2)
    assert [step for step, _ in scalars(tmp_path, "loss")] == [0, 1, 2, 3]


def test_records_that_are_none_of_tensorboards_are_taken_out(tmp_path):
    run(tmp_path, 1)
    path = tmp_path / NAME
    events.write(str(tmp_path / "other"), [b"\xff" * 20])
    path.write_bytes(path.read_bytes() + (tmp_path / "other").read_bytes())
    (tmp_path / "other").unlink()
    run(tmp_path, 2, start=1)
    assert [step for step, _ in scalars(tmp_path, "loss")] == [0, 1]


def test_where_there_is_no_room_nothing_is_added(tmp_path):
    run(tmp_path, 1)
    before = (tmp_path / NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))  # for a part of the record
    try:
        with pytest.raises(OSError, match="File too large"):
            events.append(tmp_path / NAME, [events.event(1, file_version="x" * 20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / NAME).read_bytes() == before and os.listdir(tmp_path) == [NAME]
