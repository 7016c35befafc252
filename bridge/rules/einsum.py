"""Sums of products: keras.layers.Dot, keras.ops.{einsum, matmul} <-> torch.einsum, matmul, bmm, mv, baddbmm.

A node has an equation, whose letters are given in the order in which they first appear. It follows any layout, as a
permuted input has permuted letters. Keras' Dot takes the batch along; its `normalize` is `keras.ops.normalize`.
torch's `addmm` and the like add a product times `alpha` to a tensor times `beta`, which is not looked at if that is 0.
"""

from dataclasses import replace
from itertools import permutations

from bridge.graph import Node, Unsupported, Value
from bridge.layout import Context, Placement, fixed, identity
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal, merging, resizing
from bridge.rules.reshape import KEEP, NEW

OPERATORS = ("einsum",)
KERAS = ("Dot", "ops.Matmul", "ops.Einsum")
# ATen's name -> its factors
PRODUCTS = {
    "matmul": ("self", "other"),
    "bmm": ("self", "mat2"),
    "mm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "dot": ("self", "tensor"),
    "addmm": ("mat1", "mat2"),
    "addmv": ("mat", "vec"),
    "baddbmm": ("batch1", "batch2"),
}
TORCH = ("einsum", *PRODUCTS)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TURNED = 5  # of so many axes, at most, every order is tried, the first one in its place
EPSILON = 1e-7  # of keras.ops.normalize
OPERANDS = True


def LAYOUT(node: Node, context: Context) -> Placement:
    if not all(isinstance(order, tuple) for order in context.orders):
        return fixed(node, context)
    inputs, output = node["equation"].split("->")
    inputs = ["".join(text[a] for a in order) for text, order in zip(inputs.split(","), context.orders, strict=True)]
    orders = [identity(len(output))]  # as it was read, if no one cares
    if 1 < len(output) <= TURNED:
        readers = context.consumers.get(node.outputs[0].name, [])
        orders += [n["permutation"] for n in readers if n.operator == "permute"]  # as its readers had it
        orders += [(0, *turned) for turned in permutations(orders[0][1:])]
    order = max(orders, key=lambda order: context.takers(node.outputs[0], order))
    return Placement(context.orders, [order], {"equation": canonical(inputs, "".join(output[a] for a in order))})


def canonical(inputs: list[str], output: str) -> str:
    """An equation with its letters in the order in which they appear."""
    names = dict(zip(dict.fromkeys("".join(inputs)), LETTERS, strict=False))
    return ",".join("".join(map(names.get, text)) for text in inputs) + "->" + "".join(map(names.get, output))


def node(equation: str, inputs: list, outputs: list[Value], name: str) -> Node:
    """The neutral node of an equation as either framework writes it."""
    if not all(isinstance(x, Value) for x in inputs):
        raise Unsupported(f"einsum {equation!r} of a constant or a weight", "let all of its tensors flow")
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(inputs):
        raise Unsupported(f"einsum {equation!r} of {len(inputs)} tensors", "name the axes of each")
    if not arrow:
        right = "".join(sorted(c for c in set(left) - set(",.") if left.count(c) == 1))
        right = f"...{right}" if "..." in left else right
    free = [c for c in LETTERS if c not in left + right]
    dots = "".join(free[: max(x.rank - len(term.replace("...", "")) for x, term in zip(inputs, terms, strict=True))])
    for i, (x, term) in enumerate(zip(inputs, terms, strict=True)):
        count = x.rank - len(term.replace("...", ""))
        terms[i] = term.replace("...", dots[len(dots) - count :])
    right = right.replace("...", dots)
    sizes: dict[str, set] = {}
    for x, term in zip(inputs, terms, strict=True):
        if len(set(term)) < len(term):
            raise Unsupported(f"einsum {equation!r} takes a diagonal", "take the diagonal before")
        for letter, size in zip(term, x.shape, strict=True):
            sizes.setdefault(letter, set()).add(size)
    if any(len(found - {None}) > 1 for found in sizes.values()):
        raise Unsupported(f"einsum {equation!r} repeats an axis of size 1", "repeat or drop it before")
    return Node("einsum", {"equation": canonical(terms, right)}, name=name, inputs=list(inputs), outputs=list(outputs))


