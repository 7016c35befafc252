"""Checkpoints of TensorFlow and variables of a SavedModel, by their paths in the graph of objects."""

import numpy as np
import pytest
import tensorflow as tf

import bridge
from bridge import checkpoints


def kernel(model):
    return next(v for v in model.variables if v.path.endswith("stem/kernel")).numpy()


@pytest.mark.parametrize("how", ["prefix", "index", "folder"])
def test_a_checkpoint(model, files, how):
    prefix = files["tf"]
    path = {"prefix": prefix, "index": f"{prefix}.index", "folder": prefix.rpartition("/")[0]}[how]
    with checkpoints.open(path) as found:
        assert "save_counter" in found and found["save_counter"] == 1
        arrays = [array for array in found.values() if array.shape == kernel(model).shape]
        assert any(np.array_equal(kernel(model), array) for array in arrays)
        assert not any(".ATTRIBUTES" in name or name.startswith("_CHECKPOINTABLE") for name in found)


def test_the_newest_of_a_folder(tmp_path):
    variable = tf.Variable(1.0)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=variable), tmp_path, max_to_keep=None)
    for value in (1.0, 2.0):
        variable.assign(value)
        manager.save()
    with checkpoints.open(tmp_path) as found:
        assert found["v"] == 2.0


def test_a_saved_model(model, tmp_path):
    model.export(tmp_path / "saved", verbose=False)
    with checkpoints.open(tmp_path / "saved") as found:
        assert any(np.array_equal(kernel(model), array) for array in found.values())


def test_text_is_left_out_and_short_floats_are_read(tmp_path):
    held = {"text": tf.Variable("a"), "half": tf.Variable([1.5, 2.5], dtype=tf.bfloat16)}
    prefix = tf.train.Checkpoint(**held).save(tmp_path / "c")
    with checkpoints.open(prefix) as found:
        assert [name.partition("/")[0] for name in found.left_out] == ["text"]
        assert found["half"].dtype == "bfloat16" and found["half"].tolist() == [1.5, 2.5]


def test_what_is_none(tmp_path):
    (tmp_path / "bad.index").write_bytes(b"none")
    for path, message in (
        (tmp_path, "bad cannot be read|bad.index|cannot be read"),
        (tmp_path / "other", "no such checkpoint. Accepted: a file that ends with .keras"),
        (tmp_path / "a.txt", "no such checkpoint"),
    ):
        with pytest.raises(bridge.BridgeError, match=message), checkpoints.open(path):
            pass
    (tmp_path / "empty").mkdir()
    with pytest.raises(bridge.BridgeError, match="has no checkpoint in it"), checkpoints.open(tmp_path / "empty"):
        pass
