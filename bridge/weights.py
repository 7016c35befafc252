"""Weights from a model of one framework into the user's own model of the other, whatever its layers are called.

A source that can be run is aligned with the target by what the two compute (`bridge.model_weights`). So a checkpoint
that was trained on one side loads on the other: into the module or model of that side first, and from there by
`load_weights`. Of a state dict, or a file of weights alone, the names decide, else the order, the kinds and the shapes
of the layers.
"""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bridge import matching, model_weights, naming, sources, state_dict, tensorflow_weights
from bridge.graph import BridgeError
from bridge.matching import Plan, Row

BY_NAME, BY_CLASS = "by name", "by class and order"


def load_weights(target, source, names: "naming.Table | None" = None, example_inputs: tuple | None = None):
    """Copy every weight and statistic of a model, or of a file, into a model that computes the same.

    Args:
        target: A functional or Sequential `keras.Model`, or a `torch.nn.Module`; it is changed in place.
        source: The same of the other framework, or a Keras model for a Keras model; or a state dict of torch, or a
            file: of a state dict (`.safetensors`, `.pt`), or one of Keras (`.keras`, `.weights.h5`, what
            `tf.train.Checkpoint` has written, and for a Keras model `.h5`). All of it must find a place, and all of the
            target be filled.
        names: The names of a state dict for a Keras model, as `bridge.to_torch` takes them; by default those that the
            bridge gives. Where the names are others, the order, the kinds and the shapes of the layers decide.
        example_inputs: Tensors as for a call of a module that is filled from Keras' weights alone, which are put into
            its twin in Keras first.

    Returns:
        The target.

    Raises:
        BridgeError: One of them cannot be carried, or they do not compute the same, or the names do not fit, or there
            are NaN or infinite numbers: nothing has been changed then.
    """
    made = plan(target, source, names, example_inputs)
    made.fill()
    for note in made.notes:
        warnings.warn(note, stacklevel=2)
    return target


def plan(
    target,
    source,
    names: "naming.Table | None" = None,
    example_inputs: tuple | None = None,
    dynamic: list[set[int]] | None = None,
) -> Plan:
    """Find out what `load_weights` would do, and change nothing.

    Takes and raises the same, and takes what `bridge.to_keras` does.
    """
    import keras
    import torch

    kinds = (keras.Model, torch.nn.Module)
    if not isinstance(target, kinds) or not isinstance(source, (*kinds, str, os.PathLike, Mapping)):
        raise BridgeError(
            "load_weights takes a keras.Model or a torch.nn.Module, and a model, a state dict or a file for it. "
            f"Received: {type(target).__name__} and {type(source).__name__}"
        )
    of_names = isinstance(source, Mapping) or str(source).endswith(sources.TORCH)
    if names is not None and not (
        isinstance(names, Mapping)
        and all(isinstance(k, str) and isinstance(v, (str, Mapping)) for k, v in names.items())
    ):
        raise BridgeError(f"names is a dictionary from patterns to names. Received: {names!r:.200}")
    if names is not None and not of_names:
        raise BridgeError("a table of names is for a state dict: leave it out, this source needs none")
    if isinstance(source, Mapping) and (wrong := [name for name in source if not isinstance(name, str)]):
        raise BridgeError(f"the names in a state dict are texts. Received: {', '.join(map(repr, wrong[:5]))}")
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
    alone = path.endswith(".weights.h5") or (path and tensorflow_weights.is_checkpoint(path))
    if example_inputs is not None and not (alone and isinstance(target, torch.nn.Module)):
        raise BridgeError(
            "example inputs are for a torch module and Keras' weights alone (.weights.h5, tf.train.Checkpoint): leave "
            "them out"
        )
    if path:
        if path.endswith(sources.KERAS) and isinstance(target, keras.Model):
            return _keras_file(target, path)
        if tensorflow_weights.is_checkpoint(path) and isinstance(target, keras.Model):
            return _tensorflow(target, path)
        if alone:
            return _through_twin(target, path, example_inputs, dynamic)
        source = sources.load(path) if path.endswith(sources.KERAS) else sources.read_state(path)
    if isinstance(source, Mapping):
        return (_state if isinstance(target, keras.Model) else _into_module)(target, source, names)
    if not isinstance(source, keras.Model) and not isinstance(target, keras.Model):
        raise BridgeError(
            f"load_weights takes a Keras model, a state dict or a file for a torch module. Received: "
            f"{type(source).__name__}. Give its state_dict()"
        )
    return model_weights.running(target, source)


def _tensorflow(model, path: str) -> Plan:
    """A checkpoint of TensorFlow into a Keras model, by the graph of objects."""
    found = tensorflow_weights.find(model, path)
    shapes = {v.path: tuple(v.shape) for v in model.weights}
    rows = [Row(found.names[name], name, state_dict.AS_IT_IS, s, s, BY_CLASS) for name, s in shapes.items()]
    return Plan(lambda: rows, found.fill, [_unconfirmed(path, rows), *found.notes])


def _keras_file(model, path: str) -> Plan:
    """A file of Keras into a Keras model: by the names of the layers, else as a model, else by classes and order."""
    from bridge import keras_weights

    try:
        found, ordered = keras_weights.load(model, path, by_order=not path.endswith(".keras"), dry_run=True)
    except BridgeError as e:
        if path.endswith(".weights.h5"):
            raise
        try:
            return model_weights.running(model, sources.load(path))
        except BridgeError:
            raise e from None
    how = BY_CLASS if ordered else BY_NAME
    rows = [Row(source, name, state_dict.AS_IT_IS, shape, shape, how) for source, name, shape in found]
    fill = lambda: keras_weights.load(model, path, by_order=ordered)  # noqa: E731
    return Plan(lambda: rows, fill, [_unconfirmed(path, rows)] if ordered else [])


