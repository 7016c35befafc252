"""Cells by their numbers: keras.ops.{take, take_along_axis} <-> index_select, x[:, index], gather, take_along_dim.

"take" has its index as a parameter that nothing trains or as a second tensor; the index' axes stand where the axis was.
A constant one has int64 and counts from the start; that of a Swin's relative positions is one. Where it only permutes
channels or repeats an edge it is no "take", but what `pixel_shuffle` and `padding` make of it.

Several tensors side by side, `x[:, i, j]`, are taken one after the other where they run along axes of their own, and
else are one index of the axes joined. A negative number counts from the end, in Keras as in an index of torch. Beyond
an axis both raise an error on a CPU; on a GPU TensorFlow makes zeros.
"""

from dataclasses import replace
from itertools import pairwise
from math import prod

import numpy as np

from bridge.graph import Node, Parameter, Unsupported, Value
from bridge.layout import Context, Placement, boundary_order, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, merging, padding, pixel_shuffle
from bridge.rules import reshape as reshaping
from bridge.rules import slice as slices
from bridge.rules.reshape import KEEP

OPERATORS = ("take", "take_along_axis")
ALONG = "bridge::take_along_dim"
KERAS = ("ops.Take", "ops.TakeAlongAxis")
BUFFERS = ("indices",)
MIXED = True
PATTERN = "... -> ..."
INDICES = ("int32", "int64")

HELPERS = {
    "TakeAlongAxis": '''
        class TakeAlongAxis(nn.Module):
            """Cells along an axis by an index of any whole numbers."""

            def __init__(self, axis):
                super().__init__()
                self.axis = axis

            def forward(self, x, indices):
                return torch.take_along_dim(x, indices.to(torch.int64), self.axis)
        ''',
}
TORCH = ("index", "_unsafe_index", "index_select", "gather", "take_along_dim", ALONG, *HELPERS)


def LAYOUT(node: Node, context: Context) -> Placement:
    if node.operator == "take_along_axis":  # which of the two comes first in the source does not matter
        order = boundary_order(node.inputs[0], context.source, context.target)
        return Placement([order, order], [order], {"axis": order.index(node["axis"])})
    if not all(isinstance(order, tuple) for order in context.orders):
        return fixed(node, context)
    order, axis, count = context.orders[0], node["axis"], node.outputs[0].rank - node.inputs[0].rank + 1
    index = context.orders[1] if len(context.orders) > 1 else identity(count)
    made: list[int] = []
    for a in order:
        made += [axis + i for i in index] if a == axis else [a if a < axis else a + count - 1]
    return Placement(
        list(context.orders[:1]) + [index] * (len(context.orders) - 1), [tuple(made)], {"axis": order.index(axis)}
    )


def BELOW(node: Node) -> int:
    return node.inputs[0].shape[node["axis"]] or 0 if "axis" in node.attributes else 0


def _take(x: Value, axis: int, index, made: Value, name: str, source) -> list[Node]:
    """Nodes for `made`, the cells of an axis that an index of whole numbers names: an array, or a tensor that flows."""
    if isinstance(index, Value):
        _check_index(index.dtype)
        return [Node("take", {"axis": axis}, name=name, inputs=[x, index], outputs=[made])]
    index = _from_start(index, x.shape[axis])
    if not index.ndim:
        return slices.index(x, (*[slice(None)] * axis, index.item()), made, name)
    for rule in (pixel_shuffle, padding):
        nodes = rule.selected(x, axis, tuple(index.tolist()), name) if index.ndim == 1 else None
        if nodes:
            nodes[0].inputs, nodes[-1].outputs = [x], [made]
            return nodes
    return [Node("take", {"axis": axis}, {"indices": _hold(index, name, source)}, name, [x], [made])]


def _hold(index: np.ndarray, name: str, source) -> str:
    if isinstance(source, KerasLayer):
        return source.constant("indices", index)
    held, n = name, 1
    while held in source.parameters and not np.array_equal(source.parameters[held].value, index):
        n += 1
        held = f"{name}_{n}"
    source.parameters.setdefault(held, Parameter(index, trainable=False))
    return held


def _check_index(dtype: str) -> None:
    if dtype in ("bool", "uint8"):
        raise Unsupported("it takes the cells that a mask says, as many as that has", "use torch.where with the mask")
    if dtype not in INDICES:
        raise Unsupported(f"an index of {dtype}", f"cast it to one of {', '.join(INDICES)}")


def _from_start(index: np.ndarray, size: int | None) -> np.ndarray:
    """Constant indices that count from the start."""
    index = np.asarray(index)
    if "int" not in index.dtype.name or index.dtype == "uint8":
        _check_index(index.dtype.name)
    low, high = (index.min(), index.max()) if index.size else (0, 0)
    if size is None and low < 0:
        raise Unsupported("it counts from the end of an open size", "fix that size, or slice the tensor", final=True)
    if size is not None and not -size <= low <= high < size:
        raise Unsupported(f"its indices run from {low} to {high}, the axis has {size} cells")
    return index.astype("int64") % (size or np.iinfo("int64").max)


