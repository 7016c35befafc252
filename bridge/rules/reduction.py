"""Reductions: keras.ops.{sum, mean, max, ...}, Global{Max,Average}Pooling <-> torch.{sum, mean, amax, ...}, Adaptive.

Global pooling is a mean or a maximum over all axes but the batch and the channels. It becomes the layer where the
channels are where the framework has them, and the function elsewhere. A reduction follows any layout: what is left has
its axes in the order that they had before.

Keras' variance divides by n. torch's divides by n - 1 unless `correction=0` says otherwise, and is carried as Keras'
times n / (n - 1) where n is known. torch.max along one axis also returns where it was, which is an argmax.

Counts of booleans, sums of whole numbers and positions are exact in both; Keras has them in int32, torch in int64. Of
several largest numbers both take the first, but for -0.0, which argmax takes for less than 0.0 in Keras alone.
"""

from dataclasses import replace
from math import prod, sqrt

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, for_torch, literal, single
from bridge.rules.elementwise import check_dtype

# Keras' name -> (torch's name, other names that torch.export uses)
FUNCTIONS = {
    "all": ("all",),
    "any": ("any",),
    "argmax": ("argmax",),
    "argmin": ("argmin",),
    "logsumexp": ("logsumexp", "special_logsumexp"),
    "max": ("amax", "max"),
    "mean": ("mean",),
    "min": ("amin", "min"),
    "prod": ("prod",),
    "std": ("std",),
    "sum": ("sum",),
    "var": ("var",),
}
OPERATIONS = {f"ops.{name.capitalize()}": name for name in FUNCTIONS} | {"ops.Amax": "max", "ops.Amin": "min"}
ATEN = {target: name for name, targets in FUNCTIONS.items() for target in targets}
POOLING = {"max": ("Max", "Max"), "mean": ("Average", "Avg")}  # function -> global pooling in Keras, in torch
LAYERS = {f"Global{keras}Pooling{n}D": name for name, (keras, _) in POOLING.items() for n in (1, 2, 3)}

OPERATORS = ("reduction",)
KERAS = (*OPERATIONS, *LAYERS, "ops.CountNonzero")
TORCH = (*ATEN, "count_nonzero")
POSITIONS = ("argmax", "argmin")  # along one axis


def LAYOUT(node: Node, context: Context) -> Placement:
    order, gone = context.orders[0], node["axes"]
    if not isinstance(order, tuple):
        return fixed(node, context)
    left = [a for a in range(len(order)) if a not in gone]
    made = order if node["keepdims"] else tuple(left.index(a) for a in order if a in left)
    return Placement([order], [made], {"axes": tuple(sorted(order.index(a) for a in gone))})


def merge(node: Node, reader: Node) -> Node | None:
    """Take a Flatten into the global pooling before it: what it drops are axes of one cell."""
    one_left = 0 not in node["axes"] and len(node["axes"]) == node.inputs[0].rank - 2
    if not (node["keepdims"] and one_left and reader.operator == "flatten"):
        return None
    return replace(node, attributes={**node.attributes, "keepdims": False}, outputs=reader.outputs)


def _check(function: str, dtype: str) -> None:
    """Refuse what the frameworks convert each in its own way."""
    whole = {"sum": "bool int", "max": "int", "min": "int", "argmax": "int", "argmin": "int"}.get(function, "")
    if function not in ("all", "any") and dtype.strip("u0123456789") not in whole.split():
        check_dtype(dtype)


def _count(x: Value, axes, keepdims: bool, name: str, made: Value) -> list[Node]:
    """Nodes for the number of cells that are not 0."""
    nodes = []
    if x.dtype != "bool":
        found = Value(f"{made.name}:nonzero", x.shape, "bool")
        nodes = [Node("comparison", {"function": "not_equal", "number": 0}, inputs=[x], outputs=[found])]
        if "float" in x.dtype:
            nodes[0].attributes["number"] = 0.0
    return [*nodes, reduction("sum", axes, x.rank, keepdims, name)]


def reduction(function: str, axes, rank: int, keepdims: bool, name: str) -> Node:
    """Return the neutral node; no axes are all axes."""
    axes = range(rank) if axes is None or axes == [] else axes if isinstance(axes, (list, tuple)) else [axes]
    axes = tuple(sorted(a % rank for a in axes))
    if function in POSITIONS and len(axes) > 1:
        raise Unsupported(f"{function} over all axes, the batch included", "name one axis, of a flattened tensor")
    return Node("reduction", {"function": function, "axes": axes, "keepdims": keepdims}, name=name)


