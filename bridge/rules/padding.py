"""Padding: keras.layers.ZeroPadding{1,2,3}D, keras.ops.pad <-> torch.nn.functional.pad, nn.ReflectionPad2d, ...

Keras counts from the first axis, torch from the last. torch's negative padding crops, as
keras.layers.Cropping{1,2,3}D does.

What is not constant has a mode: "symmetric" mirrors the image with its edge, "reflect" without it, "edge" repeats the
edge, "circular" goes on at the other end. Each framework lacks some. TensorFlow has no "edge": that is "symmetric" by
one cell at a time, or a selection of cells (keras.ops.take), which "circular" is, too; where the size is open it is
slices that are joined. torch has no "symmetric" and pads the last axes alone: all else is a helper's.
"""

from dataclasses import replace

from bridge.graph import Node, Unsupported, Value, chain
from bridge.layout import Context, Placement, channel_order, fixed, identity
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation, call_source, fit_like, literal
from bridge.rules.slice import index

OPERATORS = ("padding",)
KERAS = (*(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping") for n in (1, 2, 3)), "ops.Pad")
MODES = {"reflect": "reflect", "replicate": "edge", "circular": "circular"}  # of torch -> of the graph

HELPERS = {
    "BorderPad": '''
        class BorderPad(nn.Module):
            """Padding with the tensor's own cells; `pads` has a number before and one after for each axis."""

            def __init__(self, pads, mode):
                super().__init__()
                self.pads, self.mode = pads, mode

            def forward(self, x):
                for axis, (before, after) in enumerate(self.pads):
                    if before == after == 0:
                        continue
                    n = x.shape[axis]
                    if self.mode == "circular":
                        first, last = x.narrow(axis, n - before, before), x.narrow(axis, 0, after)
                    elif self.mode == "edge":
                        zero = torch.zeros(max(before, after), dtype=torch.int64, device=x.device)
                        first, last = x.index_select(axis, zero[:before]), x.index_select(axis, zero[:after] + n - 1)
                    else:
                        edge = 1 if self.mode == "reflect" else 0  # which is not repeated
                        first = x.narrow(axis, edge, before).flip(axis)
                        last = x.narrow(axis, n - after - edge, after).flip(axis)
                    x = torch.cat([first, x, last], axis)
                return x
        '''
}
TORCH = (
    *("pad", "constant_pad_nd", *HELPERS),
    *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
)


def LAYOUT(node: Node, context: Context) -> Placement:
    if not isinstance(context.orders[0], tuple):
        return fixed(node, context)
    order, pads = context.orders[0], node["pads"]
    still = [a for a in range(1, len(pads)) if pads[a] == (0, 0)]
    if context.target == "last" and any(a < 0 or b < 0 for a, b in pads) and still and order[-1] not in still:
        order = channel_order(len(pads), still[-1], "last")  # Keras crops every axis but the first and the last
    return Placement([order], [order], {"pads": tuple(pads[a] for a in order)})


def merge(node: Node, reader: Node) -> Node | None:
    """One padding for the several that Keras needs: an edge repeated again, or going round along another axis."""
    mode, pads, more = node.attributes.get("mode"), node["pads"], reader.attributes.get("pads")
    if reader.operator != "padding" or mode != reader.attributes.get("mode") or mode not in ("edge", "circular"):
        return None
    if mode == "circular" and any(any(p) and any(q) for p, q in zip(pads, more, strict=True)):
        return None
    total = [(a + c, b + d) for (a, b), (c, d) in zip(pads, more, strict=True)]
    total = _plain(mode, total, node.inputs[0].shape)
    return replace(node, attributes={**node.attributes, "pads": total}, outputs=reader.outputs)


def read_keras(layer: KerasLayer) -> list[Node]:
    shape = layer.inputs[0].shape
    if layer.class_name == "ops.Pad":
        pads, mode = layer.config["pad_width"], layer.config["mode"]
        pads = pads * layer.rank if len(pads) == 1 else pads
        if mode in ("reflect", "symmetric"):
            return border(mode, pads, shape, layer.path)
        if mode != "constant":
            raise Unsupported(f"padding mode {mode!r}, which TensorFlow lacks", "use reflect, symmetric or constant")
        return [constant(pads, float(layer.arguments.get("constant_values") or 0), layer.path)]
    crop = layer.class_name.startswith("Cropping")
    amounts = layer.config["cropping" if crop else "padding"]
    amounts = [amounts] if layer.class_name.endswith("1D") else amounts
    spatial = [(-a, -b) if crop else (a, b) for a, b in amounts]
    spatial.insert(layer.axis - 1, (0, 0))
    return [constant(((0, 0), *spatial), 0.0, layer.path)]


def constant(pads, value: float, name: str) -> Node:
    """Return the node that pads with a number, or crops where `pads` is negative."""
    return _node(pads, {"value": value}, name)


def _node(pads, attributes: dict, name: str) -> Node:
    if not any(map(any, pads)):
        return Node("permute", {"permutation": identity(len(pads))}, name=name)
    return Node("padding", {"pads": tuple(map(tuple, pads)), **attributes}, name=name)


def border(mode: str, pads, shape, name: str) -> list[Node]:
    """Return the normal form of padding with the tensor's own cells, `pads` being of all axes and not negative."""
    if mode == "symmetric" and max(map(max, pads)) <= 1:
        mode = "edge"
    pads = _plain(mode, pads, shape)
    ones = [p if n == 1 and mode == "circular" else (0, 0) for p, n in zip(pads, shape, strict=True)]
    if not any(map(any, ones)):
        return [_node(pads, {"mode": mode}, name)]
    # an axis of one cell is repeated
    first = replace(_node(_plain("edge", ones, shape), {"mode": "edge"}, ""), shape=_grown(shape, ones))
    rest = [(0, 0) if any(one) else p for one, p in zip(ones, pads, strict=True)]
    return [first, _node(rest, {"mode": mode}, name)]


def _plain(mode: str, pads, shape) -> tuple:
    """One way to say it where before and after an axis are the same: one cell, repeated, or all cells, going round."""
    same = {"edge": lambda p, n: n == 1, "circular": lambda p, n: p == (n, 0)}.get(mode, lambda p, n: False)
    return tuple((0, sum(p)) if same(tuple(p), n) else tuple(p) for p, n in zip(pads, shape, strict=True))


def cells(mode: str, before: int, after: int, size: int) -> tuple[int, ...]:
    """Which cells of an axis the padded axis consists of."""
    positions = range(-before, size + after)
    return tuple(min(max(i, 0), size - 1) if mode == "edge" else i % size for i in positions)


def selected(x: Value, axis: int, places: tuple[int, ...], name: str) -> list[Node] | None:
    """The nodes for cells of an axis by their numbers, if that is padding."""
    size = x.shape[axis]
    if not size or len(places) < size:
        return None
    more = len(places) - size
    for mode, before in (("edge", places.count(0) - 1), ("circular", -places[0] % size)):
        before += size if mode == "circular" and more - before > size else 0
        pads = [(0, 0)] * x.rank
        pads[axis] = before, more - before
        if 0 <= before <= more and places == cells(mode, *pads[axis], size):
            return border(mode, pads, x.shape, name)
    return None


def write_keras(node: Node) -> list[KerasCall]:
    if "mode" in node.attributes:
        return _write_border(node)
    rank, pads = node.inputs[0].rank, node["pads"]
    spatial = pads[1:-1]
    calls = []
    grow = tuple((max(a, 0), max(b, 0)) for a, b in pads)
    crop = tuple((max(-a, 0), max(-b, 0)) for a, b in spatial)
    inside = not any(pads[0]) and not any(pads[-1]) and rank in (3, 4, 5)
    if any(map(any, grow)):
        if inside and node["value"] == 0:
            calls.append(KerasCall(f"ZeroPadding{rank - 2}D", {"padding": grow[1:-1] if rank > 3 else grow[1]}))
        else:
            calls.append(
                KerasCall("ops.pad", {"pad_width": grow, "mode": "constant", "constant_values": node["value"]})
            )
    if any(a < 0 or b < 0 for a, b in pads):
        if not inside:
            raise Unsupported(f"negative padding {pads} of the batch or the channels", "slice the tensor")
        calls.append(
            KerasCall(f"Cropping{rank - 2}D", {"cropping": crop if rank > 3 else crop[0]}, "_crop" if calls else "")
        )
    return calls


def _write_border(node: Node) -> list[KerasCall]:
    mode, pads, shape = node["mode"], node["pads"], node.inputs[0].shape
    if mode in ("reflect", "symmetric"):
        return [KerasCall("ops.pad", {"pad_width": pads, "mode": mode})]
    widest, axes = max(map(max, pads)), [a for a, p in enumerate(pads) if any(p)]
    if mode == "edge" and (widest <= len(axes) or any(shape[a] is None for a in axes)):
        steps = [tuple((int(a > i), int(b > i)) for a, b in pads) for i in range(widest)]
        return [KerasCall("ops.pad", {"pad_width": step, "mode": "symmetric"}) for step in steps]
    return [KerasCall("ops.take", {"indices": cells(mode, *pads[a], shape[a]), "axis": a}) for a in axes]


def read_torch(call: TorchOperation) -> list[Node]:
    x, name = call.inputs[0], call.path
    if call.target in HELPERS:
        return border(call["mode"], call["pads"], x.shape, name)
    flat = list(call.arguments.get("pad") or call["padding"])
    open_axes = {x.rank - 1 - i // 2 for i, p in enumerate(flat) if not isinstance(p, int)}
    if open_axes:
        return _read_open(call, flat, open_axes)
    flat += [0] * (2 * x.rank - len(flat))
    pads = [(flat[2 * i], flat[2 * i + 1]) for i in reversed(range(x.rank))]
    mode = _mode(call)
    if mode != "constant":
        return _read_border(call, MODES[mode], pads)
    value, (grow, cut) = float(call["value"] or 0), _signs(pads)
    if not any(map(any, cut)) or cut == pads:
        return [constant(pads, value, name)]
    # as Keras has it: one layer pads, another crops
    return [
        replace(constant(grow, value, name), shape=_grown(x.shape, grow)),
        constant(cut, 0.0, f"{name}_crop" if name else ""),
    ]


def _mode(call: TorchOperation) -> str:
    return {"refl": "reflect", "repl": "replicate"}.get(call.target[:4], call.arguments.get("mode", "constant"))


def _read_open(call: TorchOperation, flat: list, axes: set[int]) -> list[Node]:
    """Nodes for padding by open sizes: one for each such axis, and one for the others."""
    x, made, mode = call.inputs[0], call.outputs[0], _mode(call)
    fill = MODES[mode] if mode != "constant" else float(call.arguments.get("value") or 0)
    nodes, fixed = [], [0 if x.rank - 1 - i // 2 in axes else p for i, p in enumerate(flat)]
    symbols, call = list(x.symbols), replace(call, sizes=dict(call.sizes))

    def grown(axis) -> Value:
        nonlocal x
        symbols[axis] = made.symbols[axis]
        shape = tuple(n if isinstance(n, int) else None for n in symbols)
        return replace(made, name=f"{made.name}:{len(nodes)}", shape=shape, symbols=tuple(symbols))

    for axis in sorted(axes):
        before, after = flat[2 * (x.rank - 1 - axis) :][:2]
        nodes += _grow(x, axis, before, after, fill, grown(axis), call)
        x = nodes[-1].outputs[0]
        call.sizes.setdefault(str(symbols[axis]), (x, axis))
    if any(fixed):
        rest = TorchOperation(call.path, call.target, call.arguments | {"pad": fixed}, [x], [made], {}, {})
        more = chain(read_torch(rest), [x], [made])
        return [*nodes, *more]
    nodes[-1].outputs, nodes[-1].name = [made], call.path
    return nodes


def _grow(x: Value, axis: int, before, after, fill, made: Value, call: TorchOperation) -> list[Node]:
    """The node for an axis: to the size of another tensor, if that is one, else by what the numbers are made of."""
    if not isinstance(fill, str):
        start = -before if isinstance(before, int) else Size(f"-({before.symbol})")
        try:
            return fit_like.nodes(x, axis, str(made.symbols[axis]), start, fill, made, call)
        except Unsupported:  # no tensor has that size
            pass
    return fit_like.pads(x, axis, before, after, fill, made, call)


def _signs(pads) -> tuple[list, list]:
    """What is added and what is cut off."""
    return [(max(a, 0), max(b, 0)) for a, b in pads], [(min(a, 0), min(b, 0)) for a, b in pads]


def _grown(shape, pads) -> tuple:
    return tuple(n and n + a + b for n, (a, b) in zip(shape, pads, strict=True))


def _read_border(call: TorchOperation, mode: str, pads) -> list[Node]:
    x, name, (grow, cut) = call.inputs[0], call.path, _signs(pads)
    if mode == "circular" and any(n is None and any(p) for n, p in zip(x.shape, grow, strict=True)):
        if any(map(any, cut)):
            raise Unsupported(f"circular padding of an open size by {pads}", "slice the tensor before")
        return _go_round(x, grow, call.outputs[0], name)
    if not any(map(any, cut)):
        return border(mode, grow, x.shape, name)
    crop = constant(cut, 0.0, f"{name}_crop" if name else "")
    if mode == "circular":  # of what has been cut
        shape = _grown(x.shape, cut)
        return [replace(crop, shape=shape), *border(mode, grow, shape, name)]
    *before, last = border(mode, grow, x.shape, name)
    return [*before, replace(last, shape=_grown(x.shape, grow)), crop]


def _go_round(x: Value, pads, made: Value, name: str) -> list[Node]:
    """Circular padding at any size: both ends, joined."""
    nodes: list[Node] = []
    axes = [a for a, p in enumerate(pads) if any(p)]
    for axis in axes:
        before, after = pads[axis]
        parts, shape = [x], tuple(n and n + before + after if a == axis else n for a, n in enumerate(x.shape))
        for size, end in ((before, slice(-before, None)), (after, slice(0, after))):
            if size:
                part = replace(made, name=f"{made.name}:{axis}{len(parts)}", shape=_at(x.shape, axis, size))
                nodes += index(x, (*(slice(None),) * axis, end), part, "")
                parts.insert(0 if end.stop is None else len(parts), part)
        last = axis == axes[-1]
        x = made if last else replace(made, name=f"{made.name}:{axis}", shape=shape)
        nodes.append(Node("concatenate", {"axis": axis}, name=name if last else "", inputs=parts, outputs=[x]))
    return nodes


def _at(shape, axis: int, size: int) -> tuple:
    return (*shape[:axis], size, *shape[axis + 1 :])


def write_torch(node: Node) -> TorchCall:
    mode, pads, rank = node.attributes.get("mode", "constant"), node["pads"], node.inputs[0].rank
    flat = [p for pair in reversed(pads) for p in pair]
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if mode == "constant":
        value = f", value={literal(node['value'])}" if node["value"] else ""
        return TorchCall(f"F.pad({{0}}, {literal(tuple(flat))}{value})")
    # the number of axes that torch pads at this rank, all or all but one of them behind a batch
    least, most = {2: (1, 1), 3: (1, 2), 4: (2, 3), 5: (3, 3)}.get(rank, (0, 0))
    if mode == "symmetric" or len(flat) > 2 * most:
        return TorchCall("{self}({0})", call_source("BorderPad", pads, mode), helpers=("BorderPad",))
    flat += [0] * (2 * least - len(flat))
    mode = next(k for k, v in MODES.items() if v == mode)
    return TorchCall(f"F.pad({{0}}, {literal(tuple(flat))}, mode={literal(mode)})")