def read_keras(layer: KerasLayer) -> list[Node]:
    x, index, axis = layer.arguments["x"], layer.arguments["indices"], layer.config["axis"]
    if axis is None:
        raise Unsupported("it takes cells of the flattened tensor, the batch along", "give it an axis")
    if not isinstance(x, Value):
        raise Unsupported("it looks up a constant", "use an Embedding, whose weights may be frozen")
    if layer.class_name == "ops.Take":
        index = index if isinstance(index, Value) else np.asarray(index)
        return _take(x, axis % x.rank, index, layer.outputs[0], layer.path, layer)
    return [_along(x, index, axis, layer.path)]


def _along(x: Value, index, axis: int, name: str) -> Node:
    if not isinstance(index, Value) or not isinstance(x, Value):
        raise Unsupported("its index is a constant", "use keras.ops.take or index_select, along one axis", final=True)
    _check_index(index.dtype)
    return Node("take_along_axis", {"axis": axis % x.rank}, name=name, inputs=[x, index])


def write_keras(node: Node) -> list[KerasCall]:
    constants = {"indices": ("indices", PATTERN)} if node.parameters else {}
    return [KerasCall(f"ops.{node.operator}", {"axis": node["axis"]}, constants=constants)]


def read_torch(call: TorchOperation) -> list[Node]:
    a, made = call.arguments, call.outputs[0]
    if call.target in HELPERS:
        index, x = call.inputs[0], call.inputs[-1]  # in the order in which the helper reads them
        return [_along(x, index, call["axis"], call.path)]
    x = a["self"]
    if not isinstance(x, Value):
        raise Unsupported(f"{call.target} of a weight", "let it flow")  # the reader does so
    if call.target == "index_select":
        return _taken(call, x, {call["dim"] % x.rank: "index"})
    if call.target in ("index", "_unsafe_index"):
        return _taken(call, x, {i: f"indices.{i}" for i, index in enumerate(a["indices"]) if index is not None})
    axis, index = a["dim"], a["index" if call.target == "gather" else "indices"]
    if axis is None:
        raise Unsupported("it takes cells of the flattened tensor, the batch along", "give it a dim")
    axis %= x.rank
    node = _along(x, index, axis, call.path)
    if call.target != "gather":
        return [node]
    # torch.gather reads no more cells of the other axes than its index has; the batch is taken for one
    pairs = enumerate(zip(index.symbols, x.symbols, strict=True))
    sizes = [
        None if n == m or i == axis or (i == 0 and isinstance(n, str) and isinstance(m, str)) else n
        for i, (n, m) in pairs
    ]
    if not any(sizes):
        return [node]
    if any(isinstance(n, str) for n in sizes):
        raise Unsupported(f"an index of shape {index.shape} of a tensor of {x.shape}", "export with those sizes fixed")
    shape = tuple(n if m is None else m for n, m in zip(x.shape, sizes, strict=True))
    part = replace(x, name=f"{made.name}:part", shape=shape, symbols=())
    return [
        *slices.index(x, tuple(slice(0, n) for n in sizes), part, ""),
        replace(node, inputs=[part, index], outputs=[made]),
    ]


def rows(call: TorchOperation) -> list[Node]:
    """Nodes for an ATen embedding in a table that flows."""
    return _taken(call, call["weight"], {0: "indices"})


def _taken(call: TorchOperation, x: Value, arguments: dict[int, str]) -> list[Node]:
    """Nodes for an index of each of these axes, by the names of the arguments."""
    made, name, found = call.outputs[0], call.path, {}
    for axis, argument in arguments.items():
        if argument in call.state:
            held, found[axis], _ = call.state.pop(argument)  # it has been seen to
            name = name or held
        else:
            key, _, at = argument.partition(".")
            found[axis] = call[key][int(at)] if at else call[key]
            if not isinstance(found[axis], Value):
                raise Unsupported("its index is worked out from an open size of the input", "fix that size")
        dtype = found[axis].dtype
        _check_index(dtype if isinstance(dtype, str) else dtype.name)
    if len(found) == 1:
        return _take(x, *found.popitem(), made, name, call)
    return _one_after_the_other(x, found, made, name, call) or _joined(x, found, made, name, call)


def _aligned(found: dict, rank: int) -> list[tuple]:
    return [(1,) * (rank - len(index.shape)) + tuple(index.shape) for index in found.values()]


def _one_after_the_other(x: Value, found: dict, made: Value, name: str, call: TorchOperation) -> list[Node] | None:
    """Nodes for indices of neighbouring axes that run along axes of their own: i of (H, 1) and j of (W,)."""
    first, last, rank = min(found), max(found), max(len(index.shape) for index in found.values())
    shapes = _aligned(found, rank)
    runs = [[a for a, n in enumerate(shape) if n != 1] for shape in shapes]
    if last - first + 1 > len(found) or not all(runs) or any(a[-1] >= b[0] for a, b in pairwise(runs)):
        return None
    starts = [0, *(run[0] for run in runs[1:]), rank]
    nodes: list[Node] = []
    for i, (index, shape) in enumerate(zip(found.values(), shapes, strict=True)):
        own, axis = shape[starts[i] : starts[i + 1]], first + starts[i]
        if isinstance(index, Value):
            nodes += _reshaped(index, own, f"{made.name}:index{i}")
            index = nodes[-1].outputs[0] if own != index.shape else index
        else:
            index = index.reshape(own)
        size = (*x.shape[:axis], *own, *x.shape[axis + 1 :])
        part = made if i == len(found) - 1 else replace(made, name=f"{made.name}:part{i}", shape=size, symbols=())
        nodes += _take(x, axis, index, part, name, call)
        x = part
    return nodes


