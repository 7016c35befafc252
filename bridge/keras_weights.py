"""A file of Keras' weights into a Keras model, by the names of its layers.

Keras itself goes by classes and order, so that the file of another network may happen to fit. That remains so for
layers without a name of their own (`dense_3`), and, with a warning, where the file has no names.
"""

import contextlib
import io
import itertools
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bridge import state_dict, untrusted
from bridge.graph import BridgeError

ACCEPTED = "Accepted: a .keras, .weights.h5 or .h5 file"
LISTS = ("layers", "_layer_checkpoint_dependencies")  # of a model's layers in a file of Keras; the latter's before 3
NUMBER = r"_\d+$"  # what Keras adds to a name or class that it has had before


def load(model, path: str, resize: Callable | None = None) -> None:
    """Load a file of weights into a model; every weight must be there.

    Args:
        model: A `keras.Model`.
        path: A `.keras`, `.weights.h5` or `.h5` file.
        resize: `resize(layer, value, shape)` may bring what the file has to the shape that the model wants.

    Raises:
        BridgeError: The file cannot be read; or it does not fit, with every name that is missing, unexpected or of
            another shape. The model has not been changed then.
    """
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        own = str(Path(folder) / "own.weights.h5")  # the model's, to be compared with the file and filled from it
        try:
            model.save_weights(own)
        except Exception as e:  # it is not built, or the disk is full
            raise BridgeError(f"{path} cannot be loaded into {model.name}: {untrusted.why(e)}") from e
        with h5py.File(own, "r+") as target:
            with _stored(path, model) as source:
                old = not path.endswith((".keras", ".weights.h5"))
                found, places = _old_layers(source, model) if old else _layers(source, target, path)
                if (asked := sum(x.nbytes for x in found.values())) > untrusted.room(path):
                    raise ValueError(f"its weights unpack to {asked:,} bytes")
                said = _words(model)
                state = {said.get(name, name): _numbers(x) for name, x in found.items()}
            places = {said.get(name, name): place for name, place in places.items()}
            for name, place in places.items() if resize else ():
                if name in state and state[name].shape != place.cells.shape:
                    state[name] = resize(name.rpartition("/")[0], state[name], place.cells.shape)
            if problems := state_dict.differences(places, state):
                raise BridgeError(
                    f"{path} cannot be loaded into {model.name}, by the names of its layers: {'; '.join(problems)}"
                )
            if old:
                state_dict.fill(model, state, places)
                for layer in model.layers:
                    getattr(layer, "finalize_state", lambda: None)()  # of Normalization
                return
            for name, place in places.items():
                group, key = place.cells.parent, place.cells.name.rpartition("/")[2]
                del group[key]
                group[key] = state[name]
        model.load_weights(own)


@contextlib.contextmanager
def _stored(path: str, model) -> Iterator:
    """Open a file of Keras' weights; whatever goes wrong with it meanwhile is said of the file."""
    size = untrusted.check_file(path, ACCEPTED)
    import h5py

    try:
        content = path
        if path.endswith(".keras"):
            untrusted.check_archive(path)
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as file:
            yield file
    except (Exception, MemoryError) as e:  # a damaged file fails anywhere in h5py
        raise BridgeError(
            f"{path} cannot be loaded into {model.name}: {untrusted.why(e)}. {untrusted.DAMAGED.format(size)}"
        ) from e


def _layers(source, target, path: str) -> tuple[dict, dict]:
    """The weights in a file of Keras 3 and the places in that of a model, by the names of the layers."""
    named = "vars" in source and "name" in source["vars"].attrs  # which Keras 3 has not always written
    if not named:
        warnings.warn(
            f"{path} has no names of layers: their classes, order and shapes are all that could be compared",
            stacklevel=3,
        )
    return _walk(source, named), {name: state_dict.Place(None, x) for name, x in _walk(target, named).items()}


