"""Weights from elsewhere into a family's model: state dicts of PyTorch projects, and Keras' own files."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from tfzoo.pretrained.download import fetch, is_address

KERAS = (".weights.h5", ".keras", ".h5")
TORCH = (".safetensors", ".pt", ".pth", ".bin")
ACCEPTED = f"Accepted for weights: {', '.join((*KERAS, *TORCH))}, or the address of one."


def load(model, weights: str | os.PathLike, family: ModuleType) -> None:
    """Fill a model's weights from a file; nothing is changed if anything does not fit.

    Args:
        model: A `keras.Model` of the family.
        weights: A file of Keras (`.keras`, `.weights.h5`, `.h5`), or a state dict of PyTorch (`.safetensors`, `.pt`,
            `.pth`, `.bin`) with the names that one of the projects of the family's `NAMES` uses; or the address of one,
            as `tfzoo.pretrained.download` takes it.
        family: The module of the model's family. If it has `resize_for(model, name, value, shape)`, that may bring a
            tensor of another shape to the model's, such as position embeddings of another image size; the name is the
            layer's where the file is one of Keras.

    Raises:
        ValueError: There is no such file, or it does not fit: lists every name that is missing, unexpected or of
            another shape, by the project's table that fits best or the names of Keras' layers.
    """
    if "://" in str(weights) and not is_address(weights):
        raise ValueError(
            f"an address of weights must begin with https:// or file://. Received: {weights}. Take https://, or fetch "
            "the file yourself and give its path"
        )
    path = fetch(weights) if is_address(weights) else Path(weights)
    if not path.is_file():
        raise ValueError(f"there is no file {path}. {ACCEPTED}")
    if path.name.endswith(KERAS):
        from bridge import keras_weights

        keras_weights.load(model, str(path), resize_of(model, family))
    elif path.name.endswith(TORCH):
        load_state(model, path, family)
    else:
        raise ValueError(f"{path.name} is of no kind that is read. {ACCEPTED}")


def load_state(model, path: Path, family: ModuleType) -> None:
    """Fill a model from a state dict by the table that shares the most names with it, or the bridge's own names."""
    from bridge import state_dict
    from bridge.sources import read_state

    state = {name: state_dict.array(value) for name, value in state_dict.unwrapped(read_state(str(path))).items()}
    most, best, places = -1, "", {}
    for project, table in {**getattr(family, "NAMES", {}), "the bridge": {}}.items():
        found = state_dict.places(model, table)
        if (shared := len(found.keys() & state.keys())) > most:
            most, best, places = shared, project, found
        if most == len(state):
            break
    if resize := resize_of(model, family):
        for name, place in places.items():
            if place is not None and name in state and state[name].shape != place.cells.shape:
                state[name] = resize(name, state[name], place.cells.shape)
    try:
        state_dict.fill(model, state, places)
    except ValueError as error:
        raise ValueError(f"{path}, by the names of {best}: {error}") from error


def resize_of(model, family: ModuleType) -> Callable | None:
    """A family's `resize_for` for this model, if it has one."""
    return functools.partial(family.resize_for, model) if hasattr(family, "resize_for") else None
