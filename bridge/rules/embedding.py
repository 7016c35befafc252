"""Embedding: keras.layers.Embedding <-> torch.nn.Embedding.

Keras makes int32 of any index that is not int32 or int64; torch takes those two alone. torch's padding_idx is not
Keras' mask_zero: the row is one like the others, but gets no gradient. A small model behind the layer takes it away.
The mask of mask_zero is a tensor of its own (`bridge.masks`).
"""

from collections.abc import Iterator
from dataclasses import replace

from bridge.graph import Node, Unsupported, Value
from bridge.layout import fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, gather

OPERATORS = ("embedding", "padding_rows")
KERAS = ("Embedding", "model.padding_rows")
TORCH = ("embedding",)
LAYOUT = fixed
CASTS = ("Embedding",)
HOLDS = True
WEIGHTS = {"embeddings": ("weight", "i o -> i o")}
INDICES = ("int32", "int64")


def BELOW(node: Node) -> int:
    return node.attributes.get("size", 2**31 - 1)


def _padding_rows(rows, indices, padding: int):
    """In keras.ops: the rows of that index get no gradient."""
    from keras import ops

    return ops.where(ops.expand_dims(ops.equal(indices, padding), -1), ops.stop_gradient(rows), rows)


MODELS = {"padding_rows": _padding_rows}


def options(name: str, model) -> Iterator[dict]:
    """The options with which a model of `MODELS` may have been made."""
    for operation in model.operations:
        if type(operation).__name__ == "Equal" and len(model.inputs) == 2:
            yield {"padding": operation._inbound_nodes[0].arguments.args[1]}


def merge(node: Node, reader: Node) -> Node | None:
    """A layer of which the rows of one index get no gradient."""
    if node.operator != "embedding" or reader.operator != "padding_rows" or reader.inputs[1:] != node.inputs:
        return None
    return replace(node, outputs=reader.outputs, attributes=node.attributes | reader.attributes)


def arranged(node: Node) -> Node:
    """As Keras has it: the indices are read once more, behind the layer."""
    return replace(node, inputs=node.inputs * 2) if "padding" in node.attributes else node


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name == "model.padding_rows":
        return [Node("padding_rows", layer.config, name=layer.path)]
    c, x, nodes = layer.config, layer.inputs[0], []
    if c.get("lora_rank") or c.get("quantization_config"):
        raise Unsupported("it is quantised, or has LoRA weights", "carry the model before that")
    if x.dtype not in INDICES:
        x = Value(f"{layer.outputs[0].name}:index", x.shape, "int32")
        nodes.append(Node("cast", {"dtype": "int32"}, outputs=[x]))
    attributes = {"size": c["input_dim"], "units": c["output_dim"]}
    return [*nodes, Node("embedding", attributes, layer.weights, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "padding_rows":
        raise Unsupported("it takes away the gradient of no Embedding's own rows", "put it right behind the layer")
    padded = "padding" in node.attributes
    config = {"input_dim": node["size"], "output_dim": node["units"]}
    calls = [KerasCall("Embedding", config, weights=True, first=padded)]
    return [*calls, *([KerasCall("model.padding_rows", {"padding": node["padding"]}, "_padding")] if padded else [])]


def read_torch(call: TorchOperation) -> list[Node]:
    if call["scale_grad_by_freq"]:  # sparse=True gives the same gradient in another form
        raise Unsupported("scale_grad_by_freq=True, which changes the gradient", "leave it out")
    if isinstance(call["weight"], Value):
        if call["padding_idx"] >= 0:
            raise Unsupported(
                "padding_idx with a table that is computed, or whose indices are constants", "leave it out"
            )
        return gather.rows(call)
    weights = call.weights({"embeddings": ("weight", WEIGHTS["embeddings"][1])})
    size, units = call.parameters[weights["embeddings"]].value.shape
    node = Node("embedding", {"size": size, "units": units}, weights, call.path)
    if call["padding_idx"] >= 0:
        node.attributes["padding"] = call["padding_idx"]
    return [node]


def write_torch(node: Node) -> TorchCall:
    if node.operator == "padding_rows":
        raise Unsupported("it takes away the gradient of no Embedding's own rows", "put it right behind the layer")
    padding = {"padding_idx": node["padding"]} if "padding" in node.attributes else {}
    return TorchCall("{self}({0})", call_source("nn.Embedding", node["size"], node["units"], **padding), WEIGHTS)
