"""Slices: x[:, 1:3], x[..., 0], keras.ops.split <-> x[:, 1:3], narrow, select, chunk, split, unbind.

A node takes a part of one axis; for several axes, and for a split into several tensors, there are several nodes. An
index such as x[:, 0] is a slice of one, whose axis is then dropped, and None adds one (`bridge.rules.reshape`).
What goes by an open size is `bridge.rules.fit_like`'s, unless it is so many cells from the end.
"""

from dataclasses import replace
from itertools import accumulate, pairwise

from bridge import expressions
from bridge.graph import Node, Steps, Unsupported, Value
from bridge.layout import axes, identity
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, fit_like, reshape
from bridge.rules.reshape import DROP, KEEP, NEW

OPERATORS = ("slice",)
KERAS = ("ops.GetItem", "ops.Split", "ops.Unstack")
SPLITS = ("chunk", "unsafe_chunk", "split", "unsafe_split", "split_with_sizes", "tensor_split", "unbind")
SCATTERS = ("slice_scatter", "select_scatter")  # what a change in place of a part is made, by bridge.in_place
TORCH = ("slice", "select", "narrow", *SPLITS, *SCATTERS)
LAYOUT = axes
END = 2**63 - 1  # what torch.export writes for an open end


def index(x: Value, items: tuple, made: Value, name: str) -> list[Node]:
    """Nodes for `made = x[items]`; items are numbers, slices, None and one Ellipsis."""
    items = list(items)
    if Ellipsis in items:
        at, given = items.index(Ellipsis), len(items) - 1 - items.count(None)
        items[at : at + 1] = [slice(None)] * (x.rank - given)
    items += [slice(None)] * (x.rank - len(items) + items.count(None))
    nodes, blocks, axis = [], [], 0
    for item in items:
        if item is None:
            blocks.append(NEW)
            continue
        if isinstance(item, int):
            blocks.append(DROP)
            item = slice(item, item + 1 if item != -1 else None)
        elif isinstance(item, slice):
            blocks.append(KEEP)
        else:
            raise Unsupported(f"an index that is no number or slice: {type(item).__name__}", "slice it")
        previous = nodes[-1].outputs[0] if nodes else x
        if part := _slice(previous, axis, item):
            shape = tuple(_size(previous.shape[axis], part) if i == axis else n for i, n in enumerate(previous.shape))
            part.outputs = [replace(made, name=f"{made.name}:{len(nodes)}", shape=shape)]
            nodes.append(part)
        axis += 1
    shape = nodes[-1].outputs[0].shape if nodes else x.shape
    if set(blocks) != {KEEP}:
        whole = nodes[-1].outputs[0] if nodes else x
        nodes.append(replace(reshape.of_blocks(blocks, shape, ""), inputs=[whole]))
    if not nodes:
        nodes = [Node("permute", {"permutation": identity(x.rank)}, inputs=[x])]
    nodes[-1].outputs = [made]
    nodes[-1].name = name
    return nodes


def _slice(x: Value, axis: int, part: slice) -> Node | None:
    """The neutral node; its bounds count from the start where the size is known. None where it is all of x."""
    if not all(n is None or isinstance(n, int) for n in (part.start, part.stop, part.step)):
        raise Unsupported("its bounds are computed from an open size of the input", "export with that size fixed")
    start, stop, step = part.start or 0, part.stop, part.step or 1
    if step < 1:
        raise Unsupported(f"step {step}", "use a positive step, and flip the tensor")
    size = x.shape[axis]
    if size is not None:
        start, stop, step = slice(start, stop, step).indices(size)
    if stop is not None and stop >= (size or END):
        stop = None
    if (start, stop, step) == (0, None, 1):
        return None
    return Node("slice", {"axis": axis, "start": start, "stop": stop, "step": step}, inputs=[x])


def _size(size: int | None, part: Node) -> int | None:
    if size is not None:
        return len(range(*_part(part).indices(size)))
    if (part["start"], part["stop"], part["step"]) == (-1, None, 1):
        return 1
    whole = part["step"] == 1 and part["stop"] is not None and (part["start"] >= 0) == (part["stop"] >= 0)
    return max(0, part["stop"] - part["start"]) if whole else None


