"""What the command line takes as a model: files, folders and functions, of either framework.

Files are made by others. A `.keras`, `.h5` or `.json` file is read in safe mode, and only what networks are made of may
be named in its configuration: Keras would call any function of its own that stands for an activation there, such as one
that downloads. A state dict is read with `weights_only=True`. A `.pt2` can run a program, so it asks for trust. Weights
are counted before they are made, and archives are checked as a whole first: Keras reads on where a checksum is wrong.
"""

import contextlib
import importlib
import json
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from bridge import untrusted
from bridge.graph import BridgeError
from bridge.progress import log

ACCEPTED = "Accepted: a .keras, .h5, .json or .pt2 file, a folder of `bridge to-torch`, or module:function"
FUNCTION = "Accepted: module:function, a function without arguments that returns a keras.Model or a torch.nn.Module"
KERAS = (".keras", ".h5", ".hdf5")
TORCH = (".safetensors", ".pt", ".pth", ".bin")
INSIDE = ("state_dict", "model_state_dict", "model")  # what trainers call a state dict among other things
# the modules of Keras that a network is made of; of "src", which has no public names, Keras takes only what it can save
MADE_OF = ("layers", "models", "activations", "initializers", "regularizers", "constraints", "dtype_policies")
MADE_OF += ("ops", "random", "losses", "metrics", "optimizers", "quantizers", "src")
PROGRAMS = ("Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "__lambda__")
DEPTH = 200  # of a configuration; a network nested ten times in others has 60
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
        raise BridgeError(f"{asked}: module {name!r} cannot be imported: {untrusted.why(e)}. {accepted}") from e


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


def load_keras(path: str):
    """Read a `.keras` or `.h5` file in safe mode, without what it was compiled with."""
    size = untrusted.check_file(path, ACCEPTED)
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

    with _reading(path), _bounded(path, untrusted.room(path)):
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
    untrusted.check_file(path, ACCEPTED)
    beside = [Path(path).with_suffix(".weights.h5"), Path(path).with_name("model.weights.h5")]
    weights = weights or next((str(p) for p in beside if p.is_file()), None)
    if weights is None and not bare:
        raise BridgeError(
            f"{path}: there is neither {beside[0].name} nor {beside[1].name} beside it: give --weights, what "
            "model.save_weights(...) writes"
        )
    import keras
    from keras.src.saving.serialization_lib import ObjectSharingScope

    if not bare:
        untrusted.check_file(weights, ACCEPTED)
    room = BARE if bare else untrusted.room(weights)
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
        untrusted.check_archive(path)
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
        why, hint = untrusted.why(e), untrusted.DAMAGED.format(Path(path).stat().st_size)
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
        raise BridgeError(f"{source}: the function failed: {untrusted.why(e)}. {FUNCTION}") from e
    import keras
    import torch

    if not isinstance(model, (keras.Model, torch.nn.Module)):
        raise BridgeError(f"{source}: the function returned {type(model).__name__}. {FUNCTION}")
    if path := _take(weights, isinstance(model, keras.Model)):
        load_weights(model, path)
    return model


def load_weights(model, path: str) -> None:
    """Load a file of weights into a model of the same framework, by names; every weight must be there.

    Args:
        model: A `keras.Model` or a `torch.nn.Module`.
        path: A `.keras`, `.weights.h5` or `.h5` file of Keras, or a `.safetensors` or `.pt` of torch.

    Raises:
        BridgeError: The file cannot be read; or it does not fit, with every name that is missing, unexpected or of
            another shape. A Keras model has not been changed then.
    """
    import keras

    if isinstance(model, keras.Model):
        from bridge import keras_weights

        keras_weights.load(model, path)
    else:
        load_state(model, path)


def load_state(module, path: str) -> None:
    """Load a state dict from a `.safetensors` or `.pt` file into a module; every name must fit."""
    from bridge import state_dict

    try:
        module.load_state_dict(state_dict.unwrapped(read_state(path), module.state_dict()))
    except BridgeError:
        raise
    except (Exception, MemoryError) as e:  # names that do not fit
        raise BridgeError(
            f"{path} cannot be loaded into {type(module).__name__}: {' '.join(str(e).split())[:1500]}"
        ) from e


def read_state(path: str) -> dict:
    """Read a state dict from a `.safetensors` file or one of `torch.save`; no code in it is run.

    What trainers write around it is taken off: a dictionary that has it as `state_dict`, `model_state_dict` or `model`.

    Raises:
        BridgeError: The file cannot be read, or holds something else.
    """
    import torch

    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return load_file(path)
        if zipfile.is_zipfile(path):
            untrusted.check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (Exception, MemoryError) as e:  # damaged files, each with its own class
        if "weights_only" in str(e) or "Unsupported" in str(e):  # torch's own sentence recommends to run it
            raise BridgeError(
                f"{path} cannot be read as a state dict: it holds more than tensors, and a pickle can run a program. "
                "Save the state dict alone: torch.save(module.state_dict(), ...)"
            ) from e
        raise BridgeError(
            f"{path} cannot be read as a state dict: {untrusted.why(e)}. {untrusted.DAMAGED_OR_OTHER}"
        ) from e
    inside = [state[k] for k in INSIDE if isinstance(state, dict) and isinstance(state.get(k), dict)]
    state = inside[0] if inside else state
    if not isinstance(state, dict):
        raise BridgeError(f"{path} must hold a state dict, a dictionary from names to tensors. It is {kind(state)}")
    if wrong := [f"{name} is {kind(value)}" for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        more = f" and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise BridgeError(
            f"{path} must hold a state dict, a dictionary from names to tensors, or have it as {' or '.join(INSIDE)}. "
            f"In it {', '.join(wrong[:20])}{more}: save the state dict alone"
        )
    return dict(state)


def kind(value) -> str:
    """Say what something is, in a word."""
    return f"a {type(value).__name__}"


def load_program(path: str, trust: bool = False):
    """Read a `.pt2` of torch.export, as a module with submodules of the names that the exported one had.

    Args:
        path: The `.pt2` file.
        trust: Must be true, as reading it evaluates expressions and unpickles what is in it.

    Returns:
        The module, the example inputs that it was exported with, and for each the axes that are open.
    """
    size = untrusted.check_file(path, ACCEPTED)
    if not trust:
        raise BridgeError(
            f"{path} can run a program: torch.export.load evaluates expressions and unpickles what is in the file. If "
            "you know who made it, pass --trust"
        )
    import torch

    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # torch's own, at each copy of such a module
    try:
        untrusted.check_archive(path)
        program = torch.export.load(path)
        module = torch.export.unflatten(program).eval()
        examples, keywords = program.example_inputs
        given = set(program.graph_signature.user_inputs)
        shapes = [n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and n.name in given]
    except (Exception, MemoryError) as e:
        raise BridgeError(
            f"{path} cannot be read by torch.export: {untrusted.why(e)}. {untrusted.DAMAGED.format(size)}"
        ) from e
    if keywords or not all(isinstance(x, torch.Tensor) for x in examples):
        raise BridgeError(f"{path} takes more than tensors by position: export the module with tensors alone")
    for part in module.modules():
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            node.meta.pop("val", None)  # stands for a tensor of open size, which cannot be copied
    return module, examples, [{i for i, d in enumerate(s) if not isinstance(d, int)} for s in shapes]
