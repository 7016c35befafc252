"""Scaled dot-product attention: keras.ops.dot_product_attention <-> F.scaled_dot_product_attention.

Keras has (B, T, N, H), torch (B, N, T, H); a mask (True: attend) or a bias is (B, N, T, S) in both. Both align a causal
mask at the top left. Heads of key and value that serve several of the query's are repeated one by one in both.

A row of a mask that lets nothing through is the trap: torch gives 0 there, Keras the mean of the values. The node is
Keras': torch's helper sets such a row of the query to 0 and lets all of the row through, which is that mean and has its
gradients. What torch's own function makes is the node times the largest number in the row of the mask. A bias that is
-inf along a row gives 0 in torch and NaN in Keras.

Keras rounds a scale that is not an array to float32, even in float64, its own 1 / sqrt(H) too. `scale` is what is
meant, or None for 1 / sqrt(H) where H is open.

torch drops some of the attention itself. Keras has a Dropout for that, and the attention is then written out, as it is
for tensors of another rank than 3 or 4 and for values of another size than the query: of the latter Keras' function
says a wrong shape, that of the query.
"""

import math
from dataclasses import replace

import numpy as np

from bridge.graph import Node, Parameter, Steps, Unsupported, Value
from bridge.layout import Context, Placement, identity
from bridge.rules import (
    KerasCall,
    KerasLayer,
    TorchCall,
    TorchOperation,
    einsum,
    literal,
    merging,
    reshape,
    selection,
    softmax,
)
from bridge.rules.reduction import reduction

OPERATORS = ("attention",)
AUTOCAST = "lower"
OPERANDS = True
KERAS = ("ops.DotProductAttention",)
BUFFERS = ("mask", "bias")
MIXED = True  # a mask is of booleans
CLOSED = -0.7 * 3.38953e38  # what Keras has in the place of a score that is masked

HELPERS = {
    "MaskedAttention": '''
        class MaskedAttention(nn.Module):
            """Attention in which a row that may attend to nothing attends to all alike, as in Keras."""

            def __init__(self, scale=None, enable_gqa=False):
                super().__init__()
                self.scale, self.enable_gqa = scale, enable_gqa

            def forward(self, query, key, value, mask):
                some = mask.any(-1, keepdim=True)
                query, mask = query * some, mask | ~some
                options = {"scale": self.scale, "enable_gqa": self.enable_gqa}
                return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **options)
        ''',
}
TORCH = ("scaled_dot_product_attention", *HELPERS)


def LAYOUT(node: Node, context: Context) -> Placement:
    heads = node["heads"]
    time = 3 - heads
    order = (0, time, heads, 3) if context.target == "last" else (0, heads, time, 3)
    inputs = [order] * 3 + [identity(4)] * (len(node.inputs) - 3)
    return Placement(inputs, [order], {"heads": order.index(heads)})