def _part(node: Node) -> slice:
    return slice(node["start"], node["stop"], node["step"])


def _split(x: Value, axis: int, bounds: list[int], outputs: list[Value], name: str, drop: bool = False) -> list[Node]:
    """Nodes for a split of an axis at its bounds, the first and the last included."""
    before, nodes = (slice(None),) * (axis % x.rank), []
    for i, ((start, stop), made) in enumerate(zip(pairwise(bounds), outputs, strict=True)):
        nodes += index(x, (*before, start if drop else slice(start, stop)), made, f"{name}_{i}" if name else "")
    return nodes


def read_keras(layer: KerasLayer) -> list[Node]:
    x = layer.inputs[0]
    if layer.class_name == "ops.GetItem":
        items = layer.arguments["key"]
        if isinstance(items, list) and not all(isinstance(n, int) for n in items):  # a tuple, read from a file
            items = tuple(items)
        items = items if isinstance(items, tuple) else (items,)
        return index(x, items, layer.outputs[0], layer.path)
    axis = layer.config["axis"]
    size = x.shape[axis]
    if size is None:
        raise Unsupported("it splits an axis of an open size", "fix that size")
    if layer.class_name == "ops.Unstack":
        return _split(x, axis, list(range(size + 1)), layer.outputs, layer.path, drop=True)
    sections = layer.config["indices_or_sections"]
    if isinstance(sections, int):
        sections = range(size // sections, size, size // sections)
    return _split(x, axis, [0, *sections, size], layer.outputs, layer.path)


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("ops.get_item", {"key": (*(slice(None),) * node["axis"], _part(node))})]


def _scatter(call: TorchOperation) -> list[Node]:
    """Nodes for a tensor of which a part along an axis is another's: what is before it, that, and what is behind."""
    x, part, made = call["self"], call["src"], call.outputs[0]
    if not isinstance(x, Value) or not isinstance(part, Value):
        raise Unsupported("a part of a weight is set, or set to a weight", "let both flow")  # the reader does so
    axis, steps = call["dim"] % x.rank, Steps(made)
    size, shape = x.shape[axis], list(x.shape)
    if call.target == "select_scatter":
        bounds = (call["index"], call["index"] + 1 if call["index"] != -1 else None, 1)
        shape[axis] = 1
        blocks = [KEEP] * x.rank
        blocks[axis] = NEW
        part = steps("reshape", [part], shape, blocks=reshape.plain(blocks, part.shape))
    else:
        bounds = (call["start"], call["end"], call["step"])
    if not all(n is None or isinstance(n, int) for n in bounds):
        raise Unsupported("it sets a part whose bounds are computed from an open size", "export with that size fixed")
    start, stop, step = bounds if size is None else slice(*bounds).indices(size)
    start, stop = start or 0, stop if stop is None or stop < (size or END) else None
    if size is not None and stop is not None:
        stop = max(start, stop)
    if size is None and start and stop is not None and (start < 0) != (stop < 0):
        raise Unsupported("it sets a part from one end of an open axis to the other", "export with that size fixed")
    if (step or 1) != 1:
        raise Unsupported(f"it sets every {step}th part", "set all of them, or join the parts by torch.cat")
    parts = [part]
    for a, b in ((0, start), (stop, None)):
        if a != b:
            item = slice(a, b, 1)
            shape[axis] = None if size is None else len(range(*item.indices(size)))
            made_part = steps("slice", [x], shape, axis=axis, start=a, stop=b, step=1)
            parts = [made_part, *parts] if b is not None else [*parts, made_part]
    if parts == [part]:
        steps("permute", parts, made.shape, permutation=identity(made.rank))
    else:
        steps("concatenate", parts, made.shape, axis=axis)
    return steps.finish(call.path)


