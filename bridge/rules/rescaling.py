"""Arithmetic with an array: keras.layers.Rescaling, keras.ops.multiply(x, array) <-> x * self.scale, x - self.mean.

An array that nothing trains is a constant of the graph in Keras and a buffer in torch. One that is trained can be
multiplied with in Keras: EinsumDense without a sum, such as "abcd,d->abcd", and LayerScale of ConvNeXt.

`along` are the axes of the tensor along which the array runs, in the array's own order, which is Keras': where images
have their channels first, an array over height, width and channels runs along (2, 3, 1). Axes of size 1 are no part of
it. Rescaling works with its numbers and arrays in the layer's dtype, and rounds a number to float32 even in float64.
"""

import re
import sys
from dataclasses import dataclass, replace

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, Rows, anything, boundary_order, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

# function -> (function of keras.ops, torch expression)
FUNCTIONS = {
    "add": ("add", "{0} + {self}"),
    "subtract": ("subtract", "{0} - {self}"),
    "multiply": ("multiply", "{0} * {self}"),
    "divide": ("true_divide", "{0} / {self}"),
    "maximum": ("maximum", "torch.maximum({0}, {self})"),
    "minimum": ("minimum", "torch.minimum({0}, {self})"),
}

OPERATORS = ("arithmetic",)
KERAS = ("Rescaling", "LayerScale")  # and "EinsumDense", which `einsum_dense` hands on
TORCH = ()  # `merging` reads the operators and hands over those that have an array
CASTS = ("Rescaling",)
BUFFERS = ("constant",)
FREEZES = ("scale", "offset")


def LAYOUT(node: Node, context: Context) -> Placement:
    """Any order for an array along one axis; for one along several the order in which both readers have it."""
    along, x = node["along"], node.inputs[0]
    if isinstance(context.orders[0], Rows):
        placement = fixed(node, context)
    elif len(along) > 1:
        order = boundary_order(x, context.source, context.target)
        placement = Placement([order], [order])
    else:
        placement = anything(node, context)
    order = placement.inputs[0]
    placement.attributes["along"] = tuple(order.index(a) for a in along)
    return placement


def run_along(shape: tuple[int, ...], x: Value, channels: str) -> tuple[int, ...]:
    """The axes of a tensor along which an array of this shape runs, in the order of the graph.

    Args:
        shape: The array's, aligned at the last axis as in any broadcasting.
        x: The tensor.
        channels: Where images have their channels, "first" or "last".
    """
    if len(shape) > x.rank:
        raise Unsupported(f"an array of shape {shape} with a tensor of shape {x.shape}", "give both the same rank")
    along = [a for a, n in enumerate(shape, x.rank - len(shape)) if n != 1]
    if 0 in along:
        raise Unsupported(f"an array of shape {shape} runs along the batch", "give it the size 1 there")
    if channels == "first" and x.rank in (4, 5) and along[:1] == [1]:
        along = [*along[1:], 1]
    return tuple(along)


def pattern(along: tuple[int, ...], rank: int, dimensions: int | None = None) -> str:
    """The einops pattern from an array of the graph to one that is aligned at a tensor's last axis.

    Args:
        along: The axes of the tensor, as `run_along` returns them.
        rank: The tensor's.
        dimensions: How many axes the aligned array has; by default as few as will do.
    """
    first = min(along, default=rank) if dimensions is None else rank - dimensions
    names = {a: f"n{i}" for i, a in enumerate(along)}
    return f"{' '.join(names.values())} -> {' '.join(names.get(a, '1') for a in range(first, rank))}".strip()


def aligned(node: Node) -> tuple[int, ...]:
    """The shape of the array of a node when it is aligned at the tensor's last axis."""
    sizes = dict(zip(node["along"], node["shape"], strict=True))
    rank = node.inputs[0].rank
    return tuple(sizes.get(a, 1) for a in range(min(sizes, default=rank), rank))


