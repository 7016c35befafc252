"""Fitting to a size that is open: y[:, :, : x.shape[2]], F.pad(y, (0, x.shape[3] - y.shape[3])), crops of the middle.

A decoder has one row more or less than the image where that is odd, and crops what it has made, or pads it, to the size
of the skip connection. A node does so along one axis. Its size is that of another tensor, or a part of one
(`bridge.rules.sizes`), the tensor's own included: x[:, :, : x.shape[2] // 2]. Where it begins is a number or hangs on
what is left over: "end" is all of it, "floor" and "ceil" are half of it. Negative padding crops.

Keras' layers pad and crop by numbers. What it has here is a small model of keras.ops (`bridge.composed`) that takes the
cells by their numbers, and with padding puts a value where there are none. A crop that is larger than the tensor raises
an error in both frameworks (on a GPU TensorFlow makes zeros), where torch's x[:, :, :h] stops at the end.

A cut that begins or ends anywhere else, x[:, :, h // 4 : h - h // 4], goes by expressions of the sizes n0, n1, ... that
it has; those of its cells that are between have these numbers. Padding by such expressions, as to a multiple of 8,
F.pad(x, (0, -w % 8)), counts through more cells than it can have, and takes as many as it has. torch refuses to mirror
more cells than there are, and to go round twice, where Keras takes some.
"""

import re
from collections.abc import Iterator

from bridge import expressions
from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, fixed
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, literal, sizes

OPERATORS = ("fit_like", "cut_like", "pad_like")
KERAS = ("model.fit_like", "model.cut_like", "model.pad_like")
TORCH = ()  # `slice` and `padding` read the operators and hand over what goes by open sizes
STARTS = ("floor", "ceil", "end")
BORDERS = {"edge": "replicate", "reflect": "reflect", "circular": "circular"}  # what padding has -> in torch


def LAYOUT(node: Node, context: Context) -> Placement:
    if not all(isinstance(order, tuple) for order in context.orders):
        return fixed(node, context)
    if node.operator != "fit_like":
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
    return _filled(x, places, given, axis, value)


def _filled(x, places, size, axis: int, fill: float | str):
    """The cells of an axis at these places; beyond its ends is a number or, by the word for it, other cells."""
    from keras import ops

    last = size - 1
    if fill == "circular":
        held = ops.mod(places, size)
    elif fill == "reflect":
        held = last - ops.abs(last - ops.abs(places))
    else:
        held = ops.minimum(ops.relu(places), last)
    x = ops.take(x, ops.cast(held, "int32"), axis=axis)
    if isinstance(fill, str):
        return x
    inside = ops.reshape(ops.equal(held, places), (-1, *[1] * (len(x.shape) - axis - 1)))
    return ops.where(inside, x, ops.full_like(x, fill))


def _evaluated(texts, tensors, names: tuple) -> list:
    """Expressions of the sizes of tensors, as numbers."""
    from keras import ops

    given = {f"n{i}": sizes.size(tensors[number], a, "float32") for i, (number, a) in enumerate(names)}
    functions = {"Max": ops.maximum, "Min": ops.minimum}
    return [expressions.evaluate(text, given, functions) if isinstance(text, str) else text for text in texts]


def cut(x, *others, axis: int, start: str, stop: str | int, names: tuple):
    """In keras.ops: the cells of an axis from `start` to before `stop` or, if that is a number, as many."""
    from keras import ops

    begin, end = _evaluated((start, stop), (x, *others), names)
    if isinstance(stop, int):
        places = begin + ops.arange(stop, dtype="float32")
    else:
        cells = ops.cumsum(sizes.row(x, axis, "float32")) - 1.0
        (places,) = ops.nonzero(ops.logical_and(ops.greater_equal(cells, begin), ops.less(cells, end)))
    return ops.take(x, ops.cast(places, "int32"), axis=axis)


