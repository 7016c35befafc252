"""What `tf.train.Checkpoint` has written of a Keras model, into a Keras model of the same layers, whatever their names.

Such a checkpoint goes by the graph of objects, in which a model's layers are numbered; which of the objects in it is
the model is tried. Where other layers lie between them, such as a Dropout more, the numbers are others: then the order,
the kinds and the shapes of those that have weights decide.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bridge import matching, untrusted
from bridge.checkpoints import tensorflow as reader
from bridge.checkpoints.difference import finite
from bridge.graph import BridgeError

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What a compiled model has besides its layers; an optimizer knows the weights, too, and by shorter ways.
BESIDE = {"optimizer", "_loss_tracker", "_compile_loss", "_compile_metrics", "keras_api", "seed_generator"}


def is_checkpoint(path: str) -> bool:
    """Tell whether a path means a checkpoint of TensorFlow: its prefix, its `.index`, or a folder of such."""
    given = Path(path)
    if given.is_dir():
        return any(given.glob("*.index")) and not (given / "model.py").exists()
    return Path(f"{path.removesuffix('.index')}.index").is_file()


def load(model, path: str, dry_run: bool = False) -> dict[str, str]:
    """Fill a model from a checkpoint; every weight must be there.

    Args:
        model: A `keras.Model`.
        path: What `is_checkpoint` takes; of a folder the newest.
        dry_run: Look whether it fits, and change nothing.

    Returns:
        The name of each weight in the checkpoint, by its path.

    Raises:
        BridgeError: The checkpoint cannot be read, or is of other layers, or has NaN or infinite numbers. The model has
            not been changed then.
    """
    prefix = reader.find(path)
    before = [np.asarray(v).copy() for v in model.weights]
    keys, why = _restored(model, prefix)
    bad = [] if why else [v.path for v in model.weights if not finite(np.asarray(v))]
    if why or bad or dry_run:
        for variable, value in zip(model.weights, before, strict=True):
            variable.assign(value)
    if why:
        raise BridgeError(f"{path} cannot be loaded into {model.name}, by the order of its layers: {why}")
    if bad:
        raise BridgeError(f"{path}: {len(bad)} weight(s) have NaN or infinite numbers: {', '.join(bad)}")
    return {path: key.removesuffix(reader.VALUE) for path, key in keys.items()}


def _restored(model, prefix: str) -> tuple[dict[str, str], str]:
    """Restore a model from whichever object it is, or say why none fits."""
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    try:
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        checkpoint = tf.train.load_checkpoint(prefix)
        graph.ParseFromString(checkpoint.get_tensor(GRAPH))
        roots = {child.local_name: child.node_id for child in graph.nodes[0].children}
        roots = {name: start for name, start in roots.items() if graph.nodes[start].children}
        stored = {name: _stored(graph, start) for name, start in (roots | {"root": 0}).items()}
    except Exception as e:  # a damaged one fails anywhere
        return {}, untrusted.why(e)
    own = _variables(model)
    reasons = []
    for name, keys in stored.items():
        try:
            tf.train.Checkpoint(**{name: model}).restore(prefix).expect_partial().assert_existing_objects_matched()
            return {v.path: keys.get(place, v.path) for place, v in own.items()}, ""
        except Exception as e:
            reasons.append(f"as {name!r:.60}: {untrusted.why(e)}")
    for keys in stored.values():
        try:
            arrays = {place: checkpoint.get_tensor(key) for place, key in keys.items()}
            shapes = {place: tuple(v.shape) for place, v in own.items()}
            arrays, pairs = matching.renamed(model.name, arrays, shapes, set())
        except Exception as e:
            reasons.append(f"{untrusted.why(e)}")
            continue
        for place, value in arrays.items():
            own[place].assign(value)
        return {own[pair.target].path: keys[pair.source] for pair in pairs}, ""
    return {}, "; ".join(reasons)[:1500]


def _stored(graph, start: int) -> dict[str, str]:
    """The keys of an object's variables in a checkpoint, by their places."""
    nodes = _below(start, lambda i: {child.local_name: child.node_id for child in graph.nodes[i].children}, int)
    keys = {place: [a.checkpoint_key for a in graph.nodes[i].attributes] for place, i in nodes.items()}
    return {place: found[0] for place, found in keys.items() if found and found[0].endswith(reader.VALUE)}


def _variables(model) -> dict[str, object]:
    """The weights of a model, by their places."""
    import tensorflow as tf

    weights = {id(v) for v in model.weights}
    nodes = _below(model, tf.train.TrackableView(model).children, id)
    return {place: node for place, node in nodes.items() if id(node) in weights}


def _below(start, children: Callable, identity: Callable) -> dict[str, object]:
    """What lies below an object, by its shortest way from there, in the order of the numbers in these."""
    found = {identity(start): ((), start)}
    left = [((), start)]
    for place, node in left:
        for name, child in children(node).items():
            if name not in BESIDE and identity(child) not in found:
                found[identity(child)] = (*place, name), child
                left.append(found[identity(child)])
    numbered = sorted(found.values(), key=lambda one: [(n.isdigit(), int(n) if n.isdigit() else n) for n in one[0]])
    return {"/".join(place): node for place, node in numbered}
