"""Rolling: keras.ops.roll <-> torch.roll. What leaves an axis at one end comes in at the other.

A node says by how many cells each axis is rolled, so that several axes at once and one after the other in torch's list
are one thing. Along an axis of a known size that is the number nearest to 0. Swin rolls its windows by it.
"""

import numpy as np

from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement, anything, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, single

OPERATORS = ("roll",)
KERAS = ("ops.Roll",)
TORCH = ("roll",)


def LAYOUT(node: Node, context: Context) -> Placement:
    if not isinstance(context.orders[0], tuple):
        return fixed(node, context)
    placement = anything(node, context)
    shifts = node["shifts"]
    placement.attributes["shifts"] = tuple(shifts[a] for a in placement.inputs[0])
    return placement


def _roll(shifts, axes, shape, name: str) -> list[Node]:
    """The neutral node; shifts along the same axis add up."""
    total = [0] * len(shape)
    for shift, axis in zip(shifts, axes, strict=True):
        total[axis] += int(shift)
    total = [n if not size else _nearest(n, size) for n, size in zip(total, shape, strict=True)]
    if not any(total):
        return [Node("permute", {"permutation": identity(len(shape))}, name=name)]
    return [Node("roll", {"shifts": tuple(total)}, name=name)]


def _nearest(shift: int, size: int) -> int:
    before = (size - 1) // 2
    return (shift + before) % size - before


def read_keras(layer: KerasLayer) -> list[Node]:
    shift, axis = layer.operation.shift, layer.operation.axis
    if axis is None:
        raise Unsupported("it rolls the flattened tensor, the batch along", "give it an axis")
    shifts, axes = np.broadcast_arrays(np.atleast_1d(shift), np.atleast_1d(axis))
    return _roll(shifts, axes, layer.inputs[0].shape, layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    shifts, axes = _moved(node)
    return [KerasCall("ops.roll", {"shift": shifts, "axis": axes})]


def read_torch(call: TorchOperation) -> list[Node]:
    shifts, axes = call.numbers("shifts", 1), call.numbers("dims", 1)
    if not axes:
        raise Unsupported("it rolls the flattened tensor, the batch along", "give it dims")
    if not all(isinstance(n, int) for n in shifts):
        raise Unsupported(
            "it rolls by a number that is worked out from an open size of the input",
            "join x[:, -n:] and x[:, :-n] by torch.cat",
        )
    return _roll(shifts, axes, call.inputs[0].shape, call.path)


def write_torch(node: Node) -> TorchCall:
    shifts, axes = _moved(node)
    if len(axes) == 1:
        return TorchCall(call_source("{0}.roll", single(shifts), single(axes)))
    return TorchCall(call_source("{0}.roll", shifts, axes))


def _moved(node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shifts that are none of 0, and their axes."""
    axes = tuple(a for a, n in enumerate(node["shifts"]) if n)
    return tuple(node["shifts"][a] for a in axes), axes