def read_keras(layer: KerasLayer) -> list[Node]:
    c = layer.config
    if layer.class_name == "ops.CountNonzero":
        return _count(layer.inputs[0], layer.operation.axis, False, layer.path, layer.outputs[0])
    _check((OPERATIONS | LAYERS)[layer.class_name], layer.inputs[0].dtype)
    if layer.class_name in LAYERS:
        axes = [a for a in range(1, layer.rank) if a != layer.axis]
        return [reduction(LAYERS[layer.class_name], axes, layer.rank, c["keepdims"], layer.path)]
    if c.get("initial") is not None:
        raise Unsupported(f"initial={c['initial']}", "leave it out, and take the maximum with that number afterwards")
    if c.get("dtype") is not None:
        raise Unsupported(f"dtype={c['dtype']}", "convert the tensor before")
    operation = layer.operation  # a configuration does not say all
    return [reduction(OPERATIONS[layer.class_name], operation.axis, layer.rank, operation.keepdims, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    rank = node.inputs[0].rank
    if node["function"] in POOLING and rank in (3, 4, 5) and node["axes"] == tuple(range(1, rank - 1)):
        options = {"keepdims": True} if node["keepdims"] else {}
        return [KerasCall(f"Global{POOLING[node['function']][0]}Pooling{rank - 2}D", options)]
    every = len(node["axes"]) == rank
    options = {"axis": None if every else node["axes"], "keepdims": node["keepdims"]}
    if node["function"] in POSITIONS:
        options["axis"] = node["axes"][0]
    return [KerasCall(f"ops.{node['function']}", options)]


def read_torch(call: TorchOperation) -> list[Node]:
    a, x, function = call.arguments, call.inputs[0], ATEN.get(call.target, "sum")
    if call.target == "count_nonzero":
        return _count(x, a["dim"], False, call.path, call.outputs[0])
    if "other" in a:
        pair = f"{call.target}imum"
        return for_torch(pair).read_torch(replace(call, target=pair))
    _check(function, x.dtype)
    if a.get("dtype") is not None:
        raise Unsupported(f"dtype={a['dtype']}", "convert the tensor before")
    node = reduction(function, a.get("dim"), x.rank, a.get("keepdim", False), call.path)
    if function in ("var", "std"):
        return [node, *_corrected(function, a, [x.shape[i] for i in node["axes"]])]
    nodes = [replace(node, outputs=call.outputs[:1], inputs=[x])]
    if len(call.outputs) > 1:
        where = reduction(f"arg{function}", a["dim"], x.rank, a["keepdim"], "")
        nodes.append(replace(where, outputs=call.outputs[1:], inputs=[x]))
    return nodes


def _corrected(function: str, arguments: dict, sizes: list) -> list[Node]:
    """What torch's correction makes of a variance or deviation that divides by n."""
    correction = int(arguments["unbiased"]) if "unbiased" in arguments else arguments.get("correction")
    correction = 1 if correction is None else correction
    if not correction:
        return []
    if None in sizes or prod(sizes) <= correction:
        raise Unsupported(
            f"correction={correction} over axes of sizes {tuple(sizes)}",
            "give correction=0, or export with sizes that are fixed and large enough",
        )
    ratio = prod(sizes) / (prod(sizes) - correction)
    return [Node("multiply", {"number": sqrt(ratio) if function == "std" else ratio})]


def write_torch(node: Node) -> TorchCall:
    function, axes, rank = FUNCTIONS[node["function"]][0], node["axes"], node.inputs[0].rank
    if node["function"] in POOLING and rank in (3, 4, 5) and axes == tuple(range(2, rank)) and node.name:
        constructor = call_source(f"nn.Adaptive{POOLING[node['function']][1]}Pool{rank - 2}d", 1)
        return TorchCall("{self}({0})" if node["keepdims"] else "torch.flatten({self}({0}), 1)", constructor)
    options = {"dim": single(axes)} | ({"keepdim": True} if node["keepdims"] else {})
    if function == "prod" and len(axes) > 1:
        if len(axes) < rank or node["keepdims"]:
            raise Unsupported(f"a product over the axes {axes}", "take it over one axis after the other")
        options = {}
    if function in ("var", "std"):
        options["correction"] = 0
    return TorchCall(f"torch.{function}({', '.join(['{0}', *(f'{k}={literal(v)}' for k, v in options.items())])})")