def pad(x, *others, axis: int, before: str, after: str, size: int | None, names: tuple, fill: float | str):
    """In keras.ops: an axis with so many cells before and after it, whose size may be known then."""
    from keras import ops

    first, last = _evaluated((before, after), (x, *others), names)
    given = x.shape[axis] or sizes.size(x, axis, "float32")
    rows, (p, c) = _cover(axis, before, after, names)
    cells = [sizes.row((x, *others)[i], a, "float32", (p, c if n == 0 else 0, 1)) for n, (i, a) in enumerate(rows)]
    cells = ops.cumsum(ops.concatenate(cells) if len(cells) > 1 else cells[0]) - 1.0
    (places,) = ops.nonzero(ops.less(cells, given + first + last))
    places = ops.cast(places, "float32") - first
    return _filled(x, ops.reshape(places, (size,)) if size else places, given, axis, fill)


def _cover(axis: int, before: str, after: str, names: tuple) -> tuple[list, tuple[int, int] | None]:
    """The axes that together, so many times and with so many more, have no fewer cells than one that is padded."""
    rows = list(dict.fromkeys((*names, (0, axis))))
    text = f"n{rows.index((0, axis))} + ({before}) + ({after})"
    return rows, expressions.cover(text, " + ".join(f"n{i}" for i in range(len(rows))))


MODELS = {"fit_like": fit, "cut_like": cut, "pad_like": pad}
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


def _pads(model, found: dict) -> Iterator[dict]:
    """The options with which a model may be a `pad`."""
    names = []
    try:
        (places,) = (o.output for o in model.operations if _is_cast(o, found["Nonzero"]))
        subtractions = (n for o in model.operations if type(o).__name__ == "Subtract" for n in o._inbound_nodes)
        (before,) = (n.arguments.args[1] for n in subtractions if n.arguments.args[0] is places)
        length = found["Less"]._inbound_nodes[0].arguments.args[1]._keras_history.operation
        bounds = before, length._inbound_nodes[0].arguments.args[1]
        before, after = (expressions.renamed(_text(x, model.inputs, names), {}) for x in bounds)
    except (AttributeError, KeyError, IndexError, SyntaxError, TypeError, ValueError):  # it is another model
        return
    value = found["FullLike"]._inbound_nodes[0].arguments.args[1] if "FullLike" in found else None
    axis, bounds = found["Take"].axis, {"before": before, "after": after, "names": tuple(names)}
    for fill in BORDERS if value is None else (value,):
        yield {"axis": axis, **bounds, "size": model.outputs[0].shape[axis], "fill": fill}


def _is_cast(operation, source) -> bool:
    """Tell whether an operation casts what another has made."""
    return type(operation).__name__ == "Cast" and operation.input._keras_history.operation is source


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    found = {type(operation).__name__: operation for operation in model.operations}
    if name == "pad_like":
        yield from _pads(model, found) if {"Take", "Nonzero", "Less"} <= found.keys() else ()
        return
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
    size, texts = str(x.symbols[axis]), []
    for bound in (start, stop):
        text = size if bound is None else bound.symbol if isinstance(bound, Size) else str(bound)
        negative = expressions.negative(text)
        if negative is None:
            raise Unsupported(f"{text} is below 0 at some sizes", "take no less than 0: torch.sym_max(n, 0)")
        texts.append(f"{size} + ({text})" if negative else text)
    if isinstance(made.symbols[axis], int):
        texts[1:] = []
    inputs, names, texts = _named(x, texts, call, "its bounds are")
    attributes = {"axis": axis, "start": texts[0], "stop": (*texts, made.symbols[axis])[1], "names": names}
    return [Node("cut_like", attributes, inputs=inputs, outputs=[made])]


