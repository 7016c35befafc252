"""A file of Keras' weights into a Keras model, by the names of its layers.

Keras itself goes by classes and order, so that the file of another network may happen to fit. That remains so for
layers without a name of their own (`dense_3`), and, with a warning, where the file has no names.
"""

import contextlib
import itertools
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bridge import state_dict, untrusted
from bridge.checkpoints import hdf5
from bridge.graph import BridgeError

ACCEPTED = "Accepted: a .keras, .weights.h5 or .h5 file"
OPTIMIZER = re.compile("(^|_)optimizer$")
SEED = "seed_generator"


def load(
    model, path: str, resize: Callable | None = None, by_order: bool = False, dry_run: bool = False
) -> tuple[list[tuple[str, str, tuple[int, ...]]], bool]:
    """Load a file of weights into a model; every weight must be there.

    Args:
        model: A `keras.Model`.
        path: A `.keras`, `.weights.h5` or `.h5` file.
        resize: `resize(layer, value, shape)` may bring what the file has to the shape that the model wants.
        by_order: Where fewer than half of the names are there, the classes of the layers, their order and their shapes
            may say what is what.
        dry_run: Look whether it fits, and change nothing.

    Returns:
        What the file calls each weight, what the model calls it, and its shape; and whether the order decided.

    Raises:
        BridgeError: The file cannot be read; or it does not fit, with every name that is missing, unexpected, of
            another shape, or that has NaN or infinite numbers. The model has not been changed then.
    """
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        own = str(Path(folder) / "own.weights.h5")  # the model's, to be compared with the file and filled from it
        try:
            model.save_weights(own)
        except Exception as e:  # it is not built, or the disk is full
            raise BridgeError(f"{path} cannot be loaded into {model.name}: {untrusted.why(e)}") from e
        with h5py.File(own, "r+") as target:
            ordered, titles = False, ({}, {})
            with _stored(path, model) as source:
                old = not path.endswith((".keras", ".weights.h5"))
                named = old or hdf5.is_named(source)
                found, places = _old_layers(source, model) if old else _layers(source, target, named)
                if by_order and not old and named and state_dict.others(found, places):
                    both = _layers(source, target, False)
                    if ordered := both[0].keys() == both[1].keys():
                        titles = [dict(zip(b, a, strict=True)) for a, b in zip((found, places), both, strict=True)]
                        found, places = both
                elif not named:
                    ordered = True
                    compared = "their classes, order and shapes are all that could be compared"
                    warnings.warn(f"{path} has no names of layers: {compared}", stacklevel=2)
                if (asked := sum(x.nbytes for x in found.values())) > untrusted.room(path):
                    raise ValueError(f"its weights unpack to {asked:,} bytes")
                said = {} if ordered else _words(model)
                state = {said.get(name, name): _numbers(x) for name, x in found.items()}
            places = {said.get(name, name): place for name, place in places.items()}
            for name, place in places.items() if resize else ():
                if name in state and state[name].shape != place.cells.shape:
                    state[name] = resize(name.rpartition("/")[0], state[name], place.cells.shape)
            dtypes = {name: np.dtype(getattr(p.variable, "dtype", p.cells.dtype)) for name, p in places.items()}
            # h5py has no bfloat16, it is of kind V
            known = {name: (state[name], kind) for name, kind in dtypes.items() if name in state and kind.kind != "V"}
            if problems := state_dict.differences(places, state) or state_dict.rounded_away(known):
                raise BridgeError(
                    f"{path} cannot be loaded into {model.name}, by the names of its layers: {'; '.join(problems)}"
                )
            shapes = {name: place.cells.shape for name, place in places.items()}
            paths = {name: _path(model, titles[1].get(name, name)) for name in shapes}
            rows = [(titles[0].get(name, name), paths[name], shape) for name, shape in shapes.items()]
            if dry_run:
                return rows, ordered
            if old:
                state_dict.fill(model, state, places)
                finalize(model)
                return rows, ordered
            for name, place in places.items():
                group, key = place.cells.parent, place.cells.name.rpartition("/")[2]
                del group[key]
                group[key] = state[name]
        model.load_weights(own)
        return rows, ordered


