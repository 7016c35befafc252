"""The same optimizer steps on both sides, from the same weights and on the same data: does training stay the same?

The loss is the mean squared distance of every output to random targets near it. SGD with momentum has the same rule in
both frameworks; its momentum is a number that float32 holds exactly, as Keras keeps it there, and its rate a power of
two, chosen so that a step moves the weights by a thousandth of their size. Where the loss grows, that was too much: the
steps of a deep network with BatchNorm then go apart sixteenfold each, from a difference of rounding to one of 1e-2 in
ten steps. So the steps are made smaller until the loss falls.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch

from bridge import walk
from bridge.graph import flatten
from bridge.progress import log
from bridge.report import STEPS
from bridge.twin import Twin

MOMENTUM = 0.875
MOVE = 1e-3  # of the weights' size, in one step
# what that is divided by, one after the other, while the loss grows; float32 would not see the smallest steps
SMALLER = {"float64": (1, 16, 256, 4096), "float32": (1, 16)}
SMALLEST = 2.0**-126  # rate: Keras holds it in float32, and takes what is below for zero


def targets(outputs: list[np.ndarray], seed: int = 2) -> list[np.ndarray]:
    """Random numbers around the outputs of a network."""
    rng = np.random.default_rng(seed)
    return [o + rng.normal(size=o.shape) * (o.std() or 1.0) for o in outputs]


def rate(weights: list[np.ndarray], gradients: list[np.ndarray]) -> float:
    """The power of two that makes a step of SGD a small one."""
    size, slope = (np.sqrt(sum(float(np.sum(np.square(a))) for a in arrays)) for arrays in (weights, gradients))
    return float(2.0 ** np.floor(np.log2(MOVE * size / slope))) if slope > 0 and size > 0 else 2.0**-10


def train_keras(
    model, arrays: list[np.ndarray], wanted: list[np.ndarray], dtype: str
) -> tuple[list[float], Twin, float]:
    """Train the twin of a Keras model.

    Args:
        model: A functional or Sequential `keras.Model`, which is not changed.
        arrays: Its inputs.
        wanted: The targets of its outputs.
        dtype: Of the twin.

    Returns:
        The loss before each step, the twin that was trained, and the learning rate.
    """
    for smaller in SMALLER[dtype]:
        twin, optimizer, losses = Twin(dtype, deterministic=True), None, []
        while len(losses) < STEPS:
            log.info("%s: step %d of %d in Keras", model.name, len(losses) + 1, STEPS)
            with tf.GradientTape() as tape:
                outputs = flatten(walk.run(model, arrays, twin, training=True)[0])
                pairs = [(o, w) for o, w in zip(outputs, wanted, strict=True) if o.dtype.is_floating]
                terms = [tf.reduce_mean(tf.square(o - tf.cast(w, o.dtype))) for o, w in pairs]
                loss = sum(tf.cast(t, terms[0].dtype) for t in terms)
            losses.append(float(loss))
            if not losses[-1] <= losses[0] and smaller != SMALLER[dtype][-1]:  # NaN, too
                break
            variables = [twin.variables[id(v)] for v in model.trainable_variables]
            for variable in variables:
                variable.constraint = None  # of Keras' training, which the report names
            slopes = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
            slopes = [tf.convert_to_tensor(g) for g in slopes]
            if optimizer is None:
                step = rate([np.asarray(v) for v in variables], [np.asarray(g) for g in slopes]) / smaller
                step = max(step, SMALLEST)
                optimizer = keras.optimizers.SGD(step, momentum=MOMENTUM)
            optimizer.apply(slopes, variables)
        else:
            break
    return losses, twin, step


def train_torch(network: torch.nn.Module, given: Callable[[], tuple], wanted: list[Any], step: float) -> list[float]:
    """Train a module in place, and return the loss before each step.

    Args:
        network: The module, in training mode.
        given: Returns its inputs, anew for each step, as it may change them.
        wanted: The targets of its outputs.
        step: The learning rate.
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.SGD(trained, step, momentum=MOMENTUM), []
    for i in range(STEPS):
        log.info("%s: step %d of %d in torch", type(network).__name__, i + 1, STEPS)
        optimizer.zero_grad()
        outputs = flatten(network(*given()))
        pairs = [(o, w) for o, w in zip(outputs, wanted, strict=True) if o.is_floating_point()]
        loss = sum((o - torch.as_tensor(w, dtype=o.dtype)).square().mean() for o, w in pairs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