def _reshaped(x: Value, shape: tuple, name: str) -> list[Node]:
    if x.shape == shape:
        return []
    known = [f"axis{x.rank - i}" if n is None else n for i, n in enumerate(x.shape)]
    target = replace(x, name=name, shape=shape, symbols=())
    opened = iter([n for n in known if isinstance(n, str)])
    (node,) = reshaping.nodes(tuple(known), tuple(next(opened) if n is None else n for n in shape), "")
    return [replace(node, inputs=[x], outputs=[target])]


def _joined(x: Value, found: dict, made: Value, name: str, call: TorchOperation) -> list[Node]:
    """Nodes for one index of several axes joined; where they are no neighbours torch puts what they make first."""
    along, nodes = list(found), []
    sizes = [x.shape[a] for a in along]
    if None in sizes[1:]:
        raise Unsupported(f"several indices of a tensor of shape {x.shape}", "export with the sizes of its axes fixed")
    if along[-1] - along[0] + 1 > len(along):
        order = (*along, *(a for a in range(x.rank) if a not in along))
        turned = replace(x, name=f"{made.name}:turned", shape=tuple(x.shape[a] for a in order), symbols=())
        nodes.append(Node("permute", {"permutation": order}, inputs=[x], outputs=[turned]))
        x, along = turned, list(range(len(along)))
    first, count = along[0], len(along)
    size = None if sizes[0] is None else prod(sizes)
    blocks = [*[KEEP] * first, (count, (-1 if size is None else size,)), *[KEEP] * (x.rank - first - count)]
    flat = replace(x, name=f"{made.name}:flat", shape=(*x.shape[:first], size, *x.shape[first + count :]), symbols=())
    nodes.append(replace(reshaping.of_blocks(blocks, x.shape, ""), inputs=[x], outputs=[flat]))
    index = _one_index(list(found.values()), sizes, made, nodes)
    return [*nodes, *_take(flat, first, index, made, name, call)]


def _one_index(indices: list, sizes: list, made: Value, nodes: list[Node]):
    """The number of a cell among those of several axes; the nodes that work it out are added to `nodes`."""
    if not any(isinstance(index, Value) for index in indices):
        numbers = [_from_start(index, n) for index, n in zip(indices, sizes, strict=True)]
        return sum(index * prod(sizes[i + 1 :]) for i, index in enumerate(numbers))
    if not all(isinstance(index, Value) for index in indices) or len({index.dtype for index in indices}) > 1:
        raise Unsupported("of its indices some are constants, or of another dtype", "compute all of them as int64")
    if sizes[0] is None:
        raise Unsupported("the first of several indices is of an axis of an open size", "fix that size")
    parts = []
    for i, (index, size) in enumerate(zip(indices, sizes, strict=True)):
        stride = prod(sizes[i + 1 :])
        steps = [("pairwise", {"function": "mod", "x2": size})] + [("multiply", {"number": stride})] * (stride != 1)
        for operator, attributes in steps:
            step = replace(index, name=f"{made.name}:{operator}{i}")
            nodes.append(Node(operator, attributes, inputs=[index], outputs=[step]))
            index = step
        parts.append(index)
    rank = max(index.rank for index in parts)
    shape = merging._broadcast(
        [replace(p, shape=s) for p, s in zip(parts, _aligned(dict(enumerate(parts)), rank), strict=True)]
    )
    total = replace(parts[0], name=f"{made.name}:index", shape=shape, symbols=())
    nodes += merging.join("add", parts, "", [total])
    return total


def write_torch(node: Node) -> TorchCall:
    axis = node["axis"]
    if node.operator == "take_along_axis":
        if node.inputs[1].dtype == "int64":
            return TorchCall(f"torch.take_along_dim({{0}}, {{1}}, {int(axis)})")
        return TorchCall("{self}({0}, {1})", call_source("TakeAlongAxis", axis), helpers=("TakeAlongAxis",))
    before = ":, " * axis
    if not node.parameters:
        return TorchCall(f"{{0}}[{before}{{1}}]")
    x, made = node.inputs[0], node.outputs[0]
    shape = made.shape[axis : axis + made.rank - x.rank + 1]
    buffer = f"nn.Buffer({call_source('torch.empty', *shape).removesuffix(')')}, dtype=torch.int64))"
    expression = f"{{0}}.index_select({int(axis)}, {{self}})" if len(shape) == 1 else f"{{0}}[{before}{{self}}]"
    return TorchCall(expression, buffer, {"indices": ("", PATTERN)})