def _double(operation, query, key, value, bias=None, mask=None, scale=None):
    """Keras' function with its scale in float64."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return operation(query, key, value, bias=bias, mask=mask, scale=np.asarray(scale, "float64"))


DOUBLE = {"ops.DotProductAttention": _double}


def _attention(tensors: list[Value], heads: int, scale, causal: bool) -> Node:
    """The neutral node of query, key and value of rank 4."""
    query, key, value = tensors
    if len({v.dtype for v in tensors}) > 1:
        raise Unsupported(f"query, key and value are {', '.join(v.dtype for v in tensors)}", "give them one dtype")
    if len({v.shape[0] for v in tensors}) > 1 or key.shape[:3] != value.shape[:3]:
        raise Unsupported(f"it broadcasts {', '.join(str(v.shape) for v in tensors)}", "repeat what is broadcast")
    n, shared = query.shape[heads], key.shape[heads]
    if n != shared and (None in (n, shared) or shared == 1 or n % shared):
        raise Unsupported(f"{shared} head(s) of the key for {n} of the query", "repeat them before")
    scale = scale if scale is None else float(scale)
    return Node("attention", {"scale": scale, "causal": bool(causal), "heads": heads}, inputs=tensors)


def _scale(scale, query: Value) -> float | None:
    """What is meant: the head size decides where nothing is given."""
    size = query.shape[-1]
    if scale is None:
        return None if size is None else size**-0.5
    if isinstance(scale, Value) or np.size(scale) != 1:
        raise Unsupported(f"scale={scale!r} is not a number", "multiply the query by it before")
    return np.asarray(scale).item()


def _kind(dtype: str) -> str:
    if dtype != "bool" and "float" not in dtype:
        raise Unsupported(f"its mask is {dtype}", "give booleans, True where to attend, or floats to add")
    return "mask" if dtype == "bool" else "bias"


def _check_rows(array: np.ndarray) -> None:
    """Refuse a constant by which the frameworks part."""
    array = array if array.dtype == bool else np.isneginf(array.astype("float64")) == 0
    if not array.any(-1).all():
        raise Unsupported("a row of its mask lets nothing through: 0 in torch, in Keras the mean", "let one through")


def _pattern(shape: tuple[int, ...], left: int = 0) -> str:
    """From an array without its first axes of size 1 to one with so many of them."""
    names = " ".join(f"n{i}" for i in range(len(shape)))
    return f"{names} -> {'1 ' * left}{names}"


def _reduced(array: np.ndarray) -> np.ndarray:
    """An array of two axes, and of those before them that do not begin with sizes of 1: torch wants two."""
    first = next((i for i, n in enumerate(array.shape[:-2]) if n != 1), max(array.ndim - 2, 0))
    return np.atleast_2d(array.reshape(array.shape[first:]))


def _of_rank(x: Value, rank: int, made: Value) -> tuple[list[Node], Value]:
    """A tensor with new axes before its first, and what makes it."""
    new = rank - x.rank
    if not new:
        return [], x
    aligned = replace(x, name=f"{made.name}:{x.name}", shape=(*[1] * new, *x.shape), symbols=())
    blocks = reshape.plain([*[reshape.NEW] * new, *[reshape.KEEP] * x.rank], x.shape)
    return [Node("reshape", {"blocks": blocks}, inputs=[x], outputs=[aligned])], aligned


def read_keras(layer: KerasLayer) -> list[Node]:
    a, made = layer.arguments, layer.outputs[0]
    tensors, bias, mask = [a[k] for k in ("query", "key", "value")], a.get("bias"), a.get("mask")
    if layer.operation.attn_logits_soft_cap is not None:
        raise Unsupported(f"attn_logits_soft_cap={layer.operation.attn_logits_soft_cap}", "leave it out")
    if not all(isinstance(x, Value) for x in tensors):
        raise Unsupported("its query, key or value is a constant", "let all of them flow")
    if bias is not None and mask is not None:
        raise Unsupported("it has a bias and a mask", "make the mask a bias, a large negative number where it is False")
    if tensors[0].shape[-1] != tensors[2].shape[-1]:
        return _written_out_of_keras(layer, tensors, bias, mask)
    node = _attention(tensors, 2, _scale(a.get("scale"), tensors[0]), layer.operation.is_causal)
    node.name, fourth = layer.path, mask if bias is None else bias
    if fourth is None:
        return [node]
    if isinstance(fourth, Value):
        return _with_flowing(node, fourth, made)
    array = np.asarray(fourth)
    array = array.astype(tensors[0].dtype) if mask is None else array
    if _kind(array.dtype.name) != ("bias" if mask is None else "mask"):
        raise Unsupported(f"its mask is {array.dtype}", "give booleans; numbers to add are the bias")
    array = _reduced(array)
    _hold(node, array)
    node.parameters = {_kind(array.dtype.name): layer.constant(_kind(array.dtype.name), array)}
    return [node]


def _written_out_of_keras(layer: KerasLayer, tensors: list[Value], bias, mask) -> list[Node]:
    """Nodes for values of another size than the query."""
    (query, key, value), made, causal = tensors, layer.outputs[0], layer.operation.is_causal
    if made.shape[-1] != value.shape[-1]:
        raise Unsupported(f"values of another size than the query: Keras says {made.shape} of the result", "pad them")
    node = _attention(tensors, 2, _scale(layer.arguments.get("scale"), query), causal)
    if query.shape[2] != key.shape[2] or node["scale"] is None:
        raise Unsupported("values of another size than the query, and shared heads or an open size", "pad them")
    shape = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
    steps = Steps(made)

    def einsum_of(equation: str, inputs: list[Value], shape) -> Value:
        return steps("einsum", inputs, shape, **einsum.node(equation, inputs, [], "").attributes)

    scores = einsum_of("btnh,bsnh->bnts", [query, key], shape)
    lower = made.dtype in ("float16", "bfloat16")  # the scores are float32 then
    scores = steps("cast", [scores], shape, "float32", dtype="float32") if lower else scores
    scores = steps("multiply", [scores], shape, number=node["scale"])
    if causal:
        _refuse_causal(mask is not None or bias is not None)
        if None in shape[2:]:
            raise Unsupported("it is causal along an open axis, with values of another size", "fix that size")
        mask = np.tri(*shape[2:], dtype=bool)
    if mask is not None or bias is not None:
        masked = replace(scores, name=f"{made.name}:masked")
        if bias is None:
            nodes = selection.where(replace(layer, outputs=[masked]), mask, scores, CLOSED)
            nodes[-1].name = ""
        elif isinstance(bias, Value) and bias.dtype == scores.dtype:
            nodes = merging.join("add", [scores, bias], "", [masked])
        else:
            raise Unsupported("values of another size than the query, and a bias that is constant or lower", "pad them")
        steps.nodes += nodes
        scores = masked
    shares = steps("softmax", [scores], shape, axis=3)
    shares = steps("cast", [shares], shape, made.dtype, dtype=made.dtype) if lower else shares
    einsum_of("bnts,bsnh->btnh", [shares, value], made.shape)
    return steps.finish(layer.path)


def _with_flowing(node: Node, fourth: Value, made: Value) -> list[Node]:
    """The node with a mask or bias that flows, and what gives that its rank."""
    _refuse_causal(node["causal"])
    kind = _kind(fourth.dtype)
    if kind == "bias" and fourth.dtype != node.inputs[0].dtype:
        raise Unsupported(f"its bias is {fourth.dtype}, its query {node.inputs[0].dtype}", "give them one dtype")
    nodes, aligned = _of_rank(fourth, 4, made)
    attributes = {**node.attributes, "fourth": kind}
    return [*nodes, replace(node, attributes=attributes, inputs=[*node.inputs, aligned], outputs=[made])]


def _hold(node: Node, array: np.ndarray) -> None:
    """Check a constant that a node is to hold, and note its shape."""
    _refuse_causal(node["causal"])
    _check_rows(array)
    node.attributes["shape"] = array.shape


def _refuse_causal(causal: bool) -> None:
    if causal:
        raise Unsupported("it is causal and has a mask", "let the mask be causal")


def write_keras(node: Node) -> list[KerasCall]:
    query, scale, options = node.inputs[0], node["scale"], {}
    if query.dtype == "float64" and scale is not None and float(np.float32(scale)) != scale:
        options["scale"] = np.asarray([scale])  # which keeps all of its digits, also in a file
    elif not _is_default(scale, query):
        options["scale"] = scale
    options |= {"is_causal": True} if node["causal"] else {}
    constants = {role: (role, _pattern(node["shape"])) for role in node.parameters}
    names = (node["fourth"],) if "fourth" in node.attributes else ()
    return [KerasCall("ops.dot_product_attention", options, constants=constants, names=names)]


def _is_default(scale: float | None, query: Value) -> bool:
    return scale is None or (bool(query.shape[-1]) and math.isclose(scale, query.shape[-1] ** -0.5, rel_tol=1e-12))


def read_torch(call: TorchOperation) -> list[Node]:
    a, made = call.arguments, call.outputs[0]
    if call.target in HELPERS:
        if len(call.inputs) != 4:
            raise Unsupported("it takes one tensor twice", "give it a copy")
        mask, *tensors = call.inputs  # in the order in which it reads them
        node = replace(_attention(tensors, 1, _scale(a["scale"], tensors[0]), False), name=call.path)
        return _with_flowing(node, mask, made)
    tensors, fourth, rate = [a[k] for k in ("query", "key", "value")], a["attn_mask"], float(a["dropout_p"] or 0)
    if not all(isinstance(x, Value) for x in tensors):
        raise Unsupported("its query, key or value is a weight", "let it flow")  # the reader does so
    query, _, value = tensors
    scale = _scale(a["scale"], query)
    array = None if fourth is None or isinstance(fourth, Value) else _constant(call)
    if rate or query.rank not in (3, 4) or value.shape[-1] != query.shape[-1]:
        return _written_out(call, tensors, fourth if array is None else array, scale, rate)
    before, after, result = [], [], made
    if query.rank == 3:
        blocks = [reshape.KEEP, reshape.NEW, reshape.KEEP, reshape.KEEP]
        for i, x in enumerate(tensors):
            tensors[i] = replace(x, name=f"{made.name}:{i}", shape=(x.shape[0], 1, *x.shape[1:]), symbols=())
            attributes = {"blocks": reshape.plain(blocks, x.shape)}
            before.append(Node("reshape", attributes, inputs=[x], outputs=[tensors[i]]))
        result = replace(made, name=f"{made.name}:heads", shape=(made.shape[0], 1, *made.shape[1:]), symbols=())
        blocks[1] = reshape.DROP
        attributes = {"blocks": reshape.plain(blocks, result.shape)}
        after = [Node("reshape", attributes, inputs=[result], outputs=[made])]
        if isinstance(fourth, Value) and fourth.rank == 3:
            shape = (fourth.shape[0], 1, *fourth.shape[1:])
            aligned = replace(fourth, name=f"{made.name}:mask", shape=shape, symbols=())
            attributes = {"blocks": reshape.plain([reshape.KEEP, reshape.NEW, *[reshape.KEEP] * 2], fourth.shape)}
            before.append(Node("reshape", attributes, inputs=[fourth], outputs=[aligned]))
            fourth = aligned
    node = replace(_attention(tensors, 1, scale, a["is_causal"]), name=call.path, outputs=[result])
    if not a["enable_gqa"] and tensors[0].shape[1] != tensors[1].shape[1]:
        raise Unsupported("it broadcasts the heads of the key", "repeat what is broadcast")
    if fourth is None:
        nodes = [node]
    elif isinstance(fourth, Value):
        nodes = _flowing(node, fourth, result)
    else:
        _hold(node, array)
        left = call.state["attn_mask"][1].ndim - array.ndim
        table = {_kind(array.dtype.name): ("attn_mask", _pattern(array.shape, left))}
        node.parameters = call.weights(table)
        node.name = node.name or call.state["attn_mask"][0]
        nodes = [node]
    return [*before, *nodes, *after]


def _constant(call: TorchOperation) -> np.ndarray:
    """The mask or bias that torch holds, without its first axes of size 1."""
    name, array, trained = call.state["attn_mask"]
    if trained:
        raise Unsupported("its mask is trained", "let it flow")  # the reader does so
    rank = call["query"].rank
    if rank == 3 and array.ndim == 3 and array.shape[0] != 1:
        raise Unsupported(f"{name} of shape {array.shape} runs along the batch", "give it the size 1 there")
    return _reduced(array)


def _flowing(node: Node, fourth: Value, made: Value) -> list[Node]:
    """torch's attention with a mask or bias that flows: where that lets nothing through, it is 0."""
    nodes = _with_flowing(node, fourth, made)
    return _zeroed(nodes, nodes[-1].inputs[3]) if nodes[-1]["fourth"] == "mask" else nodes