def _through_twin(module, path: str, example_inputs: tuple | None, dynamic: list[set[int]] | None) -> Plan:
    """Keras' weights alone into a module: into its twin in Keras, and from there."""
    import keras

    from bridge import convert

    if example_inputs is None:
        raise BridgeError(
            f"{path} has weights alone, which do not say what a torch module's are: give the .keras file, the model, "
            "or the module's inputs (example_inputs, --input), so that it can be carried to Keras first"
        )
    twin = convert.to_keras(module, example_inputs, dynamic)
    turned = [x.name for x in twin.layers if isinstance(x, keras.layers.Flatten) and _permuted(x)]
    if turned:
        raise BridgeError(
            f"{type(module).__name__} flattens a picture ({', '.join(turned)}) so that weights alone do not say in "
            "which order the rows behind it are: channels come last in Keras. Carry the Keras model by bridge.to_torch"
        )
    first = plan(twin, path)
    first.fill()
    second = model_weights.running(module, twin)

    def rows() -> list[Row]:
        known = {row.target.replace("/", "."): row for row in first.rows()}
        found = [(row, known.get(row.source.replace("/", "."))) for row in second.rows()]
        return [replace(row, source=known.source, how=known.how) if known else row for row, known in found]

    notes = [f"{path} has weights alone: that the module computes what they were trained for cannot be tried"]
    if moved := [x.name for x in twin.layers if type(x).__name__ == "Permute"]:
        notes.append(
            f"{type(module).__name__} turns axes ({', '.join(moved[:10])}): that the weights behind are of rows in "
            "this order cannot be known"
        )
    return Plan(rows, second.fill, [*first.notes, *notes])


def _permuted(layer) -> bool:
    """Tell whether a layer takes what a Permute gives."""
    tensors = [x for node in layer._inbound_nodes for x in node.input_tensors]
    return any(type(x._keras_history.operation).__name__ == "Permute" for x in tensors)


def _state(model, state: Mapping, names: "naming.Table | None") -> Plan:
    """A state dict into a Keras model."""
    expected, arrays, pairs = state_dict.prepared(model, state, names)
    known = {pair.target: pair for pair in pairs}
    rows = [
        Row(
            known[name].source if name in known else name,
            place.variable.path,
            state_dict.transform(place),
            place.cells.shape,
            tuple(place.variable.shape),
            known[name].how if name in known else BY_NAME,
        )
        for name, place in state_dict.weights_of(expected).items()
    ]
    return Plan(lambda: rows, lambda: state_dict.fill(model, arrays, expected), _doubts("the state dict", rows))


def _into_module(module, state: Mapping, names: "naming.Table | None" = None) -> Plan:
    """A state dict into a module, by its names or by the order, the kinds and the shapes of the layers."""
    if names is not None:
        raise BridgeError("a table of names is for a Keras model. Leave it out: a module's names are its own")
    import torch

    own = {
        n: np.asarray(v.detach().cpu()) for n, v in module.state_dict().items() if not n.endswith(state_dict.COUNTER)
    }
    found = {n: state_dict.array(v) for n, v in state_dict.unwrapped(state, own).items()}
    arrays = {n: v for n, v in found.items() if not n.endswith(state_dict.COUNTER)}
    pairs = {}
    if state_dict.others(arrays, own):
        shapes = {name: value.shape for name, value in own.items()}
        arrays, listed = matching.renamed(type(module).__name__, arrays, shapes, set())
        pairs = {pair.target: pair for pair in listed}
    problems = state_dict.differences({name: state_dict.Place(None, value) for name, value in own.items()}, arrays)
    if not problems:
        problems = state_dict.rounded_away({name: (arrays[name], own[name].dtype) for name in arrays})
        problems += _contradictions(module, arrays)
    counters = {n: v for n, v in found.items() if n.endswith(state_dict.COUNTER) and n in module.state_dict()}
    if wrong := [f"{n} {v.shape}" for n, v in counters.items() if v.shape or v.dtype.kind not in "iu"]:
        problems.append(f"{len(wrong)} that should be one whole number: {', '.join(wrong)}")
    if problems:
        raise BridgeError("\n  - ".join([f"the state dict is not one of {type(module).__name__}:", *problems]))
    rows = [
        Row(
            pairs[n].source if n in pairs else n,
            n,
            state_dict.AS_IT_IS,
            v.shape,
            v.shape,
            pairs[n].how if n in pairs else BY_NAME,
        )
        for n, v in arrays.items()
    ]

    def fill():
        module.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in (arrays | counters).items()}, strict=False)

    return Plan(lambda: rows, fill, _doubts("the state dict", rows))


def _contradictions(module, arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Say which tensors are one in a module and two in a state dict."""
    first: dict[int, str] = {}
    wrong = []
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name in arrays and tensor.numel():
            other = first.setdefault(id(tensor), name)
            if not np.array_equal(arrays[other], arrays[name], equal_nan=True):
                wrong.append(f"{name} differs from {other}, which is the same tensor in {type(module).__name__}")
    return wrong


def _doubts(kind: str, rows: list[Row]) -> list[str]:
    """Say which layers only their order tells apart."""
    doubted = [row for row in rows if row.how == matching.ORDER]
    return [_unconfirmed(kind, doubted)] if doubted else []


def _unconfirmed(kind: str, rows: list[Row]) -> str:
    layers = list(dict.fromkeys(matching.END.fullmatch(row.source)[1] or row.source for row in rows))
    shown = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if len(layers) > 5 else "")
    return (
        f"of {len(layers)} layers ({shown}) the order alone says which is which: that two of one shape are swapped "
        f"could only be seen by running the source, and {kind} cannot be run"
    )
