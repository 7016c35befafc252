"""Padding: keras.layers.ZeroPadding{1,2,3}D, keras.ops.pad <-> torch.nn.functional.pad.

Keras counts from the first axis, torch from the last. torch's negative padding crops, as
keras.layers.Cropping{1,2,3}D does.
"""

from dataclasses import replace

from bridge.graph import Node, Unsupported
from bridge.layout import Context, Placement, channel_order, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal

OPERATORS = ("padding",)
KERAS = (*(f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping") for n in (1, 2, 3)), "ops.Pad")
TORCH = ("pad", "constant_pad_nd")


def LAYOUT(node: Node, context: Context) -> Placement:
    if not isinstance(context.orders[0], tuple):
        return fixed(node, context)
    order, pads = context.orders[0], node["pads"]
    still = [a for a in range(1, len(pads)) if pads[a] == (0, 0)]
    if context.target == "last" and any(a < 0 or b < 0 for a, b in pads) and still and order[-1] not in still:
        order = channel_order(len(pads), still[-1], "last")  # Keras crops every axis but the first and the last
    return Placement([order], [order], {"pads": tuple(pads[a] for a in order)})


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "ops.Pad":
        if layer.config["mode"] != "constant":
            raise Unsupported(f"padding mode {layer.config['mode']!r}", "pad with a constant")
        pads = layer.config["pad_width"]
        return [
            _node(
                pads * layer.rank if len(pads) == 1 else pads,
                float(layer.arguments.get("constant_values") or 0),
                layer.path,
            )
        ]
    crop = layer.class_name.startswith("Cropping")
    amounts = layer.config["cropping" if crop else "padding"]
    amounts = [amounts] if layer.class_name.endswith("1D") else amounts
    spatial = [(-a, -b) if crop else (a, b) for a, b in amounts]
    spatial.insert(layer.axis - 1, (0, 0))
    return [_node(((0, 0), *spatial), 0.0, layer.path)]


def _node(pads, value: float, name: str) -> Node:
    if not any(map(any, pads)):
        return Node("permute", {"permutation": identity(len(pads))}, name=name)
    return Node("padding", {"pads": tuple(map(tuple, pads)), "value": value}, name=name)


def write_keras(node: Node) -> list[KerasCall]:
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


def read_torch(call: TorchOperation) -> list[Node]:
    if call.arguments.get("mode", "constant") != "constant":
        raise Unsupported(f"padding mode {call['mode']!r}", "pad with a constant")
    if not all(isinstance(p, int) for p in call["pad"]):
        raise Unsupported("the padding is computed from the size of the input", "export with that size fixed")
    rank, flat = call.inputs[0].rank, list(call["pad"])
    flat += [0] * (2 * rank - len(flat))
    pads = [(flat[2 * i], flat[2 * i + 1]) for i in reversed(range(rank))]
    value, name = float(call["value"] or 0), call.path
    cut = [(min(a, 0), min(b, 0)) for a, b in pads]
    if not any(map(any, cut)) or cut == pads:
        return [_node(pads, value, name)]
    grown = [(max(a, 0), max(b, 0)) for a, b in pads]  # as Keras has it: one layer pads, another crops
    shape = tuple(n and n + a + b for n, (a, b) in zip(call.inputs[0].shape, grown, strict=True))
    return [replace(_node(grown, value, name), shape=shape), _node(cut, 0.0, f"{name}_crop" if name else "")]


def write_torch(node: Node) -> TorchCall:
    flat = [p for pair in reversed(node["pads"]) for p in pair]
    while flat[-2:] == [0, 0]:
        flat = flat[:-2]
    value = f", value={literal(node['value'])}" if node["value"] else ""
    return TorchCall(f"F.pad({{0}}, {literal(tuple(flat))}{value})")
