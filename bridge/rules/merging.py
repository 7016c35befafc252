"""Merging tensors: keras.layers.{Add, Concatenate, ...}, keras.ops.add, a + b, a * 2 <-> torch.add, torch.cat.

An operator of arithmetic joins two tensors, or a tensor and a number (attribute `number`); more than two are joined
from the left to the right, as Keras' layers do. Average is a sum divided by a number, `1 - x` is `-x + 1`, which is the
same to the last bit, and CustomScaleLayer of Keras' InceptionResNetV2 is `a + b * scale`. What has an array for its
other operand is in `bridge.rules.rescaling`.

A tensor of lower rank gets new axes: torch and keras.ops put them first, where the batch is, Keras' layers after it.
"""

from dataclasses import replace

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import axes, identity
from bridge.rules import (
    KerasCall,
    KerasLayer,
    Size,
    TorchCall,
    TorchOperation,
    elementwise,
    for_torch,
    literal,
    rescaling,
    reshape,
)

# operator -> (layer of Keras, function of keras.ops, torch expression)
ARITHMETIC = {
    "add": ("Add", "add", "{0} + {1}"),
    "subtract": ("Subtract", "subtract", "{0} - {1}"),
    "multiply": ("Multiply", "multiply", "{0} * {1}"),
    "divide": (None, "true_divide", "{0} / {1}"),
    "maximum": ("Maximum", "maximum", "torch.maximum({0}, {1})"),
    "minimum": ("Minimum", "minimum", "torch.minimum({0}, {1})"),
}
LAYERS = {layer: operator for operator, (layer, _, _) in ARITHMETIC.items() if layer} | {"Average": "add"}
FUNCTIONS = {f"ops.{operator.title()}": operator for operator in ARITHMETIC} | {"ops.TrueDivide": "divide"}
ATEN = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "maximum": "maximum", "minimum": "minimum"}

OPERATORS = ("concatenate", *ARITHMETIC)
AUTOCAST = "as given"
COMMUTATIVE = ("add", "multiply", "maximum", "minimum")
OVERWRITABLE = True
OPERANDS = True
KERAS = ("Concatenate", "CustomScaleLayer", "ops.Concatenate", "ops.Negative", *LAYERS, *FUNCTIONS)
TORCH = ("cat", "rsub", "neg", "addcmul", "addcdiv", "lerp", *ATEN)
LAYOUT = axes


def arranged(node: Node) -> Node:
    """The node with its operands in the order in which Keras adds them along the right axes."""
    if node.operator != "add" or len(node.inputs) < 2:
        return node
    x, other = (v.shape for v in node.inputs)
    return (
        replace(node, inputs=node.inputs[::-1])
        if rescaling.biased(x, other) and not rescaling.biased(other, x)
        else node
    )


def ranked(inputs: list, made: str, at: int = 0, rank: int = 0) -> tuple[list[Node], list]:
    """Nodes that give the tensors of lower rank new axes at `at`, and the inputs as they then are."""
    inputs, nodes = list(inputs), []
    rank = max(rank, *(v.rank for v in inputs if isinstance(v, Value)))
    for i, x in enumerate(inputs):
        if isinstance(x, Value) and (new := rank - x.rank):
            shape = (*x.shape[:at], *[1] * new, *x.shape[at:])
            inputs[i] = replace(x, name=f"{made}:new{i}", shape=shape, symbols=())
            blocks = reshape.plain(
                [*[reshape.KEEP] * at, *[reshape.NEW] * new, *[reshape.KEEP] * (x.rank - at)], x.shape
            )
            nodes.append(Node("reshape", {"blocks": blocks}, inputs=[x], outputs=[inputs[i]]))
    return nodes, inputs


def join(operator: str, inputs: list, name: str, outputs: list[Value], at: int = 0) -> list[Node]:
    """Nodes that join tensors and numbers from the left to the right; those of lower rank get new axes at `at`."""
    nodes, inputs = ranked(inputs, outputs[0].name, at)
    left = inputs[0]
    for i, right in enumerate(inputs[1:], 2):
        last = i == len(inputs)
        node = Node(operator, {}, name=name if last else "", inputs=[left])
        if isinstance(right, Value):
            node.inputs.append(right)
        else:
            node.attributes["number"] = right
        left = outputs[0] if last else replace(outputs[0], name=f"{outputs[0].name}:{i}", shape=_broadcast(node.inputs))
        nodes.append(replace(node, outputs=[left]))
    return nodes


