"""What the command line takes as a model: files, folders and functions, of either framework.

Files are made by others. A `.keras`, `.h5` or `.json` file is read in safe mode, and only what networks are made of may
be named in its configuration: Keras would call any function of its own that stands for an activation there, such as one
that downloads. A state dict is read with `weights_only=True`. A `.pt2` can run a program, so it asks for trust. Weights
are counted before they are made, and archives are checked as a whole first: Keras reads on where a checksum is wrong.
"""

import contextlib
import importlib
import io
import itertools
import json
import math
import os
import re
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bridge.graph import BridgeError
from bridge.progress import log

ACCEPTED = "Accepted: a .keras, .h5, .json or .pt2 file, a folder of `bridge to-torch`, or module:function"
FUNCTION = "Accepted: module:function, a function without arguments that returns a keras.Model or a torch.nn.Module"
DAMAGED = "The file ({:,} bytes) may be damaged: copy it once more, or save it again"
KERAS = (".keras", ".h5", ".hdf5")
TORCH = (".safetensors", ".pt", ".pth", ".bin")
# the modules of Keras that a network is made of; of "src", which has no public names, Keras takes only what it can save
MADE_OF = ("layers", "models", "activations", "initializers", "regularizers", "constraints", "dtype_policies")
MADE_OF += ("ops", "random", "losses", "metrics", "optimizers", "quantizers", "src")
PROGRAMS = ("Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "__lambda__")
LISTS = ("layers", "_layer_checkpoint_dependencies")  # of a model's layers in a file of Keras; the latter's before 3
NUMBER = r"_\d+$"  # what Keras adds to a name or class that it has had before
DEPTH = 200  # of a configuration; a network nested ten times in others has 60
FREE = 2**28  # bytes that an archive or its weights may have, whatever the size of the file ...
GROWTH = 100  # ... and how many times the size of a larger file, as Keras has it
BARE = 2**31  # bytes of weights of a configuration that is read without them


def import_modules(names: list[str]) -> None:
    """Import the user's own modules, so that the custom classes in them are registered."""
    for name in names:
        _import(name, f"--import {name}", "Accepted: the name of a module that Python finds and can import from here")


def _import(name: str, asked: str, accepted: str):
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except BridgeError:  # of a rule of theirs
        raise
    except (Exception, SystemExit) as e:  # a module is a program, and may fail in any way
        raise BridgeError(f"{asked}: module {name!r} cannot be imported: {_why(e)}. {accepted}") from e


def _why(e: BaseException) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())[:500]}"


def is_function(source: str) -> bool:
    """Tell whether a source is `module:function`."""
    return ":" in source and not Path(source).exists() and not source.endswith((*KERAS, ".json", ".pt2"))


def load(source: str, trust: bool = False, weights: list[str] | None = None, bare: bool = False):
    """Load a model of either framework.

    Args:
        source: A `.keras` or `.h5` file, a `.json` with the configuration of a Keras model, a `.pt2` of torch.export, a
            folder of `bridge to-torch`, or `module:function`, a function without arguments that returns a
            `keras.Model` or a `torch.nn.Module`.
        trust: A folder's model.py and a `.pt2` may run.
        weights: Files of weights; those that a `.json` or a function's model takes are removed from the list.
        bare: A `.json` needs no weights.

    Returns:
        The `keras.Model` or `torch.nn.Module`.

    Raises:
        BridgeError: There is no such thing, or it is damaged, or it is none of the above.
    """
    log.info("loading %s", source)
    if source.endswith(".json"):
        return load_json(source, _take(weights, True), bare)
    if is_function(source):
        return _call(source, weights)
    if source.endswith(KERAS):
        return load_keras(source)
    if source.endswith(".pt2"):
        return load_program(source, trust)[0]
    if Path(source).is_dir():
        from bridge.folder import load_torch

        return load_torch(source, trust)
    why = "no such file or folder" if not Path(source).exists() else "not a kind that is read"
    if source.endswith(TORCH):
        why = "it holds weights alone, for --weights of a module:function"
    raise BridgeError(f"{source}: {why}. {ACCEPTED}")


