"""A weight as a tensor that flows: `self.weight - self.weight.mean()`, a class token, a position embedding.

torch computes with a parameter as with any tensor. Keras trains the weights of layers alone, and the layer that gives
its own as a tensor is EinsumDense: "ab,cde->acde" multiplies it by a one, which changes no number. The one is made of
the model's input, as Keras records what is computed from inputs alone; `bridge.keras_writer` makes it once.

What comes in is held as it was read. Where it becomes the kernel of a convolution it is held with the axes of one.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, boundary_order, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source
from bridge.rules.reshape import KEEP, NEW, plain

OPERATORS = ("parameter", "outer")
KERAS = TORCH = ()  # the reader makes the nodes; `rescaling` reads EinsumDense and hands over the outer products
PATTERN, NUMBER = "... -> ...", "1 ->"  # a single number has one axis in Keras
LETTERS = "cdefghijkl"


def LAYOUT(node: Node, context: Context) -> Placement:
    if node.operator == "outer":
        return fixed(node, context)
    made, source, target = node.outputs[0], context.source, context.target
    orders = [boundary_order(made, source, target)]
    if node.attributes.get("pinned"):
        orders = [identity(made.rank)]
    elif made.rank > 2 and (order := context.as_kernel(made)):
        orders = [order]
    elif made.rank > 2 and source != target:  # or an image without a batch
        axis = 0 if source == "first" else made.rank - 1
        others = tuple(a for a in range(made.rank) if a != axis)
        orders.append((*others, axis) if axis == 0 else (axis, *others))
    order = max(orders, key=lambda order: context.takers(made, order))
    return Placement([], [order], weights={"kernel": order} if order else {})


def merge(node: Node, reader: Node) -> Node | None:
    """A one times a weight is the weight, less an axis of one."""
    made = reader.outputs[0]
    if node.operator == "outer" and not node.inputs and reader.operator in ("reshape", "flatten"):
        shape = (1, *(made.shape or (1,)))
        return replace(node, operator="parameter", outputs=reader.outputs) if shape == node.outputs[0].shape else None
    return None


def is_outer(equation: str) -> bool:
    """Tell whether an equation of EinsumDense sums over all but the first axis and multiplies each by the kernel."""
    left, _, made = equation.replace(" ", "").partition("->")
    x, _, kernel = left.partition(",")
    return not set(x) & set(kernel) and "." not in equation and made == x[:1] + kernel


def outer(layer: KerasLayer) -> list[Node]:
    """The node of such an EinsumDense."""
    if layer.config["bias_axes"] or layer.config["activation"] not in (None, "linear"):
        raise Unsupported("it has a bias or an activation", "make them layers of their own")
    return [Node("outer", {}, layer.weights, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    shape = node.outputs[0].shape or (1,)
    letters = LETTERS[: len(shape)]
    if len(letters) < len(shape):
        raise Unsupported(f"a weight of rank {len(shape)}", f"give it {len(LETTERS)} axes at the most")
    config = {"equation": f"ab,{letters}->a{letters}", "output_shape": shape}
    squeeze = {"axis": 0 if node.outputs[0].shape else None}
    return [KerasCall("EinsumDense", config, weights=True), KerasCall("ops.squeeze", squeeze, "_value")]


def flowing(name: str, array: np.ndarray, trainable: bool, value: Value, call: TorchOperation) -> list[Node]:
    """The nodes for a weight or buffer of torch that a rule does not hold; whole numbers and booleans are cast."""
    made, floats = value, array
    if "float" not in array.dtype.name:
        floats = array.astype("float32")
        if not np.array_equal(floats.astype(array.dtype), array):
            raise Unsupported(
                f"{name}, of {array.dtype.name}, is computed with, and float32 cannot hold all of its numbers",
                "make it a buffer of floats, or of smaller numbers",
            )
        made = replace(value, name=f"{value.name}:held", dtype="float32")
    source = replace(call, state={"": (name, floats, trainable)}, arguments={})
    parameters = source.weights({"kernel": ("", PATTERN if array.ndim else NUMBER)})
    nodes = [Node("parameter", {}, parameters, name, outputs=[made])]
    if made is not value:
        nodes.append(Node("cast", {"dtype": value.dtype}, inputs=[made], outputs=[value]))
    return nodes


def along(axis: int, weight: Value, made: Value) -> Node:
    """The node that gives a weight of one axis new ones, so that it runs along an axis of the tensor `made`."""
    shape = tuple(weight.shape[0] if a == axis else 1 for a in range(made.rank))
    aligned = replace(weight, name=f"{made.name}:{weight.name}", shape=shape, symbols=())
    blocks = plain([KEEP if a == axis else NEW for a in range(made.rank)], weight.shape)
    return Node("reshape", {"blocks": blocks}, inputs=[weight], outputs=[aligned])


def with_bias(nodes: list[Node], axis: int, bias: Value | None, made: Value) -> list[Node]:
    """Add a bias that flows to what the last node makes, which is to make `made`."""
    if bias is None:
        return [*nodes[:-1], replace(nodes[-1], outputs=[made])]
    if not isinstance(bias, Value):
        raise Unsupported("its weight is computed and its bias is not", "let both flow")  # the reader does so
    before, aligned = replace(made, name=f"{made.name}:unbiased"), along(axis, bias, made)
    added = Node("add", inputs=[before, *aligned.outputs], outputs=[made])
    return [*nodes[:-1], replace(nodes[-1], outputs=[before]), aligned, added]


def of_layer(read: Callable[[TorchOperation], list[Node]], call: TorchOperation, axis: int) -> list[Node]:
    """The nodes of a layer that holds its weight and whose bias flows, along this axis of what it makes."""
    x, bias, made = call["input"], call["bias"], call.outputs[0]
    first, *rest = read(replace(call, arguments=call.arguments | {"bias": None}, inputs=[x]))
    nodes = [replace(first, inputs=first.inputs or [x]), *rest]
    return with_bias(nodes, axis % made.rank, bias, made)


def write_torch(node: Node) -> TorchCall:
    if node.operator == "outer":
        if not node.inputs:
            raise Unsupported("its value is its weight with one axis more", "drop that by keras.ops.squeeze(x, 0)")
        raise Unsupported("it multiplies sums of its input by all of its weight", "use a Dense layer")
    shape = node.outputs[0].shape
    pattern = PATTERN if shape else NUMBER
    return TorchCall("{self}", f"nn.Parameter({call_source('torch.empty', *shape or [()])})", {"kernel": ("", pattern)})
