"""Repeating: keras.layers.RepeatVector, keras.ops.{tile, repeat, broadcast_to} <-> expand, repeat, repeat_interleave.

A node repeats the whole tensor along its axes ("tile"), or each of its elements along one ("repeat"), which along an
axis of size 1 is the same. torch's `expand` copies nothing.
"""

from dataclasses import replace

from bridge.graph import Node, Steps, Unsupported, Value
from bridge.layout import Context, Placement, anything, fixed, identity
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, call_source, literal
from bridge.rules.identity import cast
from bridge.rules.reshape import KEEP, NEW
from bridge.rules.sizes import open_ones

OPERATORS = ("tile", "repeat")
KERAS = ("RepeatVector", "ops.Tile", "ops.Repeat", "ops.BroadcastTo")
TORCH = ("expand", "expand_as", "repeat", "tile", "repeat_interleave", "copy")


def LAYOUT(node: Node, context: Context) -> Placement:
    order = context.orders[0]
    if not isinstance(order, tuple):
        return fixed(node, context)
    placement = anything(node, context)
    times = node["times"]
    placement.attributes["times"] = tuple(times[a] for a in placement.inputs[0])
    return placement


def _nodes(operator: str, x: Value, times: list, made: Value, name: str) -> list[Node]:
    """The neutral nodes for so many times along each axis of the result; new axes are first."""
    if not all(isinstance(n, int) and n > 0 for n in times):
        raise Unsupported("it repeats a tensor as often as an open size of the input says", "fix that size")
    nodes = []
    if new := len(times) - x.rank:
        longer = replace(made, name=f"{made.name}:new", shape=(*[1] * new, *x.shape))
        nodes.append(Node("reshape", {"blocks": (NEW,) * new + (KEEP,) * x.rank}, inputs=[x], outputs=[longer]))
        x = longer
    if all(n == 1 for n in times):
        return [*nodes, Node("permute", {"permutation": identity(x.rank)}, name=name, inputs=[x], outputs=[made])]
    if all(n == 1 or size == 1 for n, size in zip(times, x.shape, strict=True)):
        operator = "tile"
    return [*nodes, Node(operator, {"times": tuple(times)}, name=name, inputs=[x], outputs=[made])]


def _broadcast(x: Value, sizes: list, made: Value, name: str) -> list[Node]:
    """Repeat axes of size 1 to these sizes; -1 and what is open stay as they are."""
    shape = [1] * (len(sizes) - x.rank) + list(x.shape)
    times = [n if size == 1 and n not in (-1, 1) else 1 for n, size in zip(sizes, shape, strict=True)]
    return _nodes("tile", x, times, made, name)


def read_keras(layer: KerasLayer) -> list[Node]:
    x, made, c = layer.inputs[0], layer.outputs[0], layer.config
    if layer.class_name == "RepeatVector":
        longer = replace(made, name=f"{made.name}:new", shape=(x.shape[0], 1, *x.shape[1:]))
        blocks = (KEEP, NEW, *(KEEP,) * (x.rank - 1))
        times = [1, c["n"], *[1] * (x.rank - 1)]
        return [
            Node("reshape", {"blocks": blocks}, inputs=[x], outputs=[longer]),
            *_nodes("tile", longer, times, made, layer.path),
        ]
    if layer.class_name == "ops.BroadcastTo":
        return _broadcast(x, list(layer.operation.shape), made, layer.path)
    repeats = c["repeats"]
    if layer.class_name == "ops.Tile":
        times = [repeats] if isinstance(repeats, int) else list(repeats)
        return _nodes("tile", x, [1] * (x.rank - len(times)) + times, made, layer.path)
    return _repeat(x, repeats, c["axis"], made, layer.path)


def _repeat(x: Value, repeats, axis, made: Value, name: str) -> list[Node]:
    if axis is None or not isinstance(repeats, int):
        raise Unsupported(f"repeats={repeats!r} along axis={axis}", "give one number and one axis")
    return _nodes("repeat", x, [repeats if i == axis % x.rank else 1 for i in range(x.rank)], made, name)


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "tile":
        return [KerasCall("ops.tile", {"repeats": node["times"]})]
    axis = next(i for i, n in enumerate(node["times"]) if n > 1)
    return [KerasCall("ops.repeat", {"repeats": node["times"][axis], "axis": axis})]


