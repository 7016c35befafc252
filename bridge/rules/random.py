"""Random numbers, in inference too: keras.random.{normal, uniform} in a layer's `call` -> torch.randn_like, rand, ...

As no stream of random numbers matches another, `bridge.verify` gives both sides the same (`bridge.fixed_noise`). In a
functional model Keras has no layer that draws: the way back is refused.
"""

from math import isclose

from bridge.expressions import WHOLE
from bridge.graph import Node, Steps, Unsupported
from bridge.layout import Context, Placement, boundary_order, fixed
from bridge.rules import KerasCall, TorchCall, TorchOperation, literal, sizes

OPERATORS = ("random",)
KERAS = ()  # `sized` reads them
KINDS = {"randn": "normal", "rand": "uniform", "randn_like": "normal", "rand_like": "uniform"}
DRAWN = {"bridge::normal": "normal", "bridge::uniform": "uniform"}  # as Keras has them, of any two numbers
TORCH = (*KINDS, *DRAWN)
RANDOM = ("kind",)
REMEDY = "give the network what it is to add as an input, or leave it out in eval mode"


def LAYOUT(node: Node, context: Context) -> Placement:
    """One number is as good as another: they are drawn in the order that the framework has."""
    if not all(isinstance(order, tuple) for order in context.orders):
        return fixed(node, context)
    made = node.outputs[0]
    out = context.orders[0] if _like(node) else boundary_order(made, context.source, context.target)

    def renumbered(size):
        if isinstance(size, int):
            return size
        return size[0], sizes.renumbered(size[1], context.orders[size[0]]), size[2]

    return Placement(list(context.orders), [out], {"shape": tuple(renumbered(node["shape"][a]) for a in out)})


def READS(node: Node) -> int:
    return int(_like(node))


def _like(node: Node) -> bool:
    """Tell whether it makes as many numbers as its first input has."""
    x = node.inputs[0]
    return len(node.inputs) == 1 and node["shape"] == _shape(x.shape)


def _shape(shape) -> tuple:
    return tuple((0, axis, WHOLE) if n is None else n for axis, n in enumerate(shape))


def read_torch(call: TorchOperation) -> list[Node]:
    made, kind = call.outputs[0], (KINDS | DRAWN)[call.target]
    inputs = [call["self"]] if "self" in call.arguments else []

    def find(size: int | str):
        if isinstance(size, int):
            return size
        if inputs and size in inputs[0].symbols:
            return 0, inputs[0].symbols.index(size), WHOLE
        x, axis, part = sizes.source(size, call)
        if x not in inputs:
            inputs.append(x)
        return inputs.index(x), axis, part

    shape = tuple(map(find, made.symbols))
    if not inputs:
        raise Unsupported(f"it draws random numbers of the shape {made.shape}, whatever it is given", REMEDY)
    steps = Steps(made)
    x = steps("random", inputs, made.shape, made.dtype, kind=kind, shape=shape)
    low, high = call.arguments.get("numbers", (0.0, 1.0))
    times = high if kind == "normal" else high - low
    if not isclose(times, 1.0):
        x = steps("multiply", [x], made.shape, number=float(times))
    if low:
        steps("add", [x], made.shape, number=float(low))
    return steps.finish(call.path)


def write_keras(node: Node) -> list[KerasCall]:
    function = {"normal": "randn", "uniform": "rand"}[node["kind"]]
    raise Unsupported(f"{function} is random, in inference too", REMEDY)


def write_torch(node: Node) -> TorchCall:
    function, made = {"normal": "torch.randn", "uniform": "torch.rand"}[node["kind"]], node.outputs[0]
    if _like(node) and made.dtype == node.inputs[0].dtype:
        return TorchCall(f"{function}_like({{0}})")
    shape = ", ".join(literal(n) if isinstance(n, int) else sizes.text(f"{{{n[0]}}}", *n[1:]) for n in node["shape"])
    dtype = "{0}.dtype" if made.dtype == node.inputs[0].dtype else f"torch.{made.dtype}"
    return TorchCall(f"{function}({shape}, dtype={dtype}, device={{0}}.device)")
