"""Fitting to a size that is open: y[:, :, : x.shape[2]], F.pad(y, (0, x.shape[3] - y.shape[3])), crops of the middle.

A decoder has one row more or less than the image where that is odd, and crops what it has made, or pads it, to the size
of the skip connection. A node does so along one axis. Its size is that of another tensor, or a part of one
(`bridge.rules.sizes`), the tensor's own included: x[:, :, : x.shape[2] // 2]. Where it begins is a number or hangs on
what is left over: "end" is all of it, "floor" and "ceil" are half of it. Negative padding crops.

Keras' layers pad and crop by numbers. What it has here is a small model of keras.ops (`bridge.composed`) that takes the
cells by their numbers, and with padding puts a value where there are none. A crop that is larger than the tensor raises
an error in both frameworks (on a GPU TensorFlow makes zeros), where torch's x[:, :, :h] stops at the end.

A cut that begins or ends anywhere else, x[:, :, h // 4 : h - h // 4], goes by expressions of the sizes n0, n1, ... that
it has; those of its cells that are between have these numbers.
"""

import re
from collections.abc import Iterator

from bridge import expressions
from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, fixed
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, literal, sizes

OPERATORS = ("fit_like", "cut_like")
KERAS = ("model.fit_like", "model.cut_like")
TORCH = ()  # `slice` and `padding` read the operators and hand over what goes by open sizes
STARTS = ("floor", "ceil", "end")


def LAYOUT(node: Node, context: Context) -> Placement:
    if not all(isinstance(order, tuple) for order in context.orders):
        return fixed(node, context)
    if node.operator == "cut_like":
        names = tuple((i, context.orders[i].index(axis)) for i, axis in node["names"])
        attributes = {"axis": context.orders[0].index(node["axis"]), "names": names}
        return Placement(list(context.orders), [context.orders[0]], attributes)
    order, like = context.orders[0], context.orders[-1]
    attributes = {"axis": order.index(node["axis"]), "like": sizes.renumbered(node["like"], like)}
    return Placement(list(context.orders), [order], attributes)


def fit(x, like=None, *, axis: int, size: tuple, start: int | str, value: float | None):
    """In keras.ops: as many cells along an axis as `size` says: (an axis of the last tensor, the part of it)."""
    from keras import ops

    cells = sizes.row(x if like is None else like, size[0], "float32", size[1])
    places = ops.cumsum(cells) - 1.0
    given = x.shape[axis] or sizes.size(x, axis, "float32")
    if start in STARTS:
        left = given - ops.sum(cells)
        start = left if start == "end" else ops.floor(left / 2) if start == "floor" else ops.ceil(left / 2)
    places = places + start
    if value is None:
        return ops.take(x, ops.cast(places, "int32"), axis=axis)
    held = ops.minimum(ops.relu(places), given - 1)
    inside = ops.reshape(ops.equal(held, places), (-1, *[1] * (len(x.shape) - axis - 1)))
    x = ops.take(x, ops.cast(held, "int32"), axis=axis)
    return ops.where(inside, x, ops.full_like(x, value))


def cut(x, *others, axis: int, start: str, stop: str | int, names: tuple):
    """In keras.ops: the cells of an axis from `start` to before `stop` or, if that is a number, as many."""
    from keras import ops

    tensors = (x, *others)
    given = {f"n{i}": sizes.size(tensors[number], a, "float32") for i, (number, a) in enumerate(names)}
    functions = {"Max": ops.maximum, "Min": ops.minimum}
    begin = expressions.evaluate(start, given, functions)
    if isinstance(stop, int):
        places = begin + ops.arange(stop, dtype="float32")
    else:
        cells = ops.cumsum(sizes.row(x, axis, "float32")) - 1.0
        end = expressions.evaluate(stop, given, functions)
        (places,) = ops.nonzero(ops.logical_and(ops.greater_equal(cells, begin), ops.less(cells, end)))
    return ops.take(x, ops.cast(places, "int32"), axis=axis)


MODELS = {"fit_like": fit, "cut_like": cut}
SIGNS = {"Add": "+", "Subtract": "-", "Multiply": "*", "FloorDivide": "//", "Mod": "%"}
LONGEST = 1000  # of the texts of bounds: what is used again and again would grow without end
SIMPLE = {"Add", "Sub", "Mult", "FloorDiv", "Mod", "Max", "Min"}


