"""The second, independent way from Keras to torch: tf2onnx, then onnx2torch. It needs the extra `onnx`.

It is here as a second opinion and as the peer that the benchmarks measure: its result folds BatchNorm away and
keeps part of the weights as buffers that do not train.
"""

import importlib

import torch

MISSING = ("nms", "qnms")  # what torchvision's Python asks of its compiled operators while it is imported


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


def to_onnx(model, opset: int = 17):
    """Export a Keras model as an ONNX model, channels last.

    Args:
        model: A built `keras.Model`.
        opset: The version of ONNX's operators.

    Returns:
        An `onnx.ModelProto`.
    """
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in model.inputs]
    return tf2onnx.convert.from_keras(model, signature, opset=opset)[0]


def to_torch(model) -> torch.nn.Module:
    """Convert a Keras model by tf2onnx and onnx2torch.

    Args:
        model: A built `keras.Model`.

    Returns:
        A module that takes and returns channels-last tensors, as the Keras model does.
    """
    import_torchvision()
    import onnx2torch

    return onnx2torch.convert(to_onnx(model)).eval()