def _check_file(path: str) -> int:
    if not Path(path).is_file():
        raise BridgeError(f"{path}: no such file. {ACCEPTED}")
    return Path(path).stat().st_size


def load_keras(path: str):
    """Read a `.keras` or `.h5` file in safe mode, without what it was compiled with."""
    size = _check_file(path)
    if path.endswith(".weights.h5"):
        raise BridgeError(
            f"{path} holds weights alone: name the .json with the model's configuration (model.to_json()), and give "
            "this file as --weights"
        )
    with open(path, "rb") as file:  # Keras says "not found" of a file that it cannot unpack
        if path.endswith(".keras") and not zipfile.is_zipfile(file):
            raise BridgeError(
                f"{path} cannot be read as a Keras model: its {size:,} bytes are damaged or no Keras file. Accepted: "
                "what model.save(...) writes as .keras; copy it once more, or save it again"
            )
    import keras

    with _reading(path), _bounded(path, max(FREE, GROWTH * size)):
        _check_configuration(_configuration(path))
        return keras.models.load_model(path, compile=False, safe_mode=True)


def load_json(path: str, weights: str | None = None, bare: bool = False):
    """Read a Keras model from its configuration (`model.to_json()`, or the config.json of a .keras) and its weights.

    Args:
        path: The `.json` file.
        weights: A `.weights.h5`, `.h5` or `.keras` file; by default `<stem>.weights.h5` or `model.weights.h5` beside
            the `.json`.
        bare: It may go without weights.
    """
    _check_file(path)
    beside = [Path(path).with_suffix(".weights.h5"), Path(path).with_name("model.weights.h5")]
    weights = weights or next((str(p) for p in beside if p.is_file()), None)
    if weights is None and not bare:
        raise BridgeError(
            f"{path}: there is neither {beside[0].name} nor {beside[1].name} beside it: give --weights, what "
            "model.save_weights(...) writes"
        )
    import keras
    from keras.src.saving.serialization_lib import ObjectSharingScope

    room = BARE if bare else max(FREE, GROWTH * _check_file(weights))
    with _reading(path), _bounded(path, room):
        configuration = json.loads(Path(path).read_bytes())
        _check_configuration(configuration)
        if not isinstance(configuration, dict):
            raise ValueError(f"it is a JSON {type(configuration).__name__}, where a model's is an object")
        with ObjectSharingScope():  # as load_model has it
            model = keras.saving.deserialize_keras_object(configuration | {"compile_config": None}, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"it describes a {type(model).__name__}, not a keras.Model")
    if not bare:
        load_weights(model, weights)
    return model


def _configuration(path: str):
    """The configuration in a `.keras` or `.h5` file."""
    if path.endswith(".keras"):
        _check_archive(path)
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("it has no model_config")
        return json.loads(file.attrs["model_config"])