def _broadcast(inputs: list[Value]):
    return tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*(v.shape for v in inputs), strict=True))


def _operands(operator: str, left, right, source: KerasLayer | TorchOperation) -> list[Node]:
    """Nodes for two operands, one of which may be an array or a number."""
    left, right = (rescaling.operand(x, source) for x in (left, right))
    given, made = [x.dtype for x in (left, right) if isinstance(x, Value)], source.outputs[0].dtype
    if made == "bool":
        raise Unsupported(f"{operator} of booleans", "use logical_and, logical_or or logical_xor")
    if "float" in made and not any("float" in d for d in given) and isinstance(source, TorchOperation):
        return _of_whole_numbers(operator, left, right, source)
    if "float" in made and not any("float" in d for d in given):
        raise Unsupported(f"it makes {made} of {given[0]}", "cast it first: keras.ops.cast(x, 'float32'), x.float()")
    if not any(isinstance(x, rescaling.Array) for x in (left, right)):
        return _arithmetic(operator, left, right, source.path, source.outputs)
    if isinstance(left, Value):
        if operator == "add" and isinstance(source, KerasLayer):
            rescaling.refuse_biased(left.shape, right.value.shape)
        return [rescaling.node(operator, left, right, source)]
    if operator == "divide":
        raise Unsupported("it divides an array by a tensor", "divide a tensor by an array, or by a tensor")
    if operator == "subtract":
        negative = replace(right, name=f"{source.outputs[0].name}:0")
        minus = Node("multiply", {"number": -1}, inputs=[right], outputs=[negative])
        return [minus, rescaling.node("add", negative, left, source)]
    return [rescaling.node(operator, right, left, source)]


def _of_whole_numbers(operator: str, left, right, call: TorchOperation) -> list[Node]:
    """Nodes that make floats of whole numbers before, as torch does where the other operand is a float."""
    nodes, made = [], call.outputs[0]
    for i, x in enumerate(operands := [left, right]):
        if isinstance(x, Value):
            operands[i] = replace(x, name=f"{made.name}:float{i}", dtype=made.dtype)
            nodes.append(Node("cast", {"dtype": "float"}, inputs=[x], outputs=[operands[i]]))
        elif isinstance(x, rescaling.Array):
            raise Unsupported(f"it makes {made.dtype} of whole numbers and an array", "convert them before")
    return [*nodes, *_arithmetic(operator, *operands, call.path, call.outputs)]


def _arithmetic(operator: str, left, right, name: str, outputs: list[Value]) -> list[Node]:
    """Nodes for two operands, one of which may be a number."""
    left, right = (x.item() if isinstance(x, np.generic) else x for x in (left, right))
    for x in (left, right):
        if isinstance(x, Size):
            raise Unsupported("one of its operands is worked out from an open size of the input", "fix that size")
        if not isinstance(x, (Value, int, float)) or isinstance(x, bool):
            raise Unsupported(
                "one of its operands is a constant or a weight, not a tensor that flows",
                "make it a number, or a layer that holds the weight",
            )
    if isinstance(left, Value) and isinstance(right, Value):
        return join(operator, [left, right], name, outputs)
    tensor, number = (left, right) if isinstance(left, Value) else (right, left)
    if operator in ("maximum", "minimum"):
        if tensor.dtype != outputs[0].dtype and "float" not in outputs[0].dtype:
            raise Unsupported(f"it makes {outputs[0].dtype} of {tensor.dtype}", "give it a number of that dtype")
        return [replace(elementwise.bound(operator, number, tensor.dtype, name), inputs=[tensor])]
    if operator == "multiply" and number == 1 and tensor.dtype == outputs[0].dtype:
        return _same(tensor, name)
    if operator == "subtract" and isinstance(right, Value):
        negative = replace(right, name=f"{outputs[0].name}:0", shape=right.shape)
        return [
            Node("multiply", {"number": -1}, inputs=[right], outputs=[negative]),
            *join("add", [negative, left], name, outputs),
        ]
    if operator == "divide" and isinstance(right, Value):  # as torch.export has it
        inverse = replace(outputs[0], name=f"{outputs[0].name}:0")
        reciprocal = Node("elementwise", {"function": "reciprocal"}, inputs=[right], outputs=[inverse])
        return [reciprocal, *_arithmetic("multiply", inverse, left, name, outputs)]
    return join(
        *(("add", [tensor, -number]) if operator == "subtract" else (operator, [tensor, number])), name, outputs
    )