def read_torch(call: TorchOperation) -> list[Node]:
    if call.target in SCATTERS:
        return _scatter(call)
    x, outputs = call.inputs[0], call.outputs
    axis = call["dim"] % x.rank
    before = (slice(None),) * axis
    if call.target not in SPLITS:
        if call.target == "slice":
            item = slice(call["start"], call["end"], call["step"])
        elif call.target == "narrow":
            item = slice(call["start"], _sum(call["start"], call["length"]))
        else:
            item = call["index"]
        if isinstance(item, Size):  # x[:, n]
            part = replace(x, name=f"{outputs[0].name}:part")
            part = replace(
                part,
                shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]),
                symbols=(*x.symbols[:axis], 1, *x.symbols[axis + 1 :]),
            )
            blocks = reshape.plain([DROP if a == axis else KEEP for a in range(x.rank)], part.shape)
            return [
                *fit_like.cuts(x, axis, item, None, part, call),
                Node("reshape", {"blocks": blocks}, inputs=[part], outputs=outputs, name=call.path),
            ]
        if isinstance(item, slice) and any(isinstance(n, Size) for n in (item.start, item.stop)):
            return _open(x, axis, item, outputs[0], call)
        return index(x, (*before, item), outputs[0], call.path)
    sizes = [1 if call.target == "unbind" else v.shape[axis] for v in outputs]
    if None in sizes:
        return _split_open(x, axis, outputs, call)
    bounds = [0, *accumulate(sizes)]
    return _split(x, axis, bounds, outputs, call.path, drop=call.target == "unbind")


def _sum(*numbers):
    """The sum of numbers and open sizes."""
    if all(isinstance(n, int) for n in numbers):
        return sum(numbers)
    return Size(" + ".join(f"({_text(n)})" for n in numbers))


def _text(number) -> str:
    return number.symbol if isinstance(number, Size) else str(number)


def _open(x: Value, axis: int, part: slice, made: Value, call: TorchOperation) -> list[Node]:
    """Nodes for a part of an axis whose bounds are worked out from open sizes."""
    if (part.step or 1) != 1:
        raise Unsupported("it takes every nth cell up to an open size", "take them in two steps")
    given, size, start = str(x.symbols[axis]), str(made.symbols[axis]), part.start or 0
    at = f"({given}) - {-start}" if isinstance(start, int) and start < 0 else _text(start)
    if part.stop in (None, END) and expressions.equal(at, f"-({size})"):  # x[:, -n:] is x[:, x.shape[1] - n :]
        at = f"({given}) - ({size})"
    first, last = (expressions.constant(n) for n in (at, f"({at}) + ({size}) - ({given})"))
    first = first if first is not None else expressions.constant(f"({at}) - ({given})")
    if first is not None and last is not None and last <= 0:  # so many cells from both ends
        item = slice(first, last or None)
        return index(x, (*(slice(None),) * axis, item), made, call.path)
    try:
        nodes = fit_like.nodes(x, axis, size, first if first is not None and first >= 0 else Size(at), None, made, call)
    except Unsupported:
        nodes = fit_like.cuts(x, axis, part.start or 0, part.stop if part.stop != END else None, made, call)
    return [replace(nodes[-1], name=call.path)]


def _split_open(x: Value, axis: int, outputs: list[Value], call: TorchOperation) -> list[Node]:
    """Nodes for a split of an axis of an open size; those that nobody reads are left out later."""
    nodes, parts = [], [str(made.symbols[axis]) for made in outputs]

    def behind(n: int):
        """Where so many of the parts end."""
        if n < 2 or len(set(parts[:n])) > 1:
            return _sum(*(Size(part) for part in parts[:n])) if n != 1 else Size(parts[0])
        return Size(f"{n}*({parts[0]})")

    for i, made in enumerate(outputs):
        nodes += _open(x, axis, slice(behind(i), behind(i + 1) if i + 1 < len(parts) else None), made, call)
    return nodes


def write_torch(node: Node) -> TorchCall:
    start, stop, step = (
        str(int(n)) if n else "" for n in (node["start"], node["stop"], node["step"] - 1 and node["step"])
    )
    part = f"{start}:{stop}" + (f":{step}" if step else "")
    return TorchCall(f"{{0}}[{', '.join([*[':'] * node['axis'], part])}]")
