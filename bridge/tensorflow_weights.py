"""What `tf.train.Checkpoint` has written of a Keras model, into a Keras model of the same layers, whatever their names.

Such a checkpoint goes by the graph of objects, in which a model's layers are numbered; which of the objects in it is
the model is tried. Where other layers lie between them, such as a Dropout more, the numbers are others: then the order,
the kinds and the shapes of those that have weights decide. Nothing but the weights is read: no optimizer is restored.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge import keras_weights, matching, state_dict, untrusted
from bridge.checkpoints import tensorflow as reader
from bridge.graph import BridgeError

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# What a compiled model has besides its layers; an optimizer knows the weights, too, and by shorter ways.
BESIDE = {
    "optimizer",
    "save_counter",
    "seed_generator",
    "_compile_loss",
    "_compile_metrics",
    "_loss_tracker",
    "keras_api",
}


@dataclass
class Found:
    """Where the weights of a model are in a checkpoint.

    Attributes:
        names: The name of each weight in the checkpoint, by its path in the model.
        notes: What else the checkpoint has.
        fill: Fills the model.
    """

    names: dict[str, str]
    notes: list[str]
    fill: Callable[[], None]


def is_checkpoint(path: str) -> bool:
    """Tell whether a path means a checkpoint of TensorFlow: its prefix, `.index`, a folder of such, a SavedModel."""
    given = Path(path)
    if given.is_dir():
        is_one = (given / "saved_model.pb").exists() or any(given.glob("*.index"))
        return is_one and not (given / "model.py").exists()
    return Path(f"{path.removesuffix('.index')}.index").is_file()


def find(model, path: str) -> Found:
    """Find the weights of a model in a checkpoint, all of them and no more, and change nothing.

    Args:
        model: A `keras.Model`.
        path: What `is_checkpoint` takes; of a folder the newest.

    Raises:
        BridgeError: The checkpoint cannot be read, or is of other layers, or has NaN or infinite numbers; it says all
            that is wrong of each object that might be the model.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    try:
        checkpoint = tf.train.load_checkpoint(reader.find(path))
        graph.ParseFromString(checkpoint.get_tensor(GRAPH))
        roots = {child.local_name: child.node_id for child in graph.nodes[0].children}
        roots = {name: start for name, start in roots.items() if graph.nodes[start].children and name not in BESIDE}
        stored = {name: _stored(graph, start) for name, start in roots.items()} | {"": _stored(graph, 0)}
        shapes = checkpoint.get_variable_to_shape_map()
    except Exception as e:  # a damaged one fails anywhere
        raise BridgeError(f"{path} cannot be loaded into {model.name}: {untrusted.why(e)}") from e
    stored = {name: {place: key for place, key in keys.items() if key in shapes} for name, keys in stored.items()}
    own = _variables(model)
    if lost := [v.path for v in model.weights if not any(v is other for other in own.values())]:
        raise BridgeError(
            f"{path} cannot be loaded into {model.name}: checkpoints of TensorFlow do not hold what layers keep in "
            f"lists or dictionaries: {', '.join(lost)}. Give a .weights.h5 file, or the model"
        )
    fits, reasons = {}, []
    for name, keys in stored.items():
        if not keys or any(set(keys.values()) == set(stored[other].values()) for other in fits):
            continue  # the same by another way
        try:
            fits[name] = _pairs(model.name, own, {place: tuple(shapes[key]) for place, key in keys.items()})
        except BridgeError as e:
            reasons.append(f"as {name!r:.60}: {e}" if name else str(e))
    if not fits:
        why = "\n".join(reasons) or "there is no object with variables in it"
        raise BridgeError(f"{path} cannot be loaded into {model.name}, by the order of its layers: {why}")
    if len(fits) > 1 and "" in fits:
        del fits[""]  # all of them together
    if len(fits) > 1:
        raise BridgeError(
            f"{path} has {len(fits)} objects that {model.name} may be: {', '.join(fits)}. Restore the one that you "
            "mean with tf.train.Checkpoint, or save it alone"
        )
    (name, pairs) = next(iter(fits.items()))
    try:
        values = {mine: checkpoint.get_tensor(stored[name][theirs]) for mine, theirs in pairs.items()}
    except Exception as e:
        raise BridgeError(f"{path} cannot be loaded into {model.name}: {untrusted.why(e)}") from e
    values = {mine: value.astype(np.float32) if value.dtype.kind == "V" else value for mine, value in values.items()}
    held = {own[mine].path: (value, np.dtype(own[mine].dtype)) for mine, value in values.items()}
    places = {path: state_dict.Place(None, value) for path, (value, _) in held.items()}
    problems = state_dict.differences(places, {path: value for path, (value, _) in held.items()})
    if problems := problems or state_dict.rounded_away(held):
        raise BridgeError(f"{path} cannot be loaded into {model.name}: {'; '.join(problems)}")

    def fill():
        for mine, value in values.items():
            own[mine].assign(value)
        keras_weights.finalize(model)

    others = {n: len(keys) for n, keys in stored.items() if n and not set(keys.values()) <= set(stored[name].values())}
    notes = [f"{path} has more, which is left out: {n} ({count} variables)" for n, count in others.items()]
    names = {own[mine].path: stored[name][theirs].removesuffix(reader.VALUE) for mine, theirs in pairs.items()}
    return Found(names, notes, fill)


def _pairs(kind: str, own: Mapping, theirs: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Pair the places of a model's weights with those of an object's variables, all of both."""
    shapes = {place: tuple(v.shape) for place, v in own.items()}
    if shapes == theirs:
        return {place: place for place in shapes}
    pairs, left, missing = matching.match(theirs, shapes)
    if left or missing:
        raise BridgeError(
            f"without a place in {kind}: {', '.join(left) or 'nothing'}; not filled: {', '.join(missing) or 'nothing'}"
        )
    return {pair.target: pair.source for pair in pairs}


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


def pieces(name: str) -> list[tuple[bool, int | str]]:
    """Cut a name so that `layer-10` comes behind `layer-2`."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"([0-9]+)", name) if part]


def _below(start, children: Callable, identity: Callable) -> dict[str, object]:
    """What lies below an object, by its shortest way from there, in the order of the numbers in these."""
    found = {identity(start): ((), start)}
    left = [((), start)]
    for place, node in left:
        for name, child in children(node).items():
            if name not in BESIDE and identity(child) not in found:
                found[identity(child)] = (*place, name), child
                left.append(found[identity(child)])
    numbered = sorted(found.values(), key=lambda one: [pieces(name) for name in one[0]])
    return {"/".join(place): node for place, node in numbered}
