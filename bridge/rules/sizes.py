"""Open sizes of tensors, as numbers and as ones: x.shape[2], expand to a batch, zeros, full, arange <-> keras.ops.

In a functional model of Keras an open size is no number that one could compute with. But the cells of a tensor along
the axis that has the size, made ones (`keras.ops.ones_like`), are as many; their sum is the number. Such a row is a
small model of keras.ops here (`bridge.composed`). A class token for each image is the token times a row of ones of the
batch, and positions are running sums.

A size that is a part of another, x.shape[2] // 2 or floor(1.5 * n), is one of (p * n + c) // q: p ones for each cell
and c more, of which every q-th is taken.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from bridge import expressions
from bridge.expressions import WHOLE, Part
from bridge.graph import Node, Steps, Unsupported, Value
from bridge.layout import Context, Placement, anything, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal, reshape

OPERATORS = ("ones", "row", "size", "linspace")
KERAS = ("ops.OnesLike", "model.row", "model.size", "model.linspace")
FILLED = {  # ATen -> the value; None where it is an argument
    **{f"{kind}{name}": value for name, value in (("zeros", 0), ("ones", 1), ("full", None)) for kind in ("", "new_")},
    **{"zeros_like": 0, "ones_like": 1, "full_like": None, "fill": None},
}
TORCH = (*FILLED, "arange", "bridge::linspace")
CONSTANTS = ("ones",)
SPREADING = ("reshape", "flatten", "permute", "cast", "multiply")  # of ones alone they make ones


def READS(node: Node) -> int:
    return 0 if node.operator in ("row", "size") else len(node.inputs)


def LAYOUT(node: Node, context: Context) -> Placement:
    if node.operator == "ones":
        return anything(node, context)
    if not isinstance(order := context.orders[0], tuple):
        return fixed(node, context)
    return Placement([order], [identity(node.outputs[0].rank)], {"axis": renumbered(node["axis"], order)})


def renumbered(axis: int | tuple[int, ...], order: tuple[int, ...]) -> int | tuple[int, ...]:
    """An axis, or several in any order, of a tensor that is written in an order."""
    return order.index(axis) if isinstance(axis, int) else tuple(sorted(order.index(a) for a in axis))


def merge(node: Node, reader: Node) -> Node | None:
    """Ones of one cell stay so, whatever becomes of their axes."""
    if node.operator != "ones":
        return None
    if reader.operator == "reshape" and set(reader.outputs[0].shape) <= {1}:
        return replace(node, outputs=reader.outputs)
    if reader.operator == "outer" and set(node.outputs[0].shape) == {1}:
        return replace(reader, inputs=[])
    return None


def row(x, axis: int | tuple[int, ...], dtype: str, part: Part = WHOLE):
    """As many ones as a part of the cells that a tensor has along an axis, or along several, in keras.ops.

    "float" is the dtype of a tensor of floats.
    """
    from keras import ops

    axes = (axis,) if isinstance(axis, int) else axis
    cells = x
    if others := tuple(a for a in range(len(x.shape)) if a not in axes):  # of which any may be empty: [0] has no cell
        cells = ops.sum(x[tuple(slice(int(a in others) or None) for a in range(len(x.shape)))], axis=others)
    if len(axes) > 1:
        cells = ops.reshape(cells, (-1,))
    ones = ops.ones_like(cells)
    ones = ones if dtype in ("float", x.dtype) and "float" in x.dtype else ops.cast(ones, dtype)
    p, c, q = part
    first, more = max(q - 1 - c, 0), max(c - q + 1, 0)
    if p > 1:
        ones = ops.repeat(ones, p, axis=0)
    if more:
        ones = ops.pad(ones, ((0, more),), constant_values=1)
    return ones[(slice(first, None, q),)] if (first, q) != (0, 1) else ones


def seen(tensor, inputs: list) -> tuple[int, int | tuple[int, ...], Part] | None:
    """Of which input's which axis or axes, and of which part, a tensor of a model is the `row`, by its operations."""
    p, first, more, q = 1, 0, 0, 1
    while True:
        operation, index, _ = tensor._keras_history
        node, kind = operation._inbound_nodes[index], type(operation).__name__
        if not node.input_tensors or kind not in ("GetItem", "Pad", "Repeat", "Cast", "OnesLike", "Reshape", "Sum"):
            return None
        tensor = node.input_tensors[0]
        number = next((i for i, x in enumerate(inputs) if x is tensor), None)
        if kind == "GetItem":
            key = tuple(node.arguments.args[1])
            axes = tuple(a for a, item in enumerate(key) if item == slice(None))
        elif number is not None:
            axes = tuple(range(len(tensor.shape)))
        if number is not None and axes:
            return number, axes if len(axes) > 1 else axes[0], (p, more + q - 1 - first, q)
        if kind == "GetItem":
            if len(key) != 1:
                return None
            first, q = key[0].start or 0, key[0].step or 1
        elif kind == "Pad":
            more = operation.pad_width[0][1]
        elif kind == "Repeat":
            p = operation.repeats


