"""A Keras model as all that PyTorch's world loads: readable source with its weights, a .pt2 program, and ONNX.

    model.py, model.safetensors, report.json, report.html    as `save_torch` writes them
    model.pt2      torch.export's program, for torch.export.load and AOTInductor; inference alone
    model.onnx     where the extra `onnx` is installed; inference alone

Tensors of rank 4 and 5 have their channels first in all of them.
"""

import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import torch

from bridge.files import FULL, WriteFailed
from bridge.folder import save_torch, with_examples
from bridge.graph import BridgeError

OPSET = 17
EXTRA = "onnxruntime"


def write(model: keras.Model, folder: Path) -> tuple[dict[str, float], list[str]]:
    """Write all of them, and compare what each computes with what the Keras model does.

    Args:
        model: A functional or Sequential model.
        folder: A path that does not exist yet.

    Returns:
        The largest difference of each file, as a share of the largest output, and sentences on what is not there.

    Raises:
        BridgeError: The model cannot be carried.
    """
    report = save_torch(model, folder)
    found: dict[str, float] = {"model.py": 0.0 if report.passed else float("inf")}
    notes: list[str] = []

    def use(module, tensors, dynamic):
        arrays = [last(x.numpy()) for x in tensors]
        given = keras.tree.pack_sequence_as(model.input, arrays)
        want = [np.asarray(x, "float64") for x in keras.tree.flatten(model(given, training=False))]

        def far(run: Callable) -> float:
            have = [
                last(x.double().numpy() if isinstance(x, torch.Tensor) else x) for x in run()
            ]  # NumPy has no bfloat16
            # NumPy's max, as Python's passes over what is no number
            return float(
                np.max([np.abs(h - w).max() / (np.abs(w).max() or 1) for h, w in zip(have, want, strict=True)])
            )

        with torch.no_grad():
            found["model.py"] = float(np.max([found["model.py"], far(lambda: flat(module(*tensors)))]))
            found["model.pt2"] = far(lambda: flat(program(module, tensors, dynamic, folder / "model.pt2")(*tensors)))
        if not importlib.util.find_spec(EXTRA):
            notes.append("There is no model.onnx: it needs the extra onnx (pip install tfzoo[onnx]).")
            return
        try:
            run = onnx(model, module, tensors, dynamic, folder / "model.onnx")
        except Exception as e:  # of torch's, of onnx' and of onnxruntime's own classes
            if full := next((n for n in FULL if getattr(e, "errno", None) == n or os.strerror(n) in str(e)), None):
                raise WriteFailed(f"{folder / 'model.onnx'} cannot be written: {os.strerror(full)}") from e
            notes.append(f"There is no model.onnx: torch.onnx cannot write it: {' '.join(str(e).split())[:300]}")
            (folder / "model.onnx").unlink(missing_ok=True)
            return
        found["model.onnx"] = far(lambda: run([x.numpy() for x in tensors]))

    with_examples(use, folder, trust=True)
    return found, notes


def program(module, tensors, dynamic, path: Path):
    """Write a .pt2 file, and give what is read from it."""
    axes = tuple({a: torch.export.Dim.AUTO for a in axes} for axes in dynamic)
    try:
        torch.export.save(torch.export.export(module, tensors, dynamic_shapes=axes), path)
    except Exception as e:  # torch.export raises many unrelated classes
        raise BridgeError(f"torch.export cannot take {type(module).__name__}: {' '.join(str(e).split())[:500]}") from e
    return torch.export.load(path).module()


def onnx(model: keras.Model, module, tensors, dynamic, path: Path) -> Callable:
    """Write an ONNX file, and give a function of arrays that onnxruntime makes of it.

    torch's other exporter needs onnxscript, which nothing else here does.
    """
    import onnxruntime

    inputs = [f"input_{i}" if len(tensors) > 1 else "input" for i in range(len(tensors))]
    count = len(keras.tree.flatten(model.output))
    outputs = [f"output_{i}" if count > 1 else "output" for i in range(count)]
    axes = {name: {a: f"{name}_{a}" for a in axes} for name, axes in zip(inputs, dynamic, strict=True)}
    axes |= {name: {0: "batch"} for name in outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tensors,
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda arrays: session.run(outputs, dict(zip(inputs, arrays, strict=True)))


def tolerance(model: keras.Model) -> float:
    """How far the two frameworks may be apart, as a share of the largest output: they add in other orders."""
    kinds = {getattr(layer, "compute_dtype", None) for layer in model._flatten_layers()}
    return 0.05 if kinds & {"bfloat16", "float16"} else 1e-4


def flat(outputs) -> list:
    """The tensors of whatever a module returns, in order."""
    return torch.utils._pytree.tree_leaves(outputs)


def last(x: np.ndarray) -> np.ndarray:
    """Channels last, as Keras has them."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim in (4, 5) else x