def _walk(group, named: bool, above: str = "") -> dict:
    """The datasets of a group and what is below it, but for optimizers and generators of random numbers.

    Keras has `layers/<class>_<number>/<attribute>/vars/<number>`, and the layer's name beside its variables. `dense#1`
    is the second Dense layer without a name of its own.
    """
    from keras.src.saving.saving_lib import safe_get_h5_dataset, safe_get_h5_group  # they follow no links

    found, listed = {}, "vars" not in group
    for key in group:
        inside = safe_get_h5_group(group, key)
        if key == "vars":
            found |= {f"{above}{i}": safe_get_h5_dataset(inside, i) for i in inside}
            continue
        title = inside["vars"].attrs.get("name", "") if named and "vars" in inside else ""
        title = " ".join(str(title).split())[:100]
        if "seed_generator" in (key, re.sub(NUMBER, "", title)) or (not above and re.search("(^|_)optimizer$", key)):
            continue
        name = key
        if listed and named:
            kind, number = re.fullmatch("(.*?)(?:_([0-9]+))?", key).groups()
            name = title if title and re.sub(NUMBER, "", title) != kind else f"{kind}#{number or 0}"
        below = _walk(inside, named, above if key in LISTS and "vars" not in inside else f"{above}{name}/")
        if both := found.keys() & below.keys():
            raise ValueError(f"it has two layers of one name: {', '.join(sorted(both))}")
        found |= below
    return found


def _old_layers(source, model) -> tuple[dict, dict]:
    """The weights in an `.h5` as Keras 2 wrote it, and the places in a model, by the names of the layers."""
    from keras.src.legacy.saving.legacy_h5_format import load_attributes_from_hdf5_group as attribute
    from keras.src.saving.saving_lib import safe_get_h5_dataset, safe_get_h5_group

    file = safe_get_h5_group(source, "model_weights") if "model_weights" in source else source
    layers = {layer.name: layer.trainable_weights + layer.non_trainable_weights for layer in model.layers}
    classes = {re.sub(NUMBER, "", layer.name): type(layer).__name__.lower() for layer in model.layers}
    bare = {kind for kind, name in classes.items() if kind.replace("_", "") == name}  # no names of their own

    def labelled(names) -> dict[str, str]:
        counts = {kind: itertools.count() for kind in bare}
        kinds = {name: re.sub(NUMBER, "", name) for name in names}
        return {name: f"{kind}#{next(counts[kind])}" if kind in bare else name for name, kind in kinds.items()}

    found = {}
    for name in attribute(file, "layer_names"):
        inside = safe_get_h5_group(file, name)
        found[name] = [safe_get_h5_dataset(inside, x) for x in attribute(inside, "weight_names")]
    flat = [
        {
            f"{label}/{i}": x
            for name, label in labelled(k for k in kept if kept[k]).items()
            for i, x in enumerate(kept[name])
        }
        for kept in (found, layers)
    ]
    return flat[0], {name: state_dict.Place(v, state_dict.numbered(v).astype(np.int64)) for name, v in flat[1].items()}


def _words(model) -> dict[str, str]:
    """What to call the weights of a model's layers, which files have by number: `norm/0` is `norm/gamma`."""
    held = {layer.name: [v.name for v in layer.weights] for layer in model.layers}
    held = {name: words for name, words in held.items() if len(set(words)) == len(words)}
    return {f"{name}/{i}": f"{name}/{word}" for name, words in held.items() for i, word in enumerate(words)}


def _numbers(dataset) -> np.ndarray:
    """The numbers of a dataset; Keras writes bfloat16 as bytes that HDF5 has no name for."""
    value = np.array(dataset)
    if value.dtype == "V2":
        import ml_dtypes

        value = value.view(ml_dtypes.bfloat16).astype(np.float32)
    if value.dtype.kind not in "biuf":
        raise ValueError(f"it holds {value.dtype} where numbers should be")
    return value