def taken(model) -> dict[int, tuple[int, int, Part] | None]:
    """For each axis along which a model takes cells by their numbers, of what the `row` is that these are made of."""
    found = {}
    for operation in model.operations:
        if type(operation).__name__ == "Take":
            queue = [operation._inbound_nodes[0].arguments.args[1]]
            found[operation.axis] = None
            for tensor in queue:
                if not hasattr(tensor, "_keras_history"):
                    continue
                source, index, _ = tensor._keras_history
                given, kind = source._inbound_nodes[index].input_tensors, type(source).__name__
                if kind == "Cumsum":
                    found[operation.axis] = seen(given[0], model.inputs)
                    break
                queue += given if kind != "Take" else []
    return found


def size(x, axis: int, dtype: str, part: Part = WHOLE):
    """The size of an axis, or a part of it, as a tensor without axes."""
    from keras import ops

    return ops.sum(row(x, axis, dtype, part))


def linspace(x, axis: int, dtype: str, part: Part, start: float, end: float):
    """As many numbers as an axis or a part of it has cells, from one to another, by torch's rule: from either end."""
    from keras import ops

    cells = row(x, axis, dtype, part)
    places, last = ops.cumsum(cells) - 1.0, ops.sum(cells) - 1.0
    step = (end - start) / ops.maximum(last, 1.0)
    from_start, from_end = start + step * places, end - step * (last - places)
    return ops.where(ops.less(2.0 * places, ops.maximum(last, 1.0)), from_start, from_end)


def text(tensor: str, axis: int | tuple[int, ...], part: Part = WHOLE) -> str:
    """The source of a size in torch; a sum is in brackets where it is no argument."""
    p, c, q = part
    whole = " * ".join(f"{tensor}.shape[{int(a)}]" for a in ((axis,) if isinstance(axis, int) else axis))
    whole = f"{whole} * {int(p)}" if p > 1 else whole
    whole = f"{whole} {'+' if c > 0 else '-'} {abs(int(c))}" if c else whole
    return whole if q == 1 else f"{f'({whole})' if c else whole} // {int(q)}"


MODELS = {"row": row, "size": size, "linspace": linspace}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    if len(model.inputs) != 1 or len(model.outputs[0].shape) != (0 if name == "size" else 1):
        return
    made = model.outputs[0]
    if name == "linspace":
        yield from _linspaces(model)
        return
    operation = made._keras_history.operation
    if name == "size" and type(operation).__name__ == "Sum":
        made = operation._inbound_nodes[0].input_tensors[0]
    if found := seen(made, model.inputs):
        yield {"axis": found[1], "dtype": made.dtype, "part": found[2]}


def _linspaces(model) -> Iterator[dict]:
    """The options with which a model may be a `linspace`."""
    given = {"Cumsum": [], "Add": [], "Subtract": []}
    for operation in model.operations:
        if (kind := type(operation).__name__) in given:
            given[kind] += [node.arguments.args[0] for node in operation._inbound_nodes]
    starts, ends = ([x for x in given[kind] if isinstance(x, float)] for kind in ("Add", "Subtract"))
    found = seen(given["Cumsum"][0], model.inputs) if len(given["Cumsum"]) == 1 else None
    if found and len(starts) == len(ends) == 1:
        made = {"axis": found[1], "dtype": given["Cumsum"][0].dtype, "part": found[2]}
        yield made | {"start": starts[0], "end": ends[0]}


def open_ones(steps: Steps, symbols: tuple, dtype: str, call: TorchOperation) -> Value:
    """Make ones of the open sizes among these; along axes of a known size they have one cell.

    Args:
        steps: Takes the nodes.
        symbols: The sizes: numbers, and the symbols of open ones.
        dtype: Of the ones.
        call: What they are for, which knows what has which size.
    """
    made = None
    for axis, symbol in enumerate(symbols):
        if isinstance(symbol, int):
            continue
        cells = open_row(steps, symbol, dtype, call)
        shape = tuple(None if a == axis else 1 for a in range(len(symbols)))
        if len(symbols) > 1:
            blocks = [reshape.KEEP if a == axis else reshape.NEW for a in range(len(symbols))]
            blocks = reshape.plain(blocks, cells.shape)
            cells = steps("reshape", [cells], shape, blocks=blocks)
        both = tuple(None if isinstance(n, str) and a <= axis else 1 for a, n in enumerate(symbols))
        made = steps("multiply", [made, cells], both) if made else cells
    return made


def ones_among(nodes: list[Node], known: set[str]) -> set[str]:
    """The names of what nodes make that is ones and nothing else; those that are known before are `known`."""
    found = set()
    for node in nodes:
        made = node.operator in ("ones", "row")
        if made or (node.operator in SPREADING and node.inputs and {v.name for v in node.inputs} <= known | found):
            found |= {v.name for v in node.outputs}
    return found