def _zeroed(nodes: list[Node], mask: Value) -> list[Node]:
    """What the last node makes, times 0 in the rows in which the mask is False throughout."""
    (made,) = nodes[-1].outputs
    attended = replace(made, name=f"{made.name}:attended")
    open_ = replace(mask, name=f"{made.name}:open", dtype=made.dtype)
    some = replace(open_, name=f"{made.name}:some", shape=(*mask.shape[:-1], 1), symbols=())
    return [
        *nodes[:-1],
        replace(nodes[-1], outputs=[attended]),
        Node("cast", {"dtype": "float"}, inputs=[mask], outputs=[open_]),
        replace(reduction("max", -1, mask.rank, True, ""), inputs=[open_], outputs=[some]),
        Node("multiply", {}, inputs=[attended, some], outputs=[made]),
    ]


def _written_out(call: TorchOperation, tensors: list[Value], fourth, scale, rate: float) -> list[Node]:
    """Nodes for the scores, their softmax, its Dropout, and the sums over the values."""
    (query, key, value), made = tensors, call.outputs[0]
    if scale is None or query.rank < 2:
        raise Unsupported(f"a query of shape {query.shape} that is written out", "fix its last size")
    shape = (*query.shape[:-1], key.shape[-2])

    def scores(suffix: str) -> Value:
        return replace(made, name=f"{made.name}:{suffix}", shape=shape, symbols=())

    nodes = [einsum.node("...td,...sd->...ts", [query, key], [scores("product")], "")]

    def then(node: Node, suffix: str) -> None:
        nodes.append(replace(node, inputs=nodes[-1].outputs, outputs=[scores(suffix)]))

    then(Node("multiply", {"number": scale}), "scaled")
    if call["is_causal"]:
        if None in shape[-2:]:
            raise Unsupported("it is causal along an open axis and written out", "fix that size")
        fourth = np.tri(*shape[-2:], dtype=bool)
    if isinstance(fourth, np.ndarray):
        _check_rows(fourth)
        array = np.where(fourth, 0, CLOSED).astype(made.dtype) if fourth.dtype == bool else fourth
        if array.ndim > 2:
            raise Unsupported(f"a constant mask of shape {array.shape} that is written out", "give it two axes")
        name = f"{call.state['attn_mask'][0]}[bias]" if call.state else f"{made.name}_bias"
        held = call.parameters.setdefault(name, Parameter(array.squeeze(), trainable=False)).value
        along = tuple(a for a, n in enumerate(array.shape, query.rank - array.ndim) if n != 1)
        then(
            Node("arithmetic", {"function": "add", "along": along, "shape": held.shape}, {"constant": name}, name),
            "masked",
        )
    elif fourth is not None and _kind(fourth.dtype) == "bias":
        nodes += merging.join("add", [nodes[-1].outputs[0], fourth], "", [scores("masked")])
    elif fourth is not None:
        if made.dtype == "float16":
            raise Unsupported("a mask that flows, written out in float16", "compute in float32")
        steps = [("cast", {"dtype": "float"}), ("add", {"number": -1}), ("multiply", {"number": -CLOSED})]
        closed = fourth
        for i, (operator, attributes) in enumerate(steps):
            step = replace(closed, name=f"{made.name}:mask{i}", dtype=made.dtype)
            nodes_of = Node(operator, attributes, inputs=[closed], outputs=[step])
            nodes.insert(i, nodes_of)
            closed = step
        nodes += merging.join("add", [nodes[-1].outputs[0], closed], "", [scores("masked")])
    then(softmax.softmax("softmax", -1, query.rank), "softmax")
    if rate:
        then(Node("dropout", {"rate": rate}), "dropped")
    nodes.append(einsum.node("...ts,...sd->...td", [nodes[-1].outputs[0], value], [made], call.path))
    if isinstance(fourth, Value) and fourth.dtype == "bool":
        before, mask = _of_rank(fourth, query.rank, replace(made, name=f"{made.name}:full"))
        return [*before, *_zeroed(nodes, mask)]
    return nodes


