"""The second, independent way between the frameworks: ONNX. It needs the extra `onnx`.

It is here as a second opinion, as the way of a SavedModel, of which nothing else is left, and as the peer that the
benchmarks measure: what it makes of a Keras model folds BatchNorm away and keeps part of the weights as buffers that do
not train.
"""

import contextlib
import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
import torch

from bridge.graph import BridgeError, flatten
from bridge.untrusted import why

MISSING = ("nms", "qnms")  # what torchvision's Python asks of its compiled operators while it is imported
EXTRA = ("onnx", "onnx2torch", "onnxruntime", "onnxscript", "tf2onnx")
OPSETS = {"keras": 17, "torch": 18}  # onnx2torch knows less of newer ones; torch.onnx writes no older ones
LIMIT = 1e-4  # of the largest output: float32 on both sides, in another order
LARGEST = 2**31  # bytes of a protocol buffer


def check() -> None:
    """Say what to install, if it is not there."""
    if missing := [name for name in EXTRA if not importlib.util.find_spec(name)]:
        raise BridgeError(
            f"this goes by ONNX, for which {', '.join(missing)} are not installed: pip install 'tfzoo[onnx]'"
        )


def import_torchvision():
    """Import torchvision, also beside a torch of another build, where its compiled operators do not load.

    Its Python then asks for operators that nobody declared ("operator torchvision::nms does not exist"); with their
    schemas declared, its models work. The operators themselves stay absent.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as e:
        if "torchvision::" not in str(e):
            raise
    for name in MISSING:
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


def to_onnx(
    model, example_inputs: tuple | None = None, dynamic: list[set[int]] | None = None, opset: int | None = None
):
    """Export a model of either framework as an ONNX model: by tf2onnx, or by torch.onnx.

    Args:
        model: A built `keras.Model`, whose layout stays; a `torch.nn.Module`; or the path of a SavedModel, of which the
            signature `serving_default` is taken, or the only one.
        example_inputs: Tensors as for a call of the module.
        dynamic: For each of them the axes that stay open; by default the batch.
        opset: The version of ONNX's operators; by default one of `OPSETS`.

    Returns:
        An `onnx.ModelProto`.

    Raises:
        BridgeError: The exporter cannot do it, or the extra is not installed.
    """
    check()
    try:
        with quiet():
            if isinstance(model, torch.nn.Module):
                return _of_torch(model, example_inputs, dynamic, opset or OPSETS["torch"])
            opset = opset or OPSETS["keras"]
            return _of_saved_model(str(model), opset) if isinstance(model, (str, Path)) else _of_keras(model, opset)
    except BridgeError:
        raise
    except Exception as e:  # exporters fail in any way
        name = model if isinstance(model, (str, Path)) else getattr(model, "name", type(model).__name__)
        raise BridgeError(f"{name} cannot be exported as ONNX: {why(e)}") from e


def _of_keras(model, opset: int):
    import keras
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    if isinstance(model.input, dict):  # which from_keras calls with a list

        @tf.function(input_signature=signature)
        def call(*tensors):
            return model(keras.tree.pack_sequence_as(model.input, tensors), training=False)

        return tf2onnx.convert.from_function(call, signature, opset=opset, custom_op_handlers=HANDLERS)[0]
    return tf2onnx.convert.from_keras(model, signature, opset=opset, custom_op_handlers=HANDLERS)[0]


def _erfc(context, node, name: str, arguments) -> None:
    """Write 1 - erf(x), of which the exact GELU is made and tf2onnx knows nothing."""
    shapes, dtypes = node.output_shapes, node.output_dtypes
    kinds = {1: "float32", 10: "float16", 11: "float64"}  # of onnx.TensorProto
    one = context.make_const(f"{name}_one", np.array(1, kinds[context.get_dtype(node.input[0])]))
    context.remove_node(name)
    erf = context.make_node("Erf", list(node.input), shapes=shapes, dtypes=dtypes)
    inputs = [one.output[0], erf.output[0]]
    context.make_node("Sub", inputs, name=name, outputs=node.output, shapes=shapes, dtypes=dtypes)


HANDLERS = {"Erfc": (_erfc, [])}


def _of_saved_model(folder: str, opset: int):
    import tensorflow as tf
    import tf2onnx

    signature = serving(folder)
    specs = signature.structured_input_signature[1]

    @tf.function(input_signature=list(specs.values()))
    def call(*inputs):
        return signature(**dict(zip(specs, inputs, strict=True)))

    return tf2onnx.convert.from_function(call, list(specs.values()), opset=opset, custom_op_handlers=HANDLERS)[0]


def _of_torch(module, example_inputs, dynamic, opset: int):
    from bridge import inference, torch_export

    dynamic = dynamic or torch_export.every_batch(example_inputs)
    shapes = tuple({axis: torch.export.Dim.AUTO for axis in axes} for axes in dynamic)
    examples = tuple(
        torch.cat([x, x]) if x.ndim and x.shape[0] == 1 and 0 in axes else x
        for x, axes in zip(example_inputs, dynamic, strict=True)
    )
    with inference.in_eval(module):
        options = {"dynamic_shapes": shapes, "opset_version": opset, "verbose": False}
        return torch.onnx.export(module, examples, dynamo=True, **options).model_proto


def serving(folder: str):
    """Give the signature of a SavedModel that is served by default, or its only one."""
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(folder)
        signatures = loaded.signatures
    except Exception as e:  # damaged ones fail anywhere
        raise BridgeError(f"{folder} cannot be read as a SavedModel: {why(e)}") from e
    if "serving_default" in signatures or len(signatures) == 1:
        signature = signatures.get("serving_default") or next(iter(signatures.values()))
        signature.owner = loaded  # its variables are gone with it
        return signature
    raise BridgeError(f"{folder} has the signatures {', '.join(signatures) or '(none)'}, of which none is the default")


def to_torch(model) -> torch.nn.Module:
    """Convert a Keras model or a SavedModel by tf2onnx and onnx2torch.

    Args:
        model: What `to_onnx` takes, but for a module.

    Returns:
        A module for inference, which takes and returns tensors of the model's own layout.
    """
    return onnx_to_torch(to_onnx(model))


def onnx_to_torch(proto) -> torch.nn.Module:
    """Convert an ONNX model by onnx2torch."""
    check()
    import_torchvision()
    import onnx2torch

    try:
        with quiet():
            return onnx2torch.convert(proto).eval()
    except Exception as e:
        raise BridgeError(f"onnx2torch cannot convert it: {why(e)}") from e


def run(proto, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Run an ONNX model by onnxruntime."""
    check()
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        named = {i.name: x for i, x in zip(session.get_inputs(), arrays, strict=True)}
        return session.run(None, named)
    except Exception as e:
        raise BridgeError(f"onnxruntime cannot run it: {why(e)}") from e


