"""Tensors that have an open size of another one: expand to a batch, zeros, ones, full, arange <-> keras.ops.ones_like.

In a functional model of Keras an open size is no number that one could compute with. But a cell of a tensor along the
axis that has the size, made a one (`keras.ops.ones_like`), is a tensor of that size: a class token for each image is
the token times as many ones, and positions are running sums of ones.
"""

from dataclasses import replace

from bridge.graph import Node, Steps, Unsupported, Value
from bridge.layout import anything
from bridge.rules import KerasCall, KerasLayer, Size, TorchCall, TorchOperation
from bridge.rules.reshape import DROP, KEEP, NEW, plain

OPERATORS = ("ones",)
KERAS = ("ops.OnesLike",)
FILLED = {  # ATen -> the value; None where it is an argument
    **{f"{kind}{name}": value for name, value in (("zeros", 0), ("ones", 1), ("full", None)) for kind in ("", "new_")},
    **{"zeros_like": 0, "ones_like": 1, "full_like": None, "fill": None},
}
TORCH = (*FILLED, "arange")
CONSTANTS = ("ones",)
LAYOUT = anything


def merge(node: Node, reader: Node) -> Node | None:
    """Ones of one cell stay so, whatever becomes of their axes."""
    if reader.operator == "reshape" and set(reader.outputs[0].shape) <= {1}:
        return replace(node, outputs=reader.outputs)
    if reader.operator == "outer" and set(node.outputs[0].shape) == {1}:
        return replace(reader, inputs=[])
    return None


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
        row = _row(steps, symbol, dtype, call)
        shape = tuple(None if a == axis else 1 for a in range(len(symbols)))
        blocks = plain([KEEP if a == axis else NEW for a in range(len(symbols))], row.shape)
        row = steps("reshape", [row], shape, blocks=blocks) if len(symbols) > 1 else row
        both = tuple(None if isinstance(n, str) and a <= axis else 1 for a, n in enumerate(symbols))
        made = steps("multiply", [made, row], both) if made else row
    return made


def _row(steps: Steps, symbol: str, dtype: str, call: TorchOperation) -> Value:
    """Make as many ones as an open size says, with one axis."""
    if symbol not in call.sizes:
        raise Unsupported(
            f"it needs a tensor of the size {symbol}, which is worked out from open sizes of the input",
            "export with these sizes fixed",
        )
    if (symbol, dtype) in call.ones:
        return call.ones[symbol, dtype]
    x, axis = call.sizes[symbol]
    for other in range(x.rank):
        if other != axis and x.shape[other] != 1:
            shape = (*x.shape[:other], 1, *x.shape[other + 1 :])
            x = steps("slice", [x], shape, axis=other, start=0, stop=1, step=1)
    if x.rank > 1:
        blocks = plain([KEEP if a == axis else DROP for a in range(x.rank)], x.shape)
        x = steps("reshape", [x], (None,), blocks=blocks)
    ones = steps("ones", [x], (None,))
    if dtype != ones.dtype:
        ones = steps("cast", [ones], (None,), dtype, **{"dtype": "float" if "float" in dtype else dtype})
    made = replace(ones, symbols=(symbol,))
    steps.nodes[-1].outputs = [made]
    return made


def number(symbol: str, made: Value, call: TorchOperation) -> list[Node]:
    """Nodes that make an open size a number, of the dtype of `made`."""
    steps = Steps(made)
    ones = _row(steps, symbol, made.dtype, call)
    steps("reduction", [ones], (), function="sum", axes=(0,), keepdims=False)
    return steps.finish()


def read_keras(layer: KerasLayer) -> list[Node]:
    return [_ones(layer)]


def _ones(source: KerasLayer | TorchOperation) -> Node:
    x, made = source.inputs[0], source.outputs[0]
    if made.dtype != x.dtype:
        raise Unsupported(f"it makes {made.dtype} of {x.dtype}", "cast the tensor first")
    return Node("ones", {}, name=source.path)


def write_keras(node: Node) -> list[KerasCall]:
    return [KerasCall("ops.ones_like")]


def read_torch(call: TorchOperation) -> list[Node]:
    made = call.outputs[0]
    steps = Steps(made)
    if call.target == "arange":
        return _arange(steps, call)
    value = FILLED[call.target]
    value = call["value" if call.target == "fill" else "fill_value"] if value is None else value
    if not isinstance(value, (int, float)):
        raise Unsupported("it fills a tensor with a value that is computed", "multiply ones by it")
    ones = open_ones(steps, made.symbols, made.dtype, call)
    times = tuple(1 if n is None else n for n in made.shape)
    if set(times) != {1}:
        ones = steps("tile", [ones], made.shape, times=times)
    if value != 1:
        steps("multiply", [ones], made.shape, number=value)
    return steps.finish(call.path)


def _arange(steps: Steps, call: TorchOperation) -> list[Node]:
    made, start, step = call.outputs[0], call.arguments.get("start", 0), call.arguments.get("step", 1)
    if isinstance(start, Size) or isinstance(step, Size):
        raise Unsupported("its start or step is worked out from open sizes", "export with these sizes fixed")
    ones = _row(steps, made.symbols[0], made.dtype, call)
    x = steps("cumsum", [ones], ones.shape, axis=0)
    x = steps("add", [x], x.shape, number=-1)
    if step != 1:
        x = steps("multiply", [x], x.shape, number=step)
    if start:
        steps("add", [x], x.shape, number=start)
    return steps.finish(call.path)


def write_torch(node: Node) -> TorchCall:
    return TorchCall("torch.ones_like({0})")