def write_torch(node: Node) -> TorchCall:
    query, key = node.inputs[:2]
    options = {} if _is_default(node["scale"], query) else {"scale": node["scale"]}
    options |= {"is_causal": True} if node["causal"] else {}
    options |= {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
    if node.attributes.get("fourth") == "mask":
        given, read = [], set()
        for i, x in enumerate(node.inputs[:3]):  # by which a reader tells them apart
            given.append(f"{{{i}}}.contiguous()" if x.name in read else f"{{{i}}}")
            read.add(x.name)
        arguments = ", ".join(f"{k}={literal(v)}" for k, v in options.items())
        helper = "MaskedAttention"
        return TorchCall(f"{{self}}({', '.join(given)}, {{3}})", f"{helper}({arguments})", helpers=(helper,))
    source, constructor, weights = "", "", {}
    if "fourth" in node.attributes:
        source = ", attn_mask={3}"
    for role in node.parameters:
        source, weights = ", attn_mask={self}", {role: ("", _pattern(node["shape"]))}
        dtype = ", dtype=torch.bool" if role == "mask" else ""
        constructor = f"nn.Buffer(torch.empty({literal(node['shape'])}{dtype}))"
    source += "".join(f", {k}={literal(v)}" for k, v in options.items())
    return TorchCall(f"F.scaled_dot_product_attention({{0}}, {{1}}, {{2}}{source})", constructor, weights)