def _text(x, inputs: list, names: list) -> str:
    """The expression of a number in a model, of the sizes that are in `names` or come there."""
    if not hasattr(x, "_keras_history"):
        return str(x)
    operation, index, _ = x._keras_history
    given, kind = operation._inbound_nodes[index].arguments.args, type(operation).__name__
    if kind == "Sum" and (found := sizes.seen(given[0], inputs)) and found[2] == expressions.WHOLE:
        names += [found[:2]] if found[:2] not in names else []
        return f"n{names.index(found[:2])}"
    parts = [f"({_text(part, inputs, names)})" for part in given]
    if sum(map(len, parts)) > LONGEST:
        raise KeyError(kind)
    if kind == "Negative":
        return f"-{parts[0]}"
    if kind in ("Maximum", "Minimum"):
        return f"{kind[:3]}({', '.join(parts)})"
    return f" {SIGNS[kind]} ".join(parts)


def _cuts(model, found: dict) -> Iterator[dict]:
    """The options with which a model may be a `cut`."""
    made, axis, names = model.outputs[0].shape, found["Take"].axis, []
    try:
        if "Nonzero" in found:
            bounds = [found[kind]._inbound_nodes[0].arguments.args[1] for kind in ("GreaterEqual", "Less")]
        else:
            places = found["Take"]._inbound_nodes[0].arguments.args[1]._keras_history.operation._inbound_nodes[0]
            bounds = [places.arguments.args[0]._keras_history.operation._inbound_nodes[0].arguments.args[0]]
        texts = [expressions.renamed(_text(x, model.inputs, names), {}) for x in bounds]
    except (AttributeError, KeyError, IndexError, SyntaxError, TypeError):  # it is another model
        return
    yield {"axis": axis, "start": texts[0], "stop": (*texts, made[axis])[1], "names": tuple(names)}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    found = {type(operation).__name__: operation for operation in model.operations}
    if name == "cut_like" and {"Take", "Sum"} <= found.keys():
        yield from _cuts(model, found)
        return
    if name == "cut_like" or len(model.inputs) > 2 or not {"Take", "Cumsum"} <= found.keys():
        return
    arguments = {kind: operation._inbound_nodes[0].arguments.args for kind, operation in found.items()}
    value = arguments["FullLike"][1] if "FullLike" in found else None
    added = [n.arguments.args[1] for o in model.operations if type(o).__name__ == "Add" for n in o._inbound_nodes]
    numbers = [n for n in added if isinstance(n, (int, float))]
    for axis, row in sizes.taken(model).items():
        if row:
            for start in (*STARTS, *numbers):
                yield {"axis": axis, "size": row[1:], "start": start, "value": value}


def nodes(x: Value, axis: int, size: str, start, value: float | None, made: Value, call: TorchOperation) -> list[Node]:
    """The node for a fit along an axis.

    Args:
        x: What is fitted.
        axis: Along which axis.
        size: The symbol of its new size.
        start: At which of its cells that begins: a number, or `rules.Size`.
        value: What stands before and behind the cells; None where there is nothing but cells.
        made: What comes out.
        call: What it is for.
    """
    other, like, part = sizes.source(size, call)
    start = start if isinstance(start, int) else _start(start.symbol, str(x.symbols[axis]), size)
    attributes = {"axis": axis, "like": like, "part": part, "start": start, "value": value}
    return [Node("fit_like", attributes, inputs=[x] if other == x else [x, other], outputs=[made])]


def _start(start: str, given: str, size: str) -> int | str:
    """The word for where a fit begins."""
    number, left = expressions.constant(start), f"(({given}) - ({size}))"
    if number is not None:
        return number
    for word, way in (("floor", f"{left} // 2"), ("ceil", f"-(-{left} // 2)"), ("end", left), ("end", f"-({size})")):
        if expressions.equal(start, way):
            return word
    raise Unsupported(
        f"it begins at {start} of {given} cells, to have {size}",
        "begin at a number, or with all or half of what is left over, or export with that size fixed",
    )