def biased(x, other, certain: bool = False) -> bool:
    """Tell whether Keras on TensorFlow adds `other` to `x` along another axis than broadcasting says.

    keras.ops.add takes what has one axis of more than one cell for a bias of the last axis or, where its size is not
    that one's, of axis 1, whichever axis it has: an array of shape (H, 1, 1) where H is the number of channels.

    Args:
        x: The shape of the first operand.
        other: The shape of the second.
        certain: Only by sizes that are known; by default what is open may have any size, and the batch may be one.
    """
    if not certain and len(x) == len(other) > 0 and other[0] is None and biased(x, (1, *other[1:])):
        return True
    axes = [a for a, n in enumerate(other, len(x) - len(other)) if n != 1]
    if len(axes) != 1 or len(x) < 2:
        return False
    size, (axis,) = other[axes[0] - len(x) + len(other)], axes
    if certain and None in (size, x[1], x[-1]):
        return False
    if axis == len(x) - 1:
        return False
    if size is None or x[-1] in (size, None):
        return True
    return x[1] in (size, None) and axis != 1


def refuse_biased(x, other) -> None:
    """Refuse a sum of Keras that does not broadcast as its shapes say."""
    if biased(x, other, certain=True):
        raise Unsupported(
            f"Keras on TensorFlow adds a tensor of shape {tuple(other)} to one of {tuple(x)} as a bias of another axis",
            "give the smaller one first, as in keras.ops.add(bias, x)",
        )


@dataclass
class Array:
    """An operand of more than one number, or a trained one: its values in the axes that it has, and who holds it."""

    value: np.ndarray
    held: str = ""  # torch's argument
    trained: bool = False


def operand(x, source: KerasLayer | TorchOperation):
    """An operand of arithmetic as a tensor that flows, a number, or an array."""
    if isinstance(source, TorchOperation):
        held = next((k for k, (name, _, _) in source.state.items() if name == x), None)
        array = Array(_converted(source, held), held, source.state[held][2]) if held else None
    else:
        constant = hasattr(x, "shape") and not isinstance(x, Value) and not hasattr(x, "assign")
        held = x.numpy() if hasattr(x, "numpy") else x  # a bfloat16 without axes has no __array__
        array = Array(np.asarray(held)) if constant else None
    if array is None:
        return x
    return array.value.item() if array.value.size == 1 and not array.trained else array


def _converted(source: TorchOperation, held: str) -> np.ndarray:
    """What torch holds and does not train, in the dtype to which torch converts it for this operator."""
    name, array, trained = source.state[held]
    dtype = source.outputs[0].dtype
    if not trained and "float" in dtype and array.dtype.name not in (dtype, "bool") and array.size > 1:
        array = array.astype(dtype)
        source.state[held] = (f"{name}[{dtype}]", array, False)
        source.arguments = {k: f"{name}[{dtype}]" if k == held else v for k, v in source.arguments.items()}
    return array


def node(function: str, x: Value, array: Array, source: KerasLayer | TorchOperation, name: str = "") -> Node:
    """The node for a tensor and an array."""
    shape = array.value.shape
    if x.name in source.ones:
        raise Unsupported("it is spread over an open size", "let it flow")  # the readers do so
    if source.outputs[0].dtype != x.dtype:
        raise Unsupported(
            f"with an array of {array.value.dtype} it makes {source.outputs[0].dtype} of a tensor of {x.dtype}",
            f"give the array the dtype {x.dtype}",
        )
    if isinstance(source, KerasLayer):
        along = run_along(shape, x, "last")
        held = array.value.squeeze().astype(x.dtype)
        parameters = {"constant": source.constant("constant", held)}
    else:
        along = run_along(shape, x, "first")
        table = {"kernel" if array.trained else "constant": (array.held, pattern(along, x.rank, len(shape)))}
        parameters = source.weights(table)
        held = source.state[array.held][0].partition("[")[0]
        name = name or (held if array.trained else source.path or held)  # in torch the weight itself has the name
        held = source.parameters[source.state[array.held][0]].value
    if array.trained and (function != "multiply" or tuple(x.shape[a] for a in along) != held.shape or not along):
        raise Unsupported(f"{function} with a trained array of shape {shape}", "let it flow")  # the reader does so
    attributes = {"function": function, "along": along, "shape": held.shape}
    return Node("arithmetic", attributes, parameters, name or source.path, [x])


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "Rescaling":
        return _rescaling(layer)
    return [_scaled(layer, (layer.rank - 1,))]