def pads(x: Value, axis: int, before, after, fill: float | str, made: Value, call: TorchOperation) -> list[Node]:
    """The node for padding along an axis, by numbers or `rules.Size`, with a number or by the word for other cells."""
    texts = [bound.symbol if isinstance(bound, Size) else str(bound) for bound in (before, after)]
    if isinstance(fill, str) and (
        less := next((text for text in texts if expressions.negative(text) is not False), "")
    ):
        raise Unsupported(f"{less} is below 0 at some sizes", "pad by no less than 0: torch.sym_max(n, 0)")
    inputs, names, texts = _named(x, texts, call, "it pads by")
    if _cover(axis, *texts, names)[1] is None:
        raise Unsupported(f"it pads by {' and '.join(texts)} of open sizes", "pad by no more than some times the sizes")
    size = made.shape[axis]
    attributes = {"axis": axis, "before": texts[0], "after": texts[1], "size": size, "names": names, "fill": fill}
    return [Node("pad_like", attributes, inputs=inputs, outputs=[made])]


def _named(x: Value, texts: list[str], call: TorchOperation, said: str) -> tuple[list[Value], tuple, list[str]]:
    """What has the sizes of expressions, x first, which of its axes have them, and the expressions of n0, n1, ..."""
    found, inputs, texts = {}, [x], [expressions.renamed(text, {}) for text in texts]
    for symbol in sorted(frozenset().union(*map(expressions.symbols, texts))):
        if symbol not in call.sizes:
            raise Unsupported(f"no tensor has the size {symbol}", "export with these sizes fixed")
        found[symbol] = call.sizes[symbol]
    order = sorted(found, key=re.findall(r"\w+", " ".join(texts)).index)
    inputs += [v for v in dict.fromkeys(found[s][0] for s in order) if v != x]
    names = tuple((inputs.index(found[s][0]), found[s][1]) for s in order)
    texts = [expressions.renamed(text, {s: f"n{i}" for i, s in enumerate(order)}) for text in texts]
    if not all(expressions.operations(text) <= SIMPLE for text in texts):
        raise Unsupported(f"{said} {' and '.join(texts)} of open sizes", "use +, -, *, //, % and torch.sym_max")
    return inputs, names, texts


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name != "model.fit_like":
        return [Node(layer.class_name.removeprefix("model."), dict(layer.config), name=layer.path)]
    like, part = layer.config["size"]
    attributes = {k: layer.config[k] for k in ("axis", "start", "value")}
    return [Node("fit_like", attributes | {"like": like, "part": part}, name=layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator != "fit_like":
        return [KerasCall(f"model.{node.operator}", dict(node.attributes))]
    options = {k: node[k] for k in ("axis", "start", "value")}
    return [KerasCall("model.fit_like", options | {"size": (node["like"], node["part"])})]


def read_torch(call: TorchOperation) -> list[Node]:
    raise NotImplementedError("`slice` and `padding` read the operators")


def write_torch(node: Node) -> TorchCall:
    if node.operator != "fit_like":
        names = {f"n{i}": f"{{{number}}}.shape[{int(axis)}]" for i, (number, axis) in enumerate(node["names"])}
        names |= {"Max": "torch.sym_max", "Min": "torch.sym_min"}
        if node.operator == "pad_like":
            return _write_pad(node, *(expressions.renamed(node[k], names) for k in ("before", "after")))
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


def _write_pad(node: Node, before: str, after: str) -> TorchCall:
    rank, fill, behind = node.inputs[0].rank, node["fill"], node.inputs[0].rank - 1 - node["axis"]
    # the number of axes that torch pads with other cells at this rank: all or all but one of those behind a batch
    least, most = {2: (1, 1), 3: (1, 2), 4: (2, 3), 5: (3, 3)}.get(rank, (0, 0))
    if isinstance(fill, str) and behind >= most:
        raise Unsupported(f"torch pads no axis {node['axis']} of {rank} by {fill!r}", "permute the tensor before")
    ahead = ", 0, 0" * (least - 1 - behind) if isinstance(fill, str) else ""
    more = f", mode={literal(BORDERS[fill])}" if isinstance(fill, str) else f", value={literal(fill)}" if fill else ""
    return TorchCall(f"F.pad({{0}}, ({'0, 0, ' * behind}{before}, {after}{ahead}){more})")
