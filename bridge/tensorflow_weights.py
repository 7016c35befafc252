"""What `tf.train.Checkpoint` has written of a Keras model, into a Keras model of the same layers, whatever their names.

Such a checkpoint goes by the graph of objects, in which a model's layers are numbered; which of the objects in it is
the model is tried.
"""

from pathlib import Path

import numpy as np

from bridge import untrusted
from bridge.checkpoints import tensorflow as reader
from bridge.checkpoints.difference import finite
from bridge.graph import BridgeError

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def is_checkpoint(path: str) -> bool:
    """Tell whether a path means a checkpoint of TensorFlow: its prefix, its `.index`, or a folder of such."""
    given = Path(path)
    if given.is_dir():
        return any(given.glob("*.index")) and not (given / "model.py").exists()
    return Path(f"{path.removesuffix('.index')}.index").is_file()


def load(model, path: str, dry_run: bool = False) -> None:
    """Fill a model from a checkpoint; every weight must be there.

    Args:
        model: A `keras.Model`.
        path: What `is_checkpoint` takes; of a folder the newest.
        dry_run: Look whether it fits, and change nothing.

    Raises:
        BridgeError: The checkpoint cannot be read, or is of other layers, or has NaN or infinite numbers. The model has
            not been changed then.
    """
    prefix = reader.find(path)
    before = [np.asarray(v).copy() for v in model.weights]
    why = _restored(model, prefix)
    bad = [] if why else [v.path for v in model.weights if not finite(np.asarray(v))]
    if why or bad or dry_run:
        for variable, value in zip(model.weights, before, strict=True):
            variable.assign(value)
    if why:
        raise BridgeError(f"{path} cannot be loaded into {model.name}, by the order of its layers: {why}")
    if bad:
        raise BridgeError(f"{path}: {len(bad)} weight(s) have NaN or infinite numbers: {', '.join(bad)}")


def _restored(model, prefix: str) -> str:
    """Restore a model from whichever object it is, or say why none fits."""
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    try:
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        graph.ParseFromString(tf.train.load_checkpoint(prefix).get_tensor(GRAPH))
        roots = [child.local_name for child in graph.nodes[0].children if graph.nodes[child.node_id].children]
    except Exception as e:  # a damaged one fails anywhere
        return untrusted.why(e)
    reasons = []
    for attempt in ({name: model} for name in roots):
        try:
            tf.train.Checkpoint(**attempt).restore(prefix).assert_existing_objects_matched()
            return ""
        except Exception as e:
            reasons.append(f"as {next(iter(attempt))!r:.60}: {untrusted.why(e)}")
    try:
        tf.train.Checkpoint(root=model).restore(prefix).assert_existing_objects_matched()
        return ""
    except Exception as e:
        return "; ".join([*reasons, untrusted.why(e)])[:1500]
