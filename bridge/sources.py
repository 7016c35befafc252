"""What the command line takes as a model: files, folders and functions, of either framework.

A `.keras` file is read in safe mode and a state dict with `weights_only=True`: neither can run a program.
"""

import importlib
import os
import sys
import zipfile
from pathlib import Path

from bridge.graph import BridgeError

ACCEPTED = "Accepted: a .keras or .h5 file, a folder of `bridge to-torch`, or module:function"
FUNCTION = "Accepted: module:function, a function without arguments that returns a keras.Model or a torch.nn.Module"


def import_modules(names: list[str]) -> None:
    """Import the user's own modules, so that the custom classes in them are registered."""
    for name in names:
        _import(name, f"--import {name}", "Accepted: the name of a module that Python finds and can import from here")


def _import(name: str, asked: str, accepted: str):
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as e:  # a module is a program, and may fail in any way
        raise BridgeError(f"{asked}: module {name!r} cannot be imported: {_why(e)}. {accepted}") from e


def _why(e: BaseException) -> str:
    return f"{type(e).__name__}: {' '.join(str(e).split())[:500]}"


def is_keras_file(source: str) -> bool:
    """Tell whether a source is a file of Keras, by its ending."""
    return source.endswith((".keras", ".h5", ".hdf5"))


def load(source: str, trust: bool = False):
    """Load a model of either framework.

    Args:
        source: A `.keras` or `.h5` file, a folder of `bridge to-torch`, or `module:function`, a function without
            arguments that returns a `keras.Model` or a `torch.nn.Module`.
        trust: A folder's model.py may be run.

    Returns:
        The `keras.Model` or `torch.nn.Module`.

    Raises:
        BridgeError: There is no such thing, or it is damaged, or it is none of the above.
    """
    if is_keras_file(source):
        return load_keras(source)
    if ":" in source and not Path(source).exists():
        return _call(source)
    if Path(source).is_dir():
        from bridge.folder import load_torch

        return load_torch(source, trust)
    raise BridgeError(
        f"{source}: {'no such file or folder' if not Path(source).exists() else 'not a kind that is read'}. {ACCEPTED}"
    )


def load_keras(path: str):
    """Read a `.keras` or `.h5` file in safe mode, without what it was compiled with."""
    if not Path(path).is_file():
        raise BridgeError(f"{path}: no such file. {ACCEPTED}")
    size = Path(path).stat().st_size
    with open(path, "rb") as file:  # Keras says "not found" of a file that it cannot unpack
        if path.endswith(".keras") and not zipfile.is_zipfile(file):
            raise BridgeError(
                f"{path} cannot be read as a Keras model: its {size:,} bytes are damaged or no Keras file. Accepted: "
                "what model.save(...) writes as .keras; copy it once more, or save it again"
            )
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as e:  # a damaged or hostile file fails anywhere in Keras, zipfile, json or h5py
        why, hint = _why(e), f"The file ({size:,} bytes) may be damaged: copy it once more, or save it again"
        if "Lambda" in str(e) or "safe_mode" in str(e):  # Keras' own sentence recommends to run it
            why = "it holds Python code (a Lambda layer), which is never run from a file"
            hint = "Build the model with Keras' own layers in place of it and save it again"
        elif "registered" in str(e) or "custom" in str(e):
            hint = "Import the module of your own classes first (bridge: --import MODULE)"
        raise BridgeError(f"{path} cannot be read as a Keras model: {why}. {hint}") from e


def _call(source: str):
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
    return model


def load_state(module, path: str) -> None:
    """Load a state dict from a `.safetensors` or `.pt` file into a module; every name must fit."""
    import torch

    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except Exception as e:  # damaged files and names that do not fit, each with its own class
        raise BridgeError(
            f"{path} cannot be loaded into {type(module).__name__}: {' '.join(str(e).split())[:1500]}"
        ) from e