def _concatenate(inputs: list, axis: int, name: str) -> list[Node]:
    if not all(isinstance(v, Value) for v in inputs):
        raise Unsupported("it concatenates a constant or a weight", "concatenate tensors that flow")
    if len(inputs) == 1:
        return _same(inputs[0], name)
    return [Node("concatenate", {"axis": axis % inputs[0].rank}, name=name, inputs=list(inputs))]


def _same(x: Value, name: str) -> list[Node]:
    return [Node("permute", {"permutation": identity(x.rank)}, name=name, inputs=[x])]


def read_keras(layer: KerasLayer) -> list[Node]:
    nodes = _read_keras(layer)
    for node in nodes:
        if node.operator == "add" and len(node.inputs) == 2:
            rescaling.refuse_biased(*(v.shape for v in node.inputs))
    return nodes


def _read_keras(layer: KerasLayer) -> list[Node]:
    kind, a = layer.class_name, layer.arguments
    if kind in FUNCTIONS:
        return _operands(FUNCTIONS[kind], a["x1"], a["x2"], layer)
    if kind == "ops.Negative":
        return _arithmetic("multiply", layer.inputs[0], -1, layer.path, layer.outputs)
    if kind in ("Concatenate", "ops.Concatenate"):
        return _concatenate(a.get("xs", layer.inputs), layer.config["axis"], layer.path)
    if kind == "CustomScaleLayer":
        first, second = layer.inputs
        scaled = replace(second, name=f"{layer.outputs[0].name}:0")
        nodes = _arithmetic("multiply", second, layer.config["scale"], "", [scaled])
        nodes[-1].outputs = [scaled]
        return [*nodes, *join("add", [first, scaled], layer.path, layer.outputs)]
    if len(layer.inputs) == 1:
        return _same(layer.inputs[0], layer.path)
    if kind != "Average":
        return join(LAYERS[kind], layer.inputs, layer.path, layer.outputs, at=1)
    total = replace(layer.outputs[0], name=f"{layer.outputs[0].name}:0")
    mean = Node("divide", {"number": len(layer.inputs)}, name=layer.path, inputs=[total], outputs=layer.outputs)
    return [*join("add", layer.inputs, "", [total], at=1), mean]


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "concatenate":
        axis = node["axis"]
        return [KerasCall("Concatenate", {} if axis == node.inputs[0].rank - 1 else {"axis": axis})]
    layer, function, _ = ARITHMETIC[node.operator]
    number = {"x2": node["number"]} if "number" in node.attributes else {}
    one_batch = len({v.shape[:1] for v in node.inputs}) == 1  # Keras' layers want it, and make floats
    fits = one_batch and node.outputs[0].rank and "float" in node.outputs[0].dtype
    return [KerasCall(layer if layer and fits and not number else f"ops.{function}", number)]


def read_torch(call: TorchOperation) -> list[Node]:
    a = call.arguments
    if call.target == "cat":
        return _concatenate(a["tensors"], a["dim"], call.path)
    if call.target in ("addcmul", "addcdiv"):
        return _product_added(call)
    if call.target == "lerp":
        return _between(call)
    if call.target == "neg":
        return _arithmetic("multiply", a["self"], -1, call.path, call.outputs)
    if a.get("alpha", 1) != 1:
        return _scaled(call)
    if a.get("rounding_mode"):
        return _rounded(call)
    if call.target == "rsub":
        return _operands("subtract", a["other"], a["self"], call)
    return _operands(ATEN[call.target], a["self"], a["other"], call)


def _rounded(call: TorchOperation) -> list[Node]:
    """Nodes for a quotient that is cut; of one that is rounded down torch has its own way, which is `pairwise`'s."""
    mode, made = call["rounding_mode"], call.outputs[0]
    if mode == "floor":
        return for_torch("floor_divide").read_torch(replace(call, target="floor_divide"))
    if "float" not in made.dtype:
        raise Unsupported(f"rounding_mode={mode!r} of {made.dtype}", "give floor, or convert to a float dtype")
    quotient = replace(made, name=f"{made.name}:quotient")
    nodes = _operands("divide", call["self"], call["other"], replace(call, outputs=[quotient], path=""))
    nodes[-1].outputs = [quotient]
    return [*nodes, Node("elementwise", {"function": "trunc"}, name=call.path, inputs=[quotient], outputs=[made])]