def cuts(x: Value, axis: int, start, stop, made: Value, call: TorchOperation) -> list[Node]:
    """The node for a cut along an axis, from and to a number or `rules.Size`; None is the end."""
    size, texts, inputs, found = str(x.symbols[axis]), [], [x], {}
    for bound in (start, stop):
        text = size if bound is None else bound.symbol if isinstance(bound, Size) else str(bound)
        negative = expressions.negative(text)
        if negative is None:
            raise Unsupported(f"{text} is below 0 at some sizes", "take no less than 0: torch.sym_max(n, 0)")
        texts.append(f"{size} + ({text})" if negative else text)
    if isinstance(made.symbols[axis], int):
        texts[1:] = []
    for symbol in sorted(frozenset().union(*map(expressions.symbols, texts))):
        if symbol not in call.sizes:
            raise Unsupported(f"no tensor has the size {symbol}", "export with these sizes fixed")
        found[symbol] = call.sizes[symbol]
    order = sorted(found, key=re.findall(r"\w+", " ".join(texts)).index)
    inputs += [v for v in dict.fromkeys(found[s][0] for s in order) if v != x]
    names = tuple((inputs.index(found[s][0]), found[s][1]) for s in order)
    texts = [expressions.renamed(text, {s: f"n{i}" for i, s in enumerate(order)}) for text in texts]
    if not all(expressions.operations(text) <= SIMPLE for text in texts):
        raise Unsupported(f"its bounds are {' and '.join(texts)} of open sizes", "use +, -, *, //, % and torch.sym_max")
    attributes = {"axis": axis, "start": texts[0], "stop": (*texts, made.symbols[axis])[1], "names": names}
    return [Node("cut_like", attributes, inputs=inputs, outputs=[made])]


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "model.cut_like":
        return [Node("cut_like", dict(layer.config), name=layer.path)]
    like, part = layer.config["size"]
    attributes = {k: layer.config[k] for k in ("axis", "start", "value")}
    return [Node("fit_like", attributes | {"like": like, "part": part}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "cut_like":
        return [KerasCall("model.cut_like", dict(node.attributes))]
    options = {k: node[k] for k in ("axis", "start", "value")}
    return [KerasCall("model.fit_like", options | {"size": (node["like"], node["part"])})]


def read_torch(call: TorchOperation) -> list[Node]:
    raise NotImplementedError("`slice` and `padding` read the operators")


def write_torch(node: Node) -> TorchCall:
    if node.operator == "cut_like":
        names = {f"n{i}": f"{{{number}}}.shape[{int(axis)}]" for i, (number, axis) in enumerate(node["names"])}
        names |= {"Max": "torch.sym_max", "Min": "torch.sym_min"}
        start, stop = (
            n if isinstance(n, int) else expressions.renamed(n, names) for n in (node["start"], node["stop"])
        )
        if isinstance(stop, int):
            return TorchCall(f"{{0}}.narrow({int(node['axis'])}, {start}, {stop})")
        return TorchCall(f"{{0}}[{':, ' * node['axis']}{start}:{stop}]")
    axis, start = node["axis"], node["start"]
    size = sizes.text(f"{{{len(node.inputs) - 1}}}", node["like"], node["part"])
    given, bracketed = f"{{0}}.shape[{int(axis)}]", size if node["part"] == expressions.WHOLE else f"({size})"
    if node["value"] is None:
        if start == 0:
            return TorchCall(f"{{0}}[{':, ' * axis}:{size}]")
        left = f"{given} - {bracketed}"
        begin = {"floor": f"({left}) // 2", "ceil": f"({left} + 1) // 2", "end": left}.get(start, literal(start))
        return TorchCall(f"{{0}}.narrow({int(axis)}, {begin}, {size})")
    missing = f"{bracketed} - {given}"
    before, after = {
        "floor": (f"({missing} + 1) // 2", f"({missing}) // 2"),
        "ceil": (f"({missing}) // 2", f"({missing} + 1) // 2"),
        "end": (missing, "0"),
    }.get(start) or (literal(-start), f"{missing} {'+' if start >= 0 else '-'} {abs(start)}" if start else missing)
    behind = "0, 0, " * (node.inputs[0].rank - 1 - axis)
    value = f", value={literal(node['value'])}" if node["value"] else ""
    return TorchCall(f"F.pad({{0}}, ({behind}{before}, {after}){value})")
