"""Linear algebra: keras.ops.{cholesky, det, inv, solve, qr, pinv, svd, eigh, ...} <-> torch.linalg.

Matrices are the last two axes. The signs of a QR decomposition are the same in both (Householder's). Those of
eigenvectors and singular vectors are not determined: values are carried, vectors are refused where they are read.
A pseudoinverse is cut off at a ratio of the largest singular value, which by default is another in each: the node
has it as a number. Keras' logdet is that of a positive definite matrix, by Cholesky; torch's is of any, and refused, as
is the sign of a determinant, of which Keras says a wrong shape.
"""

import numpy as np

from bridge import keras_parts
from bridge.graph import Node, Unsupported, Value
from bridge.layout import fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, literal
from bridge.rules.elementwise import check_dtype

# function -> (class of keras.ops, names of ATen, expression)
FUNCTIONS = {
    "cholesky": ("Cholesky", ("linalg_cholesky", "cholesky"), "torch.linalg.cholesky({0}, upper={upper})"),
    "cholesky_inverse": ("CholeskyInverse", ("cholesky_inverse",), "torch.cholesky_inverse({0}, {upper})"),
    "det": ("Det", ("linalg_det", "det"), "torch.linalg.det({0})"),
    "eigh": ("Eigh", ("linalg_eigh",), "torch.linalg.eigh({0})"),
    "inv": ("Inv", ("linalg_inv", "inverse"), "torch.linalg.inv({0})"),
    "pinv": ("Pinv", ("linalg_pinv", "pinverse"), "torch.linalg.pinv({0}, rtol={rcond})"),
    "qr": ("Qr", ("linalg_qr",), "torch.linalg.qr({0}, {mode})"),
    "slogdet": ("Slogdet", ("linalg_slogdet", "slogdet"), "torch.linalg.slogdet({0})"),
    "solve": ("Solve", ("linalg_solve",), "torch.linalg.solve({0}, {1})"),
    "solve_triangular": (
        "SolveTriangular",
        ("linalg_solve_triangular",),
        "torch.linalg.solve_triangular({0}, {1}, upper={upper})",
    ),
    "svdvals": ("SVD", ("linalg_svdvals", "linalg_svd"), "torch.linalg.svdvals({0})"),
}
CLASSES = {f"ops.{name}": function for function, (name, _, _) in FUNCTIONS.items()}
ATEN = {target: function for function, (_, targets, _) in FUNCTIONS.items() for target in targets}


def _lstsq(ops, o, a, b):
    """By the pseudoinverse, as Keras does."""
    if len(a.shape) != 2 or None in a.shape:
        raise Unsupported(f"least squares with a matrix of shape {tuple(a.shape)}", "fix its sizes, the batch, too")
    rcond = max(a.shape) * float(np.finfo(a.dtype).eps) if o.rcond is None else o.rcond
    column = ops.expand_dims(b, -1) if len(b.shape) == 1 else b
    made = ops.matmul(ops.pinv(a, rcond), column)
    return ops.squeeze(made, -1) if len(b.shape) == 1 else made


PARTS = {
    "ops.Logdet": lambda ops, o, x: ops.sum(ops.log(ops.diagonal(ops.cholesky(x), 0, -2, -1)), axis=-1) * 2.0,
    "ops.Lstsq": _lstsq,
    "ops.SolveTriangular": lambda ops, o, a, b: ops.squeeze(
        ops.solve_triangular(a, ops.expand_dims(b, -1), o.lower), -1
    ),
}
OPERATORS = ("linear_algebra", "unread")
KERAS = (*CLASSES, "ops.Logdet", "ops.Lstsq")
TORCH = (*ATEN, "linalg_eigvalsh")
LAYOUT = fixed
VECTORS = (
    "its vectors are used, whose signs are each framework's own",
    "use the values alone, or compute otherwise what does not depend on the signs",
)
SIGN = (
    "the sign of a determinant is used, of which Keras says a wrong shape",
    "use the logarithm alone, or the sign of keras.ops.det, of torch.linalg.det",
)


def _node(function: str, inputs: list[Value], outputs: list[Value], name: str, **options) -> list[Node]:
    for x in inputs:
        if not isinstance(x, Value):
            raise Unsupported(f"{function} of a constant or a weight", "let it flow")
        check_dtype(x.dtype)
    return [Node("linear_algebra", {"function": function, **options}, {}, name, list(inputs), list(outputs))]


def _unread(x: Value, outputs: list[Value], reason: tuple[str, str]) -> list[Node]:
    """Nodes for outputs that nothing may read: what no output depends on is left out."""
    return [Node("unread", {"reason": reason, "number": i}, inputs=[x], outputs=[v]) for i, v in enumerate(outputs)]


def _eigenvalues(x: Value, made: Value, vectors: list[Value], name: str) -> list[Node]:
    """Those of a symmetric matrix; the node makes vectors, too, as Keras has no function without."""
    spare = Value(f"{made.name}:vectors", x.shape, x.dtype)
    return [*_node("eigh", [x], [made, spare], name), *_unread(spare, vectors, VECTORS)]