def _check_configuration(configuration) -> None:
    """Refuse what does not belong to a network, before Keras makes anything of it."""
    waiting = [(configuration, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEPTH:
            raise ValueError(f"its configuration is nested more than {DEPTH} times")
        if isinstance(item, dict):
            name, home = item.get("class_name"), item.get("module")
            if name in PROGRAMS:
                raise _Program(name)
            if name == "function":
                name = item.get("config")
            if isinstance(home, str) and isinstance(name, str) and f"{home}.".startswith("keras."):
                where = f"{home}.{name}".split(".")[1:-1]
                if where and where[0] not in MADE_OF:
                    raise ValueError(f"it names {home}.{name}, which no network is made of")
            item = list(item.values())
        if isinstance(item, list):
            waiting += [(x, depth + 1) for x in item]


class _Program(Exception):
    """A configuration holds a program; its text is the class."""


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Say of whatever goes wrong that the file cannot be read as a Keras model: hostile ones fail anywhere."""
    try:
        yield
    except BridgeError:
        raise
    except (Exception, MemoryError) as e:
        why, hint = _why(e), DAMAGED.format(Path(path).stat().st_size)
        if isinstance(e, _Program) or "Lambda" in str(e) or "safe_mode" in str(e):  # Keras' own sentence recommends it
            kind = str(e) if isinstance(e, _Program) else "Lambda"
            why = f"it holds a program (a {kind} layer), which is never run from a file"
            hint = "Build the model with Keras' own layers in place of it and save it again"
        elif "registered" in str(e) or "custom" in str(e):
            hint = "Import the module of your own classes first (bridge: --import MODULE)"
        raise BridgeError(f"{path} cannot be read as a Keras model: {why}. {hint}") from e


@contextlib.contextmanager
def _bounded(path: str, room: int) -> Iterator[None]:
    """Count the weights that Keras makes meanwhile, and refuse those that go beyond `room` bytes before they are made.

    A few bytes of configuration can ask for more weights than there is memory.
    """
    import keras

    left, original = room // 4, keras.Layer.add_weight

    def counted(self, shape=None, *arguments, **keywords):
        nonlocal left
        wanted = (shape,) if isinstance(shape, int) else tuple(shape or ())
        left -= math.prod(wanted)
        if left < 0:
            raise BridgeError(
                f"{path} cannot be read as a Keras model: its configuration asks for more weights than there can be in "
                f"a file of this size ({room:,} bytes of them), such as {wanted} of {self.name[:100]!r}"
            )
        return original(self, shape, *arguments, **keywords)

    keras.Layer.add_weight = counted
    try:
        yield
    finally:
        keras.Layer.add_weight = original


def _check_archive(path: str) -> None:
    """Refuse a zip archive with a wrong checksum, or that unpacks to what no honest one does."""
    limit = max(FREE, GROWTH * Path(path).stat().st_size)
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(i.file_size for i in archive.infolist())
        if unpacked > limit:
            raise ValueError(f"its archive unpacks to {unpacked:,} bytes")
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged[:200]!r} in it is wrong")


def _take(weights: list[str] | None, keras_has: bool) -> str | None:
    """Remove the first of these files that is one of Keras, or that is none, and give it."""
    found = next((w for w in weights or [] if w.endswith(KERAS) == keras_has), None)
    if found is not None:
        weights.remove(found)
    return found


def _call(source: str, weights: list[str] | None = None):
    name, _, function = source.partition(":")
    found = getattr(_import(name, source, FUNCTION), function, None)
    if not callable(found):
        raise BridgeError(f"{source}: module {name!r} has no function {function!r}. {FUNCTION}")
    try:
        model = found()
    except (Exception, SystemExit) as e:  # a program of the user's
        raise BridgeError(f"{source}: the function failed: {_why(e)}. {FUNCTION}") from e
    import keras
    import torch

    if not isinstance(model, (keras.Model, torch.nn.Module)):
        raise BridgeError(f"{source}: the function returned {type(model).__name__}. {FUNCTION}")
    if path := _take(weights, isinstance(model, keras.Model)):
        load_weights(model, path)
    return model


def load_weights(model, path: str, resize: Callable | None = None) -> None:
    """Load a file of weights into a model of the same framework, by the layers' names; every weight must be there.

    Keras itself goes by classes and order, so that the file of another network may happen to fit. That remains so for
    layers without a name of their own (`dense_3`), and, with a warning, where the file has no names.

    Args:
        model: A `keras.Model` or a `torch.nn.Module`.
        path: A `.keras`, `.weights.h5` or `.h5` file; a state dict for torch.
        resize: `resize(layer, value, shape)` may bring what a file of Keras has to the shape that the model wants.

    Raises:
        BridgeError: The file cannot be read; or it does not fit, with every name that is missing, unexpected or of
            another shape. A Keras model has not been changed then.
    """
    import keras

    if not isinstance(model, keras.Model):
        load_state(model, path)
        return
    import h5py

    from bridge import state_dict

    with tempfile.TemporaryDirectory() as folder:
        own = str(Path(folder) / "own.weights.h5")  # the model's, to be compared with the file and filled from it
        try:
            model.save_weights(own)
        except Exception as e:  # it is not built, or the disk is full
            raise BridgeError(f"{path} cannot be loaded into {model.name}: {_why(e)}") from e
        with h5py.File(own, "r+") as target:
            with _stored(path, model) as source:
                old = not path.endswith((".keras", ".weights.h5"))
                found, places = _old_layers(source, model) if old else _layers(source, target, path)
                room = max(FREE, GROWTH * Path(path).stat().st_size)
                if (asked := sum(x.nbytes for x in found.values())) > room:
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
    size = _check_file(path)
    import h5py

    try:
        content = path
        if path.endswith(".keras"):
            _check_archive(path)
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content, "r") as file:
            yield file
    except (Exception, MemoryError) as e:  # a damaged file fails anywhere in h5py
        raise BridgeError(f"{path} cannot be loaded into {model.name}: {_why(e)}. {DAMAGED.format(size)}") from e


def _layers(source, target, path: str) -> tuple[dict, dict]:
    """The weights in a file of Keras 3 and the places in that of a model, by the names of the layers."""
    from bridge.state_dict import Place

    named = "vars" in source and "name" in source["vars"].attrs  # which Keras 3 has not always written
    if not named:
        warnings.warn(
            f"{path} has no names of layers: their classes, order and shapes are all that could be compared",
            stacklevel=3,
        )
    return _walk(source, named), {name: Place(None, x) for name, x in _walk(target, named).items()}


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

    from bridge.state_dict import Place, numbered

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
    return flat[0], {name: Place(v, numbered(v).astype(np.int64)) for name, v in flat[1].items()}


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


def load_state(module, path: str) -> None:
    """Load a state dict from a `.safetensors` or `.pt` file into a module; every name must fit."""
    try:
        from bridge.state_dict import unwrapped

        module.load_state_dict(unwrapped(read_state(path), module.state_dict()))
    except BridgeError:
        raise
    except (Exception, MemoryError) as e:  # names that do not fit
        raise BridgeError(
            f"{path} cannot be loaded into {type(module).__name__}: {' '.join(str(e).split())[:1500]}"
        ) from e


def read_state(path: str) -> dict:
    """Read a state dict from a `.safetensors` file or one of `torch.save`; no code in it is run.

    What trainers write around it is taken off: a dictionary that has it as `state_dict` or `model`.

    Raises:
        BridgeError: The file cannot be read, or holds something else.
    """
    import torch

    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        if zipfile.is_zipfile(path):
            _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (Exception, MemoryError) as e:  # damaged files, each with its own class
        raise BridgeError(f"{path} cannot be read as a state dict: {_why(e)}") from e
    inside = [state[k] for k in ("state_dict", "model") if isinstance(state, dict) and isinstance(state.get(k), dict)]
    state = inside[0] if inside else state
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BridgeError(f"{path} must hold a state dict, a dictionary from names to tensors")
    return dict(state)


def load_program(path: str, trust: bool = False):
    """Read a `.pt2` of torch.export, as a module with submodules of the names that the exported one had.

    Args:
        path: The `.pt2` file.
        trust: Must be true, as reading it evaluates expressions and unpickles what is in it.

    Returns:
        The module, the example inputs that it was exported with, and for each the axes that are open.
    """
    size = _check_file(path)
    if not trust:
        raise BridgeError(
            f"{path} can run a program: torch.export.load evaluates expressions and unpickles what is in the file. If "
            "you know who made it, pass --trust"
        )
    import torch

    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # torch's own, at each copy of such a module
    try:
        _check_archive(path)
        program = torch.export.load(path)
        module = torch.export.unflatten(program).eval()
        examples, keywords = program.example_inputs
        given = set(program.graph_signature.user_inputs)
        shapes = [n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and n.name in given]
    except (Exception, MemoryError) as e:
        raise BridgeError(f"{path} cannot be read by torch.export: {_why(e)}. {DAMAGED.format(size)}") from e
    if keywords or not all(isinstance(x, torch.Tensor) for x in examples):
        raise BridgeError(f"{path} takes more than tensors by position: export the module with tensors alone")
    for part in module.modules():
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            node.meta.pop("val", None)  # stands for a tensor of open size, which cannot be copied
    return module, examples, [{i for i, d in enumerate(s) if not isinstance(d, int)} for s in shapes]