def _product_added(call: TorchOperation) -> list[Node]:
    """Nodes for `self + value * tensor1 * tensor2`, or divided by tensor2."""
    a, made = call.arguments, call.outputs[0]
    tensors = [a["tensor1"], a["tensor2"]]
    if not all(isinstance(x, Value) for x in (a["self"], *tensors)):
        raise Unsupported("its weights do not flow", "let them flow")  # the reader does so
    rank = max(x.rank for x in tensors)
    aligned = [replace(x, shape=(*[1] * (rank - x.rank), *x.shape)) for x in tensors]
    part = replace(made, name=f"{made.name}:product", shape=_broadcast(aligned), symbols=())
    if call.target == "addcdiv" and a["value"] == 1:
        return [*join("divide", tensors, "", [part]), *join("add", [a["self"], part], call.path, [made])]
    nodes, factors = [], [*tensors, *([a["value"]] if a["value"] != 1 else [])]
    if call.target == "addcdiv":
        quotient = replace(part, name=f"{made.name}:quotient")
        nodes, factors = join("divide", tensors, "", [quotient]), [quotient, a["value"]]
    return [*nodes, *join("multiply", factors, "", [part]), *join("add", [a["self"], part], call.path, [made])]


def _between(call: TorchOperation) -> list[Node]:
    """Nodes for torch.lerp: `a + weight * (b - a)`, which torch rounds otherwise where the weight is above a half."""
    a, made = call.arguments, call.outputs[0]
    left, right, weight = a["self"], a["end"], a["weight"]
    if not all(isinstance(x, (Value, int, float)) for x in (left, right, weight)):
        raise Unsupported("its weights do not flow", "let them flow")  # the reader does so
    names = [f"{made.name}:{step}" for step in ("way", "part")]
    nodes = []
    values = []
    for name, tensors in zip(names, ([left, right], [left, right, weight]), strict=True):
        tensors = [x for x in tensors if isinstance(x, Value)]
        rank = max(x.rank for x in tensors)
        shape = _broadcast([replace(x, shape=(*[1] * (rank - x.rank), *x.shape)) for x in tensors])
        values.append(Value(name, shape, made.dtype))
    way, part = values
    nodes += join("subtract", [right, left], "", [way])
    nodes += join("multiply", [way, weight], "", [part])
    return [*nodes, *join("add", [left, part], call.path, [made])]


def _scaled(call: TorchOperation) -> list[Node]:
    """Nodes for a sum or difference whose second part, or for `rsub` the first, has a factor."""
    a, other = call.arguments, call["self" if call.target == "rsub" else "other"]
    if not isinstance(other, Value):
        raise Unsupported(f"alpha={a['alpha']} with a number or a weight", "multiply it before")
    part = replace(other, name=f"{call.outputs[0].name}:scaled", dtype=call.outputs[0].dtype)
    factor = Node("multiply", {"number": a["alpha"]}, inputs=[other], outputs=[part])
    options = a | {"alpha": 1, "self" if call.target == "rsub" else "other": part}
    return [factor, *read_torch(replace(call, arguments=options))]


def write_torch(node: Node) -> TorchCall:
    if node.operator == "concatenate":
        return TorchCall(f"torch.cat([{{all}}], dim={literal(node['axis'])})" if node["axis"] else "torch.cat([{all}])")
    number, expression = node.attributes.get("number"), ARITHMETIC[node.operator][2]
    if number is None:
        made = node.outputs[0]
        into = node.operator == "add" and all((v.shape, v.dtype) == (made.shape, made.dtype) for v in node.inputs)
        return TorchCall(expression, overwriting=TorchCall("{0}.add_({1})") if into else None)
    if node.operator == "multiply" and number == -1:
        return TorchCall("-{0}")
    if node.operator == "add" and number < 0:
        expression, number = "{0} - {1}", -number
    return TorchCall(expression.replace("{1}", literal(number)))