def apart(first: list, second: list) -> float:
    """Give by how much outputs differ at most, as a share of the largest; infinite where their shapes differ."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True)]
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    shares = [
        float(np.abs(a.astype("float64") - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-30)) for a, b in pairs
    ]
    return max(shares, default=0.0)


def three_ways(model, module) -> dict[str, float]:
    """Compare a Keras model, a torch module and what onnxruntime makes of the first, on one random input.

    Args:
        model: A functional or Sequential `keras.Model`.
        module: A `torch.nn.Module`, which takes and returns tensors of rank 4 and 5 channels-first.

    Returns:
        By how much each two differ, as a share of the largest output.
    """
    from bridge import inference, keras_reader, layout, samples, walk

    graph = keras_reader.read(model)
    first = layout.convert(graph, "first")
    arrays = samples.inputs_of(model, graph)
    ours = [np.asarray(x) for x in flatten(walk.run(model, arrays)[0])]
    theirs = inference.run(module, [x.transpose(v.order) for x, v in zip(arrays, first.inputs, strict=True)])
    theirs = [x.transpose(np.argsort(v.order)) for x, v in zip(theirs, flatten(first.outputs), strict=True)]
    second = run(to_onnx(model), arrays)
    return {
        "Keras and torch": apart(ours, theirs),
        "Keras and onnxruntime": apart(ours, second),
        "torch and onnxruntime": apart(theirs, second),
    }


@contextlib.contextmanager
def quiet():
    """Keep to themselves what the exporters say of their own doing."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
