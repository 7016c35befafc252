"""keras.layers.EinsumDense, by what its equation says.

"abc,cde->abde", as in MultiHeadAttention, is a Linear over the last axes, and a reshape where there are several. A
kernel that is multiplied element by element is `rescaling`'s, one that is given an axis is `parameter`'s. Any other
kernel flows into an einsum.
"""

from dataclasses import replace
from math import prod

from bridge.graph import Node, Value
from bridge.layout import fixed
from bridge.rules import (
    KerasCall,
    KerasLayer,
    TorchCall,
    TorchOperation,
    activation,
    einsum,
    parameter,
    rescaling,
)
from bridge.rules.reshape import KEEP, NEW, find_blocks, plain

OPERATORS = ()
KERAS = ("EinsumDense",)
TORCH = ()
LAYOUT = fixed


def read_keras(layer: KerasLayer) -> list[Node]:
    equation = layer.config["equation"].replace(" ", "")
    if parameter.is_outer(equation):
        return parameter.outer(layer)
    x, kernel, made = equation.replace("->", ",").split(",")
    if x == made and not layer.config["bias_axes"] and layer.config["activation"] in (None, "linear"):
        return [rescaling.of_equation(layer)]
    nodes = _dense(layer, x, kernel, made) or _flowing(layer, x, kernel, made)
    if layer.config["activation"] in (None, "linear"):
        return nodes
    before = replace(layer.outputs[0], name=f"{layer.outputs[0].name}:before")
    nodes = [*nodes[:-1], replace(nodes[-1], outputs=[before])]
    return [
        *nodes,
        *(replace(n, inputs=[]) for n in activation.from_config(layer.config["activation"], before.rank - 1)),
    ]


def _dense(layer: KerasLayer, x: str, kernel: str, made: str) -> list[Node]:
    """Nodes for a Linear over the last axes of a tensor; none where it is none."""
    value, out = layer.inputs[0], layer.outputs[0]
    summed, new = [c for c in x if c not in made], [c for c in made if c not in x]
    kept, sizes = x[: len(x) - len(summed)], tuple(layer.operation.kernel.shape)  # as it is before a call is read
    bias = layer.config["bias_axes"] or ""
    if (
        not summed
        or not new
        or [*x] != [*kept, *summed]
        or [*made] != [*kept, *new]
        or sorted(kernel) != sorted(summed + new)
    ):
        return []
    if bias and bias != "".join(new):
        return []
    sizes = dict(zip(kernel, sizes, strict=True))
    channels, units = (prod(sizes[c] for c in letters) for letters in (summed, new))
    layer.rearrange("kernel", f"{' '.join(kernel)} -> ({' '.join(summed)}) ({' '.join(new)})")
    if bias:
        layer.rearrange("bias", f"{' '.join(bias)} -> ({' '.join(bias)})")
    rest = value.rank - len(summed)
    nodes, flat = [], value
    if summed[1:]:
        flat = replace(value, name=f"{out.name}:flat", shape=(*value.shape[:rest], channels), symbols=())
        blocks = (*plain([KEEP] * rest, value.shape[:rest]), *find_blocks(tuple(sizes[c] for c in summed), (channels,)))
        reshape = Node("reshape", {"blocks": blocks}) if rest > 1 else Node("flatten")
        nodes.append(replace(reshape, inputs=[value], outputs=[flat]))
    linear = (
        out if not new[1:] else replace(out, name=f"{out.name}:linear", shape=(*flat.shape[:-1], units), symbols=())
    )
    attributes = {"channels": channels, "units": units, "axis": rest}
    nodes.append(Node("dense", attributes, layer.weights, layer.path, [flat], [linear]))
    if new[1:]:
        made = find_blocks((linear.shape[-1],), tuple(sizes[c] for c in new))
        blocks = (*plain([KEEP] * rest, value.shape[:rest]), *made)
        nodes.append(Node("reshape", {"blocks": blocks}, inputs=[linear], outputs=[out]))
    return nodes


def _flowing(layer: KerasLayer, x: str, kernel: str, made: str) -> list[Node]:
    """Nodes for an einsum with the kernel, and a sum with the bias."""
    out, weights = layer.outputs[0], {}
    for role, name in layer.weights.items():
        array = layer.parameters[name].value
        weights[role] = Value(f"{out.name}:{role}", array.shape, array.dtype.name)
    nodes = [
        Node("parameter", {}, {"kernel": layer.weights[role]}, f"{layer.path}.{role}", outputs=[value])
        for role, value in weights.items()
    ]
    product = replace(out, name=f"{out.name}:product") if "bias" in weights else out
    nodes.append(einsum.node(f"{x},{kernel}->{made}", [layer.inputs[0], weights["kernel"]], [product], layer.path))
    if "bias" in weights:
        new = out.rank - weights["bias"].rank
        shape = (*[1] * new, *weights["bias"].shape)
        bias = replace(weights["bias"], name=f"{out.name}:aligned", shape=shape)
        blocks = plain([*[NEW] * new, *[KEEP] * weights["bias"].rank], weights["bias"].shape)
        nodes.append(Node("reshape", {"blocks": blocks}, inputs=[weights["bias"]], outputs=[bias]))
        rescaling.refuse_biased(out.shape, shape)
        nodes.append(Node("add", {}, inputs=[product, bias], outputs=[out]))
    return nodes


def write_keras(node: Node) -> list[KerasCall]:
    raise NotImplementedError("`dense` and others write the nodes")


def read_torch(call: TorchOperation) -> list[Node]:
    raise NotImplementedError("`dense` reads the operators")


def write_torch(node: Node) -> TorchCall:
    raise NotImplementedError("`dense` and others write the nodes")