def _matmul(x, y, outputs: list[Value], name: str) -> Node:
    if not isinstance(x, Value) or not isinstance(y, Value):
        raise Unsupported("it multiplies by a constant or a weight", "hold the matrix in a Dense or Linear")
    if x.rank == y.rank == 1:
        return node("i,i->", [x, y], outputs, name)
    left, right = ("" if x.rank == 1 else "...i"), ("" if y.rank == 1 else "k")
    batch = "" if y.rank == 1 else "..."
    return node(f"{left}j,{batch}j{right}->{left or batch}{right}", [x, y], outputs, name)


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "ops.Matmul":
        return [_matmul(layer.arguments["x1"], layer.arguments["x2"], layer.outputs, layer.path)]
    if layer.class_name == "ops.Einsum":
        operands = list(layer.arguments["operands"])
        found = None if all(isinstance(x, Value) for x in operands) else resizing.of_einsum(layer)
        return [found or node(layer.operation.subscripts, operands, layer.outputs, layer.path)]
    (x, y), made = layer.inputs, layer.outputs[0]
    given = layer.config["axes"]
    given = (given, given) if isinstance(given, int) else tuple(given)
    a, b = given[0] % x.rank, given[1] % y.rank
    nodes = []
    if layer.config["normalize"]:
        for value, axis in ((x, a), (y, b)):
            unit = Value(f"{made.name}:{len(nodes)}", value.shape, value.dtype)
            attributes = {"axes": (axis,), "order": 2, "epsilon": EPSILON}
            nodes.append(Node("unit_norm", attributes, inputs=[value], outputs=[unit]))
        x, y = (n.outputs[0] for n in nodes)
    batch, summed, *rest = LETTERS
    left = [batch, *rest[: x.rank - 2]]
    right = [batch, *rest[x.rank - 2 : x.rank + y.rank - 4]]
    left.insert(a, summed)
    right.insert(b, summed)
    out = "".join(c for c in [*left, *right[1:]] if c != summed)
    product = node(f"{''.join(left)},{''.join(right)}->{out}", [x, y], layer.outputs, layer.path)
    if len(out) == 1:  # Keras gives it a second axis
        product.outputs = [Value(f"{made.name}:product", made.shape[:1], made.dtype)]
        nodes += [product, Node("reshape", {"blocks": (KEEP, NEW)}, inputs=product.outputs, outputs=[made])]
        return nodes
    return [*nodes, product]


def _is_matmul(equation: str) -> bool:
    inputs, output = equation.split("->")
    x, y = (*inputs.split(","), "", "")[:2]
    batch = x[:-2]
    return (
        inputs.count(",") == 1
        and len(x) == len(y) > 1
        and y == f"{batch}{x[-1]}{y[-1]}"
        and output == f"{batch}{x[-2]}{y[-1]}"
    )


def write_keras(node: Node) -> list[KerasCall]:
    if _is_matmul(node["equation"]):
        return [KerasCall("ops.matmul")]
    return [KerasCall("ops.einsum", leading=(node["equation"],))]


def read_torch(call: TorchOperation) -> list[Node]:
    if call.target == "einsum":
        return [node(call["equation"], call["tensors"], call.outputs, call.path)]
    x, y = (call[k] for k in PRODUCTS[call.target])
    if "beta" not in call.arguments:
        return [_matmul(x, y, call.outputs, call.path)]
    made, beta, alpha = call.outputs[0], call["beta"], call["alpha"]
    product = replace(made, name=f"{made.name}:product")
    nodes = [_matmul(x, y, [product], "")]
    if alpha != 1:
        scaled = replace(made, name=f"{made.name}:scaled")
        nodes.append(Node("multiply", {"number": alpha}, inputs=[product], outputs=[scaled]))
    if beta == 0:
        return [*nodes[:-1], replace(nodes[-1], name=call.path, outputs=[made])]
    other = call["self"]
    if not isinstance(other, Value):
        raise Unsupported("it adds a weight", "let it flow")  # the reader does so
    if beta != 1:
        part = replace(other, name=f"{made.name}:other")
        nodes.append(Node("multiply", {"number": beta}, inputs=[other], outputs=[part]))
        other = part
    return [*nodes, *merging.join("add", [other, (scaled if alpha != 1 else product)], call.path, [made])]


def write_torch(node: Node) -> TorchCall:
    if _is_matmul(node["equation"]):
        return TorchCall("torch.matmul({0}, {1})")
    return TorchCall(f"torch.einsum({literal(node['equation'])}, {{all}})")