def _slogdet(x: Value, sign: Value, made: Value, name: str) -> list[Node]:
    spare = Value(f"{made.name}:sign", x.shape[:-2], x.dtype)
    return [*_node("slogdet", [x], [spare, made], name), *_unread(spare, [sign], SIGN)]


def _solve(a: Value, b: Value, made: Value, name: str) -> list[Node]:
    if isinstance(a, Value) and isinstance(b, Value) and b.rank != a.rank and b.shape != a.shape[:-1]:
        raise Unsupported(f"matrices of shape {a.shape} and right sides of {b.shape}", "give both the same axes before")
    return _node("solve", [a, b], [made], name)


def _ratio(x: Value, factor: int) -> float:
    if None in x.shape[-2:]:
        raise Unsupported("the pseudoinverse of a matrix of an open size", "fix that size, or give rcond")
    return factor * max(x.shape[-2:]) * float(np.finfo(x.dtype).eps)


def read_keras(layer: KerasLayer) -> list[Node]:
    o, x, outputs, name = layer.operation, layer.inputs[0], layer.outputs, layer.path
    function = CLASSES.get(layer.class_name)
    tensors = list(layer.arguments.values())
    if function == "solve_triangular" and tensors[0].rank == tensors[1].rank:
        return _node(function, tensors, outputs, name, lower=bool(o.lower))
    if layer.class_name in PARTS:
        return keras_parts.read(layer, PARTS)
    if function == "eigh":
        return _eigenvalues(x, outputs[0], outputs[1:], name)
    if function == "slogdet":
        return _slogdet(x, *outputs, name)
    if function == "svdvals":
        if not o.compute_uv:
            return _node(function, [x], outputs, name)
        u, values, v = outputs
        return [*_node(function, [x], [values], name), *_unread(x, [u, v], VECTORS)]
    if function == "solve":
        return _solve(*tensors, outputs[0], name)
    options = {"upper": bool(o.upper)} if function.startswith("cholesky") else {}
    options |= {"mode": o.mode} if function == "qr" else {}
    if function == "pinv":
        options["rcond"] = _ratio(x, 10) if o.rcond is None else float(o.rcond)
    return _node(function, [x], outputs, name, **options)


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "unread":
        raise Unsupported(*node["reason"])
    options = {k: v for k, v in node.attributes.items() if k != "function"}
    if node["function"] == "svdvals":
        return [KerasCall("ops.svd", {"compute_uv": False})]
    return [KerasCall(f"ops.{node['function']}", options)]


def read_torch(call: TorchOperation) -> list[Node]:
    a, outputs, name = call.arguments, call.outputs, call.path
    function = ATEN.get(call.target, "eigh")
    if function == "solve":
        if not a.get("left", True):
            raise Unsupported("left=False", "transpose the equation")
        return _solve(a["A"], a["B"], outputs[0], name)
    if function == "solve_triangular":
        matrix, right = a["self"], a["B"]
        if not a.get("left", True) or a.get("unitriangular"):
            raise Unsupported("left=False or unitriangular=True", "transpose the equation, or set the diagonal to 1")
        return _node(function, [matrix, right], outputs, name, lower=not a["upper"])
    x = call.inputs[0] if call.inputs else None
    if function == "eigh":
        return _eigenvalues(x, outputs[0], outputs[1:], name)
    if function == "slogdet":
        return _slogdet(x, *outputs, name)
    if call.target == "linalg_svd":
        u, values, v = outputs
        return [*_node(function, [x], [values], name), *_unread(x, [u, v], VECTORS)]
    options = {"upper": bool(a.get("upper"))} if function.startswith("cholesky") else {}
    options |= {"mode": a["mode"]} if function == "qr" else {}
    if options.get("mode") == "r":
        raise Unsupported("mode='r'", "give mode='reduced' and take the second")
    if function == "pinv":
        options["rcond"] = _cutoff(a, x)
    return _node(function, [x], outputs, name, **options)


def _cutoff(a: dict, x: Value) -> float:
    if a.get("atol") or a.get("hermitian"):
        raise Unsupported("atol or hermitian=True", "give rtol alone")
    given = a.get("rtol", a.get("rcond"))
    if given is not None and not isinstance(given, (int, float)):
        raise Unsupported("a cut-off that is a tensor", "give a number")
    return _ratio(x, 1) if given is None else float(given)


def write_torch(node: Node) -> TorchCall:
    if node.operator == "unread":
        raise Unsupported(*node["reason"])
    options = {k: literal(v) for k, v in node.attributes.items() if k != "function"}
    if "lower" in node.attributes:
        options["upper"] = literal(not node["lower"])
    expression = FUNCTIONS[node["function"]][2]
    for name, value in options.items():
        expression = expression.replace(f"{{{name}}}", value)
    return TorchCall(expression)