def of_equation(layer: KerasLayer) -> Node:
    """The node of an EinsumDense that multiplies element by element."""
    return _scaled(layer, _equation(layer))


def _scaled(layer: KerasLayer, along: tuple[int, ...]) -> Node:
    x = layer.inputs[0]
    role, held = next(iter(layer.weights.items()))
    weight = layer.parameters[held]
    if weight.value.shape != tuple(x.shape[a] for a in along):
        raise Unsupported(f"its {role} of shape {weight.value.shape} is broadcast", "give it the input's sizes")
    attributes = {"function": "multiply", "along": along, "shape": weight.value.shape}
    return Node("arithmetic", attributes, {"kernel" if weight.trainable else "constant": held}, layer.path)


def _equation(layer: KerasLayer) -> tuple[int, ...]:
    """The axes along which an EinsumDense multiplies."""
    c = layer.config
    x, kernel, _ = re.fullmatch(r"(.*),(.*)->(.*)", c["equation"].replace(" ", "")).groups()
    axes = [x.index(k) if "." not in x[: x.index(k)] else layer.rank - len(x) + x.index(k) for k in kernel]
    if axes != sorted(axes):
        raise Unsupported(f"equation={c['equation']!r} turns its kernel", "give the kernel's axes in the input's order")
    if 0 in axes:
        raise Unsupported(f"equation={c['equation']!r} runs along the batch", "leave the batch out")
    return tuple(axes)


def _rescaling(layer: KerasLayer) -> list[Node]:
    x, operation, nodes = layer.inputs[0], layer.operation, []
    dtype = layer.outputs[0].dtype
    if "float" not in x.dtype:
        x = Value(f"{layer.outputs[0].name}:float", x.shape, dtype)
        nodes.append(Node("cast", {"dtype": "float"}, outputs=[x]))
    held = {k: np.asarray(operation.backend.cast(getattr(operation, k), dtype)) for k in ("scale", "offset")}
    if held["scale"].ndim and sys.modules["keras"].config.image_data_format() == "channels_first":
        held["scale"] = held["scale"].reshape(held["scale"].shape + (1,) * (3 - held["scale"].ndim))  # as Keras does
    steps = [("multiply", held["scale"]), ("add", held["offset"])]
    steps = [(f, a) for f, a in steps if a.ndim or a != (1 if f == "multiply" else 0)]
    for i, (function, array) in enumerate(steps):
        last = i == len(steps) - 1
        name = layer.path if last else f"{layer.path}_scale"
        if array.size == 1:
            nodes.append(Node(function, {"number": array.item()}, name=name))
        else:
            nodes.append(replace(node(function, x, Array(array), layer, name), inputs=[]))  # the reader chains them
    return nodes or [Node("permute", {"permutation": tuple(range(layer.rank))}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    along, rank = node["along"], node.inputs[0].rank
    if "constant" in node.parameters:
        function, shape = FUNCTIONS[node["function"]][0], aligned(node)
        first = function == "add" and biased(node.inputs[0].shape, shape)
        return [KerasCall(f"ops.{function}", constants={"x1" if first else "x2": ("constant", pattern(along, rank))})]
    letters = "abcdefghij"[:rank]
    equation = f"{letters},{''.join(letters[a] for a in along)}->{letters}"
    shape = tuple(node.inputs[0].shape[1:])
    return [KerasCall("EinsumDense", {"equation": equation, "output_shape": shape}, weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    raise NotImplementedError("`merging` reads the operators")


def write_torch(node: Node) -> TorchCall:
    role = next(iter(node.parameters))
    kind = "nn.Buffer" if role == "constant" else "nn.Parameter"
    empty = call_source("torch.empty", *aligned(node))
    weights = {role: ("", pattern(node["along"], node.inputs[0].rank))}
    return TorchCall(FUNCTIONS[node["function"]][1], f"{kind}({empty})", weights)