def finalize(model) -> None:
    """Let layers take over what follows from new weights: Normalization computes with numbers that are none."""
    for layer in model._flatten_layers():
        getattr(layer, "finalize_state", lambda: None)()


@contextlib.contextmanager
def _stored(path: str, model) -> Iterator:
    """Open a file of Keras' weights; whatever goes wrong with it meanwhile is said of the file."""
    size = untrusted.check_file(path, ACCEPTED)
    import h5py

    try:
        with contextlib.ExitStack() as stack:
            content = path
            if path.endswith(".keras"):
                untrusted.check_archive(path)
                content = stack.enter_context(hdf5.member(path, "model.weights.h5"))
            yield stack.enter_context(h5py.File(content, "r"))
    except (Exception, MemoryError) as e:  # a damaged file fails anywhere in h5py
        raise BridgeError(
            f"{path} cannot be loaded into {model.name}: {untrusted.why(e)}. {untrusted.DAMAGED.format(size)}"
        ) from e


def _layers(source, target, named: bool) -> tuple[dict, dict]:
    """The weights in a file of Keras 3 and the places in that of a model, by the names of the layers, or their classes.

    What an optimizer and the generators of random numbers keep is left out.
    """

    def other(path: str, key: str, name: str) -> bool:
        return SEED in (key, name) or (not path and bool(OPTIMIZER.search(key)))

    found, places = (hdf5.walk(file, named, leave_out=other) for file in (source, target))
    return found, {name: state_dict.Place(None, x) for name, x in places.items()}


def _old_layers(source, model) -> tuple[dict, dict]:
    """The weights in an `.h5` as Keras 2 wrote it, and the places in a model, by the names of the layers."""
    file = hdf5.weights_of(source)
    layers = {layer.name: layer.trainable_weights + layer.non_trainable_weights for layer in model.layers}
    classes = {re.sub(hdf5.NUMBER, "", layer.name): type(layer).__name__.lower() for layer in model.layers}
    bare = {kind for kind, name in classes.items() if kind.replace("_", "") == name}  # no names of their own

    def labelled(names) -> dict[str, str]:
        counts = {kind: itertools.count() for kind in bare}
        kinds = {name: re.sub(hdf5.NUMBER, "", name) for name in names}
        return {name: f"{kind}#{next(counts[kind])}" if kind in bare else name for name, kind in kinds.items()}

    found = {}
    for name in hdf5.listed(file, "layer_names"):
        inside = hdf5.group(file, name)
        found[name] = [hdf5.dataset(inside, x) for x in hdf5.listed(inside, "weight_names")]
    flat = [
        {
            f"{label}/{i}": x
            for name, label in labelled(k for k in kept if kept[k]).items()
            for i, x in enumerate(kept[name])
        }
        for kept in (found, layers)
    ]
    return flat[0], {name: state_dict.Place(v, state_dict.numbered(v).astype(np.int64)) for name, v in flat[1].items()}


def _path(model, name: str) -> str:
    """The path of a variable of a model, which files have by number: `norm/gamma` of `norm/0`."""
    layer, *inside, number = name.split("/") if "/" in name else (name, "")
    held = next((one for one in model.layers if one.name == layer), None)
    for attribute in inside:
        held = getattr(held, attribute, getattr(held, f"_{attribute}", None))
    variables = getattr(held, "_trainable_variables", []) + getattr(held, "_non_trainable_variables", [])
    return variables[int(number)].path if number.isdigit() and int(number) < len(variables) else name


def _words(model) -> dict[str, str]:
    """What to call the weights of a model's layers, which files have by number: `norm/0` is `norm/gamma`."""
    held = {layer.name: [v.name for v in layer.weights] for layer in model.layers}
    held = {name: words for name, words in held.items() if len(set(words)) == len(words)}
    return {f"{name}/{i}": f"{name}/{word}" for name, words in held.items() for i, word in enumerate(words)}


def _numbers(dataset) -> np.ndarray:
    """The numbers of a dataset; those of bfloat16 as float32."""
    value = hdf5.tensor(dataset).read()
    if value.dtype.kind == "V":
        return value.astype(np.float32)
    if value.dtype.kind not in "biuf":
        raise ValueError(f"it holds {value.dtype} where numbers should be")
    return value
