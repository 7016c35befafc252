"""Tensors that a model computes with and that nothing trains: a causal mask, a buffer <-> an array given to keras.ops.

The other frameworks' operators take such a tensor like any other, so it is a node without inputs: a buffer in torch, in
Keras an array in the place of a tensor. Its rank is that of the tensors that it meets, and its axes follow theirs. An
array with which arithmetic is done is in `bridge.rules.rescaling`, a weight in `bridge.rules.parameter`.

`operands` is for the rules of functions of several tensors.
"""

from dataclasses import replace

import numpy as np

from bridge import rules
from bridge.graph import Node, Parameter, Unsupported, Value
from bridge.layout import Context, Placement, identity
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, call_source, merging

OPERATORS = ("constant",)
KERAS = ()
TORCH = ()
BUFFERS = ("value",)
PATTERN = "... -> ..."


def LAYOUT(node: Node, context: Context) -> Placement:
    """The order that its reader takes without it."""
    made = node.outputs[0]
    reader = context.consumers[made.name][0]
    others = [v for v in reader.inputs if v.name in context.written and v.rank == made.rank]
    order = identity(made.rank)
    if others and not node.attributes.get("pinned"):
        orders = [next(iter(context.written[v.name])) for v in others]
        inner = replace(context, orders=orders, outside=[False] * len(orders))
        order = rules.for_operator(reader.operator).LAYOUT(replace(reader, inputs=others), inner).inputs[0]
    return Placement([], [order], weights={"value": order} if made.rank else {})


def _number(x):
    """A number as a plain one, an array of one cell too."""
    x = x.item() if isinstance(x, (np.generic, np.ndarray)) and np.size(x) == 1 else x
    if isinstance(x, Size):
        raise Unsupported("one of its operands is worked out from an open size of the input", "fix that size")
    return x


def _held(x, source: KerasLayer | TorchOperation):
    """An operand as a tensor that flows, a number, or the array of a constant and its name in torch."""
    if isinstance(x, Value):
        return x, ""
    if isinstance(source, TorchOperation):
        argument = next((k for k, (name, _, _) in source.state.items() if isinstance(x, str) and name == x), None)
        if argument is None:
            return _number(x), ""
        name, array, trained = source.state[argument]
        if trained:
            raise Unsupported(f"its operand {name} is a weight", "let it flow")  # the reader does so
        return _number(array), name
    if hasattr(x, "assign"):
        raise Unsupported("one of its operands is a variable", "make it a layer that holds the weight")
    x = x.numpy() if hasattr(x, "numpy") else x  # a bfloat16 without axes has no __array__
    return _number(np.asarray(x) if hasattr(x, "shape") else x), ""


def operands(source: KerasLayer | TorchOperation, *items, condition: int | None = None) -> tuple[list[Node], list]:
    """Nodes for what an operator reads beside tensors that flow, and its operands: tensors of one rank, and numbers.

    Args:
        source: The layer or operator.
        items: Its operands: tensors, numbers, arrays and, in torch, names of buffers.
        condition: The position of one that is true where it is not 0.
    """
    held = [_held(x, source) for x in items]
    made = source.outputs[0].name
    tensors = [x for x, _ in held if isinstance(x, Value)]
    if not tensors:
        raise Unsupported("it is computed from constants alone", "store the result as a buffer")
    rank = max(len(x.shape) for x, _ in held if hasattr(x, "shape"))
    floats = {x.dtype for x in tensors if "float" in x.dtype}
    nodes, found = merging.ranked([x for x, _ in held], made, rank=rank)
    for i, (x, name) in enumerate(held):
        if isinstance(x, np.ndarray):
            array = x != 0 if i == condition else _in_dtype(x, floats)
            array = array.reshape((1,) * (rank - x.ndim) + x.shape)
            found[i] = Value(f"{made}:constant{i}", array.shape, array.dtype.name)
            nodes.append(_node(array, name, i, source, found[i]))
    return nodes, found


def _in_dtype(array: np.ndarray, floats: set[str]) -> np.ndarray:
    """An array of floats in the dtype of the tensors that it meets, as which it is carried to another one."""
    if "float" not in array.dtype.name or not floats or {array.dtype.name} == floats:
        return array
    dtype = floats.pop() if len(floats) == 1 else ""
    if not dtype or not np.array_equal(array.astype(dtype), array, equal_nan=True):
        raise Unsupported(f"it joins an array of {array.dtype} and tensors of another dtype", "give both the same")
    return array.astype(dtype)


def _node(array: np.ndarray, name: str, i: int, source: KerasLayer | TorchOperation, made: Value) -> Node:
    if isinstance(source, KerasLayer):
        held = source.constant(f"constant{i}" if i else "constant", array)
    else:
        held = f"{name}[{array.dtype}, {array.ndim}]"  # the same in another form is another
        source.parameters.setdefault(held, Parameter(array, trainable=False))
    return Node(
        "constant", {}, {"value": held}, name or (f"{source.path}.constant" if source.path else ""), outputs=[made]
    )


def of_number(number: float, role: str, like: Value, source: KerasLayer | TorchOperation) -> Node:
    """The node for a number in the place of a tensor, of the rank and dtype of another."""
    array = np.full((1,) * like.rank, number, like.dtype)
    made = Value(f"{source.outputs[0].name}:{role}", array.shape, like.dtype)
    source.parameters.setdefault(made.name, Parameter(array, trainable=False))
    return Node("constant", {}, {"value": made.name}, f"{source.path}.{role}" if source.path else "", outputs=[made])


def write_keras(node: Node) -> list[KerasCall]:
    return []  # the writer gives the array itself


def write_torch(node: Node) -> TorchCall:
    made = node.outputs[0]
    empty = call_source("torch.empty", *made.shape)
    if "float" not in made.dtype:
        empty = f"{empty[:-1]}, dtype=torch.{np.dtype(made.dtype).name})"
    return TorchCall("{self}", f"nn.Buffer({empty})", {"value": ("", PATTERN)})


def read_keras(layer: KerasLayer) -> list[Node]:
    raise NotImplementedError("the rules of functions of several tensors read it")


def read_torch(call: TorchOperation) -> list[Node]:
    raise NotImplementedError("the rules of functions of several tensors read it")
