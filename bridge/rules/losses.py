"""Losses and normalisation by functions: keras.ops.{categorical_crossentropy, batch_normalization, ...}.

A crossentropy of probabilities clips them, as Keras does, and of logits is that of their log-softmax or softplus.
TensorFlow's gradient of the one of logits takes the targets for a distribution, whose sum is 1; so does the rule. Keras
takes the logits of a softmax or sigmoid before it in place of what that makes, which is refused: it is the other loss.
Statistics that are arrays are those of a frozen BatchNormalization.
"""

from dataclasses import replace
from math import log10

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported
from bridge.layout import anything
from bridge.rules import KerasLayer, batch_norm, depthwise_kernel

OPERATORS = ()  # reductions, logarithms, products
TORCH = ()
LAYOUT = anything
ROUNDING = 2e-7  # of what TensorFlow makes of arrays of float32, whatever it is to be multiplied by
ROLES = {"mean": "moving_mean", "variance": "moving_variance", "offset": "beta", "scale": "gamma"}


def _probabilities(ops, o, x, kind: str):
    """The output clipped; refused where Keras would look behind it."""
    from keras import backend

    (node,) = o._inbound_nodes[:1] or (None,)
    tensors = node.arguments.args if node else ()
    for made in (getattr(t, "_keras_history", None) for t in tensors[1:2]):
        before = made.operation if made else None
        names = {type(before).__name__.lower(), getattr(getattr(before, "activation", None), "__name__", "")}
        if kind in names:
            raise Unsupported(
                f"Keras takes the logits of the {kind} before it in its stead",
                "give it the logits and from_logits=True",
            )
    return ops.clip(x, backend.epsilon(), 1.0 - backend.epsilon())


def _last(o, x) -> None:
    if o.axis not in (-1, len(x.shape) - 1):
        raise Unsupported(f"its axis={o.axis} is not the last, of which Keras says another shape", "move the axis")


def _categorical(ops, o, target, x):
    _last(o, x)
    if o.from_logits:
        return -ops.sum(target * ops.log_softmax(x, axis=-1), axis=-1)
    x = _probabilities(ops, o, x / ops.sum(x, axis=-1, keepdims=True), "softmax")
    return -ops.sum(target * ops.log(x), axis=-1)


def _sparse(ops, o, target, x):
    _last(o, x)
    if len(target.shape) < len(x.shape):
        target = ops.expand_dims(target, -1)
    if "int" not in target.dtype:
        raise Unsupported(f"its targets are {target.dtype}", "cast them: keras.ops.cast(target, 'int32')")
    if not o.from_logits:
        x = ops.log(_probabilities(ops, o, x, "softmax"))
    return -ops.squeeze(ops.take_along_axis(ops.log_softmax(x, axis=-1), target, axis=-1), -1)


def _binary(ops, o, target, x):
    if o.from_logits:
        return ops.relu(x) - x * target + ops.log1p(ops.exp(-ops.abs(x)))
    x = _probabilities(ops, o, x, "sigmoid")
    return -(target * ops.log(x) + (1.0 - target) * ops.log(1.0 - x))


def _batch_norm(ops, o, x, mean, variance, offset=None, scale=None):
    along = [1] * len(x.shape)
    along[o.axis] = -1

    def spread(t):
        """What has a number for each channel, laid along the channels."""
        if hasattr(t, "_keras_history"):
            return t if o.axis in (-1, len(x.shape) - 1) else ops.reshape(t, along)
        return np.asarray(t).astype(x.dtype).reshape(along)

    if not hasattr(variance, "_keras_history"):
        raise Unsupported("its variance is an array and others of its statistics flow", "let the variance flow, too")
    factor = ops.rsqrt(spread(variance) + o.epsilon)
    made = (x - spread(mean)) * (factor if scale is None else factor * spread(scale))
    return made if offset is None else made + spread(offset)


def _psnr(ops, o, x, y):
    return 20 * log10(o.max_val) - 10 * ops.log10(ops.mean(ops.square(x - y)))


PARTS = {
    "ops.BatchNorm": _batch_norm,
    "ops.BinaryCrossentropy": _binary,
    "ops.CategoricalCrossentropy": _categorical,
    "ops.PSNR": _psnr,
    "ops.SparseCategoricalCrossentropy": _sparse,
}
KERAS = tuple(PARTS)


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "ops.BatchNorm" and len(layer.inputs) == 1:  # of arrays alone: a frozen layer
        arrays = {ROLES[name]: t for name, t in layer.arguments.items() if name in ROLES and t is not None}
        config = {"axis": layer.operation.axis, "epsilon": layer.operation.epsilon, "momentum": 0.99}
        weights = depthwise_kernel.held(layer, **arrays)
        for name in weights.values() if layer.inputs[0].dtype == "float32" else ():
            layer.parameters[name].rounding = ROUNDING
        return batch_norm.read_keras(replace(layer, config=config, weights=weights, trainable=False, arguments={}))
    return keras_parts.read(layer, PARTS)