def source(symbol: str, call: TorchOperation) -> tuple[Value, int | tuple[int, ...], Part]:
    """The tensor and the axis, or the axes, of it that have an open size, or of which it is a part."""
    if symbol in call.sizes:
        return *call.sizes[symbol], WHOLE
    for whole, (x, axis) in call.sizes.items():
        if part := expressions.part(symbol, whole):
            return x, axis, part
    for x in dict.fromkeys(x for x, _ in call.sizes.values()):
        opened = [axis for axis, n in enumerate(x.symbols) if isinstance(n, str)]
        for axes in (axes for n in range(2, len(opened) + 1) for axes in combinations(opened, n)):
            if part := expressions.part(symbol, "*".join(f"({x.symbols[axis]})" for axis in axes)):
                return x, axes, part
    raise Unsupported(
        f"it needs the size {symbol}, which is worked out from open sizes of the input and no tensor has",
        "export with these sizes fixed",
    )


def open_row(steps: Steps, symbol: str, dtype: str, call: TorchOperation) -> Value:
    """Make as many ones as an open size says; those that have been made are taken again."""
    if (symbol, dtype) in call.rows:
        return call.rows[symbol, dtype]
    x, axis, part = source(symbol, call)
    made = replace(steps("row", [x], (None,), dtype, axis=axis, part=part), symbols=(symbol,))
    steps.nodes[-1].outputs = [made]
    return made


def number(symbol: str, made: Value, call: TorchOperation) -> list[Node]:
    """The node that makes an open size a number, of the dtype of `made`."""
    x, axis, part = source(symbol, call)
    return [Node("size", {"axis": axis, "part": part}, inputs=[x], outputs=[made])]


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name != "ops.OnesLike":
        attributes = {k: v for k, v in layer.config.items() if k != "dtype"}
        return [Node(layer.class_name.removeprefix("model."), attributes, name=layer.path)]
    x, made = layer.inputs[0], layer.outputs[0]
    if made.dtype != x.dtype:
        raise Unsupported(f"it makes {made.dtype} of {x.dtype}", "cast the tensor first")
    return [Node("ones", {}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "ones":
        return [KerasCall("ops.ones_like")]
    return [KerasCall(f"model.{node.operator}", node.attributes | {"dtype": node.outputs[0].dtype})]


def read_torch(call: TorchOperation) -> list[Node]:
    made = call.outputs[0]
    steps = Steps(made)
    if call.target == "arange":
        return _arange(steps, call)
    if call.target == "bridge::linspace":
        x, axis, part = source(made.symbols[0], call)
        return [Node("linspace", {"axis": axis, "part": part, "start": call["start"], "end": call["end"]}, inputs=[x])]
    if call.target == "ones_like" and call["self"].dtype == made.dtype:
        return [Node("ones", {}, name=call.path)]
    value = FILLED[call.target]
    value = call["value" if call.target == "fill" else "fill_value"] if value is None else value
    if isinstance(value, Value) and not made.rank:
        return [Node("permute", {"permutation": ()}, inputs=[value], name=call.path)]
    if isinstance(value, str) and not call.state["value"][2]:  # x[:, 1] = 2: torch.export makes it a tensor
        value = call.state["value"][1].item()
    if not isinstance(value, (int, float)):
        raise Unsupported("it fills a tensor with a value that is computed", "multiply ones by it")
    times = tuple(1 if n is None else n for n in made.shape)
    if call.target == "fill":
        ones, times = steps("ones", [call["self"]], made.shape), (1,)
    else:
        ones = open_ones(steps, made.symbols, made.dtype, call)
    if set(times) != {1}:
        ones = steps("tile", [ones], made.shape, times=times)
    if value != 1:
        steps("multiply", [ones], made.shape, number=value)
    if not steps.nodes:  # there are such ones already
        return [Node("permute", {"permutation": identity(made.rank)}, inputs=[ones], name=call.path)]
    return steps.finish(call.path)


def _arange(steps: Steps, call: TorchOperation) -> list[Node]:
    made, start, step = call.outputs[0], call.arguments.get("start", 0), call.arguments.get("step", 1)
    if not isinstance(step, (int, float)):
        raise Unsupported("its step is worked out from open sizes", "export with these sizes fixed")
    ones = open_row(steps, made.symbols[0], made.dtype, call)
    x = steps("cumsum", [ones], ones.shape, axis=0)
    x = steps("add", [x], x.shape, number=-1)
    if step != 1:
        x = steps("multiply", [x], x.shape, number=step)
    if isinstance(start, Value):
        steps("add", [x, steps("reshape", [start], (1,), blocks=(reshape.NEW,))], x.shape)
    elif start:
        steps("add", [x], x.shape, number=start)
    return steps.finish(call.path)


def write_torch(node: Node) -> TorchCall:
    if node.operator == "ones":
        return TorchCall("torch.ones_like({0})")
    axis, made = text("{0}", node["axis"], node["part"]), node.outputs[0].dtype
    if node.operator == "linspace":
        dtype = "{0}.dtype" if made == node.inputs[0].dtype else f"torch.{made}"
        ends = f"{literal(node['start'])}, {literal(node['end'])}"
        return TorchCall(f"torch.linspace({ends}, {axis}, dtype={dtype}, device={{0}}.device)")
    dtype = "" if made == node.inputs[0].dtype else f", dtype=torch.{made}"
    return TorchCall(
        f"{{0}}.new_full((), {axis}{dtype})" if node.operator == "size" else f"{{0}}.new_ones({axis}{dtype})"
    )
