"""Embedding: keras.layers.Embedding <-> torch.nn.Embedding.

Keras makes int32 of any index that is not int32 or int64; torch takes those two alone. torch's padding_idx is not
Keras' mask_zero: the row is one like the others, but gets no gradient. Keras has nothing like it, and trains the row.
The mask of mask_zero itself is not carried; a layer that it reaches is refused.
"""

import warnings

from bridge.graph import Node, Unsupported, Value
from bridge.layout import fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source, gather

OPERATORS = ("embedding",)
KERAS = ("Embedding",)
TORCH = ("embedding",)
LAYOUT = fixed
CASTS = KERAS
WEIGHTS = {"embeddings": ("weight", "i o -> i o")}
INDICES = ("int32", "int64")


def BELOW(node: Node) -> int:
    return node["size"]


def read_keras(layer: KerasLayer) -> list[Node]:
    c, x, nodes = layer.config, layer.inputs[0], []
    if c.get("lora_rank") or c.get("quantization_config"):
        raise Unsupported("it is quantised, or has LoRA weights", "carry the model before that")
    if x.dtype not in INDICES:
        x = Value(f"{layer.outputs[0].name}:index", x.shape, "int32")
        nodes.append(Node("cast", {"dtype": "int32"}, outputs=[x]))
    attributes = {"size": c["input_dim"], "units": c["output_dim"]}
    return [*nodes, Node("embedding", attributes, layer.weights, layer.path)]


def write_keras(node: Node) -> list[KerasCall]:
    if "padding" in node.attributes:
        warnings.warn(
            f"{node.name}: in torch row {node['padding']} gets no gradient, as padding_idx says; Keras trains it, too",
            stacklevel=2,
        )
    return [KerasCall("Embedding", {"input_dim": node["size"], "output_dim": node["units"]}, weights=True)]


def read_torch(call: TorchOperation) -> list[Node]:
    for option in ("scale_grad_by_freq", "sparse"):
        if call[option]:
            raise Unsupported(f"{option}=True, which changes the gradient", "leave it out")
    if isinstance(call["weight"], Value):
        if call["padding_idx"] >= 0:
            raise Unsupported(
                "padding_idx with a table that is computed, or whose indices are constants", "leave it out"
            )
        return gather.rows(call)
    weights = call.weights({"embeddings": ("weight", WEIGHTS["embeddings"][1])})
    held = call.parameters[weights["embeddings"]]
    size, units = held.value.shape
    attributes = {"size": size, "units": units}
    if call["padding_idx"] >= 0 and held.trainable:
        attributes["padding"] = call["padding_idx"]
    return [Node("embedding", attributes, weights, call.path)]


def write_torch(node: Node) -> TorchCall:
    return TorchCall("{self}({0})", call_source("nn.Embedding", node["size"], node["units"]), WEIGHTS)