def read_torch(call: TorchOperation) -> list[Node]:
    x, made = call.inputs[0], call.outputs[0]
    if call.target == "copy":  # of `src`, to the sizes and dtype of `self`
        x = call["src"]
        if not isinstance(x, Value):
            raise Unsupported("it copies a weight", "let it flow")  # the reader does so
        converted = replace(x, name=f"{made.name}:dtype", dtype=made.dtype)
        nodes = [replace(n, inputs=[x], outputs=[converted]) for n in cast(x, made.dtype, "")]
        return [*nodes, *_expand(converted, list(made.symbols or made.shape), call)]
    if call.target in ("expand", "expand_as"):
        return _expand(x, list(made.symbols), call)
    if call.target == "repeat_interleave":
        return _repeat(x, call["repeats"], call["dim"], made, call.path)
    times = list(call["repeats"] if call.target == "repeat" else call["dims"])
    times = [1] * (x.rank - len(times)) + times
    shape = [1] * (len(times) - x.rank) + list(x.symbols)
    if not any(n == 1 and isinstance(m, Size) for n, m in zip(shape, times, strict=True)):
        return _nodes("tile", x, times, made, call.path)
    # as often as an open size says: an axis of size 1 is spread over it
    sizes = [m.symbol if n == 1 and isinstance(m, Size) else n for n, m in zip(shape, times, strict=True)]
    opened = tuple(None if isinstance(n, str) else n for n in sizes)
    spread = replace(made, name=f"{made.name}:spread", shape=opened, symbols=tuple(sizes))
    times = [1 if n == 1 and isinstance(m, Size) else m for n, m in zip(shape, times, strict=True)]
    return [
        *_expand(x, sizes, replace(call, outputs=[spread], path="")),
        *_nodes("tile", spread, times, made, call.path),
    ]


def _expand(x: Value, sizes: list, call: TorchOperation) -> list[Node]:
    """Nodes for an expand; to an open size it is a product with ones of that size."""
    made = call.outputs[0]
    same = [-1 if a == b else a for a, b in zip(sizes[::-1], x.symbols[::-1], strict=False)][::-1]
    sizes = [*sizes[: made.rank - x.rank], *same]
    opened = [n if isinstance(n, str) else 1 for n in sizes]
    if set(opened) == {1}:
        return _broadcast(x, sizes, made, call.path)
    known = [1 if isinstance(n, str) else n for n in sizes]
    given = [1] * (made.rank - x.rank) + list(x.shape)
    shape = tuple(n if m in (1, -1) else m for n, m in zip(given, known, strict=True))
    steps = Steps(made)
    part = replace(x, name=f"{made.name}:part", shape=shape, symbols=())
    nodes = _broadcast(x, known, part, "")
    ones = open_ones(steps, tuple(opened), "int32" if x.dtype == "bool" else x.dtype, call)
    if x.dtype == "bool":  # which TensorFlow does not multiply
        ones = steps("cast", [ones], ones.shape, "bool", dtype="bool")
        steps("comparison", [part, ones], made.shape, function="logical_and")
    else:
        steps("multiply", [part, ones], made.shape)
    return [*nodes, *steps.finish(call.path)]


def write_torch(node: Node) -> TorchCall:
    times, shape = node["times"], node.inputs[0].shape
    if node.operator == "repeat":
        axis = next(i for i, n in enumerate(times) if n > 1)
        return TorchCall(f"{{0}}.repeat_interleave({literal(times[axis])}, {axis})")
    if all(n == 1 or size == 1 for n, size in zip(times, shape, strict=True)):
        return TorchCall(call_source("{0}.expand", *(n if n > 1 else -1 for n in times)))
    return TorchCall(call_source("{0}.repeat", *times))
