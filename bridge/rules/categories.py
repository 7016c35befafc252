"""Categories: keras.layers.{Discretization, CategoryEncoding, IntegerLookup} <-> helpers of torch.

A layer that encodes what it finds is two operators: the numbers of the categories, and their encoding. Keras keeps the
bounds of bins in float32, and NaN is in the last bin. A number that is no category is none when encoded; Keras raises
an error for some. Where it raises one as a number is not in a vocabulary without oov indices, so does the helper, but
not in what torch has compiled or exported.

What hashes is refused: FarmHash64 of the decimal digits has no counterpart in torch. So is what takes strings.
"""

import numpy as np

from bridge.graph import Node, Unsupported, Value
from bridge.layout import anything, fixed
from bridge.rules import KerasCall, KerasLayer, TorchCall, TorchOperation, call_source

HELPERS = {
    "Discretization": '''
        class Discretization(nn.Module):
            """The number of the bin between `bounds` that each number is in; what is on a bound is above it."""

            def __init__(self, bounds):
                super().__init__()
                self.bounds = bounds

            def forward(self, x):
                return torch.bucketize(x, torch.tensor(self.bounds, dtype=x.dtype, device=x.device), right=True).int()
        ''',
    "CategoryEncoding": '''
        class CategoryEncoding(nn.Module):
            """Categories as ones among zeros, one by one or ("multi_hot", "count") all of an example together."""

            def __init__(self, categories, mode):
                super().__init__()
                self.categories, self.mode = categories, mode
                self.register_buffer("like", torch.zeros(()))

            def forward(self, x, weights=None):
                if self.mode == "one_hot" and x.ndim > 1 and x.shape[-1] == 1:
                    x = x.squeeze(-1)
                found = x.unsqueeze(-1) == torch.arange(self.categories, dtype=x.dtype, device=x.device)
                if self.mode == "multi_hot":
                    return found.any(1).to(self.like.dtype)
                found = found.to(self.like.dtype)
                if self.mode == "count":
                    found = (found if weights is None else found * weights.unsqueeze(-1)).sum(1)
                return found
        ''',
    "IntegerLookup": '''
        class IntegerLookup(nn.Module):
            """The place of each number in a vocabulary; numbers that are not in it have the first `oov` places."""

            def __init__(self, size, oov=1, mask=None):
                super().__init__()
                self.oov, self.mask = oov, mask
                self.register_buffer("vocabulary", torch.zeros(size, dtype=torch.int64))
                self.register_buffer("order", torch.zeros(size, dtype=torch.int64))

            def forward(self, x):
                first = int(self.mask is not None)
                at = torch.searchsorted(self.vocabulary, x, sorter=self.order).clamp(max=len(self.order) - 1)
                at = self.order[at]
                known = self.vocabulary[at] == x
                if self.oov == 0 and not torch.compiler.is_compiling():
                    if not (known if self.mask is None else known | (x == self.mask)).all():
                        raise ValueError("a number is not in the vocabulary, which has no oov indices")
                other = torch.remainder(x, self.oov) if self.oov > 1 else torch.zeros_like(x)
                other = other + first if self.oov else other - 1
                found = torch.where(known, at + first + self.oov, other)
                return found if self.mask is None else torch.where(x == self.mask, 0, found)
        ''',
    "InverseLookup": '''
        class InverseLookup(nn.Module):
            """The number at each place of a vocabulary whose first places are for a mask and for numbers not in it."""

            def __init__(self, size, oov=1, mask=None, unknown=-1):
                super().__init__()
                self.oov, self.mask, self.unknown = oov, mask, unknown
                self.register_buffer("vocabulary", torch.zeros(size, dtype=torch.int64))

            def forward(self, x):
                at = x - self.oov - int(self.mask is not None)
                known = (at >= 0) & (at < len(self.vocabulary))
                found = torch.where(known, self.vocabulary[torch.where(known, at, 0)], self.unknown)
                return found if self.mask is None else torch.where(x == 0, self.mask, found)
        ''',
}
HASHED = (
    "it hashes, which torch has no function for",
    "hash in the data pipeline, or give an IntegerLookup a vocabulary",
)
STRINGS = ("it takes strings, which torch has no tensors of", "do it before the model: in the data pipeline")
REFUSED = {"Hashing": HASHED, "HashedCrossing": HASHED, "StringLookup": STRINGS, "TextVectorization": STRINGS}
OPERATORS = ("discretization", "category_encoding", "integer_lookup", "inverse_lookup")
KERAS = ("Discretization", "CategoryEncoding", "IntegerLookup", *REFUSED)
TORCH = tuple(HELPERS)
CASTS = ("Discretization", "CategoryEncoding", "IntegerLookup")
ARGUMENTS = ("count_weights",)
WEIGHTS = {"vocabulary": ("vocabulary", "n -> n"), "order": ("order", "n -> n")}  # `order` sorts the vocabulary
BUFFERS = tuple(WEIGHTS)


def LAYOUT(node: Node, context):
    return (fixed if node.operator == "category_encoding" else anything)(node, context)


def AMONG(node: Node, parameters) -> np.ndarray | None:
    """Numbers that show what it does: in each bin, on each bound; in the vocabulary, beside it."""
    if node.operator == "discretization":
        bounds = np.sort(np.asarray(node["bounds"], "float32"))
        return np.concatenate([bounds, bounds[:1] - 1, (bounds[1:] + bounds[:-1]) / 2, bounds[-1:] + 1])
    if node.operator == "category_encoding":
        return np.arange(node["categories"])
    known = parameters[node.parameters["vocabulary"]].value
    mask = [] if node["mask"] is None else [node["mask"]]
    if node.operator == "inverse_lookup":
        return np.arange(len(known) + node["oov"] + len(mask))
    return np.concatenate([known, mask, [known.max() + 1 + i for i in range(2 * node["oov"])]]).astype("int64")


def read_keras(layer: KerasLayer) -> list[Node]:
    if layer.class_name in REFUSED:
        raise Unsupported(*REFUSED[layer.class_name])
    c, x, made = layer.config, layer.inputs[0], layer.outputs[0]
    mode = c.get("output_mode", "int")
    if c.get("sparse") or getattr(layer.operation, "sparse", False):
        raise Unsupported("sparse=True", "leave it out")
    read = {"Discretization": _bins, "CategoryEncoding": _categories, "IntegerLookup": _lookup}[layer.class_name]
    weights = [w for w in [layer.arguments.get("count_weights")] if w is not None]
    if any(w.dtype != made.dtype for w in weights):
        raise Unsupported(f"count_weights of {weights[0].dtype}", f"cast them to {made.dtype} before")
    nodes, categories = read(layer, x, mode)
    if mode == "int":
        nodes[-1].name = layer.path
        return nodes
    if "float" not in made.dtype:
        raise Unsupported(f"it makes {made.dtype}", "leave its dtype out")
    if mode == "one_hot" and x.rank > 1 and x.shape[-1] is None:
        raise Unsupported("the last axis of its input is open, and Keras drops it where it is 1", "fix that size")
    if mode != "one_hot" and (x.rank < 2 or (x.rank > 2 and layer.class_name != "Discretization")):
        raise Unsupported(f"output_mode={mode!r} of an input of shape {x.shape}", "give it a shape (batch, n)")
    if nodes:
        nodes[-1].outputs = [Value(f"{made.name}:numbers", x.shape, "int32" if categories[1] else "int64")]
    inputs = [nodes[-1].outputs[0] if nodes else x, *weights]
    return [*nodes, Node("category_encoding", {"categories": categories[0], "mode": mode}, {}, layer.path, inputs)]


def _whole(layer: KerasLayer, x: Value, *accepted: str) -> list[Node]:
    """A conversion to a dtype of whole numbers that the layer works with."""
    if x.dtype in accepted:
        return []
    made = Value(f"{layer.outputs[0].name}:index", x.shape, "int64")
    return [Node("cast", {"dtype": "int64"}, inputs=[x], outputs=[made])]


def _bins(layer: KerasLayer, x: Value, mode: str) -> tuple[list[Node], tuple]:
    bounds = layer.operation.bin_boundaries
    if bounds is None or not len(bounds):
        raise Unsupported("it has no bin_boundaries", "adapt it, or give them")
    bounds = [float(b) for b in np.asarray(bounds, "float32")]
    if sorted(bounds) != bounds:
        raise Unsupported("its bin_boundaries are not in order", "sort them")
    nodes = []
    if "float" not in x.dtype:
        made = Value(f"{layer.outputs[0].name}:float", x.shape)
        nodes = [Node("cast", {"dtype": "float"}, inputs=[x], outputs=[made])]
    return [*nodes, Node("discretization", {"bounds": tuple(bounds)})], (len(bounds) + 1, True)


def _categories(layer: KerasLayer, x: Value, mode: str) -> tuple[list[Node], tuple]:
    return _whole(layer, x, "int32", "int64"), (layer.config["num_tokens"], False)


def _lookup(layer: KerasLayer, x: Value, mode: str) -> tuple[list[Node], tuple]:
    c, one = layer.config, layer.operation
    if c["vocabulary_dtype"] != "int64":
        raise Unsupported(f"vocabulary_dtype={c['vocabulary_dtype']!r}", "use int64")
    if c["num_oov_indices"] > 1 and not c["invert"] and c.get("oov_method", "floormod") != "floormod":
        raise Unsupported(f"oov_method={c['oov_method']!r}: {HASHED[0]}", "use floormod")
    if mode == "tf_idf":
        raise Unsupported("output_mode='tf_idf'", "use 'count', and a Rescaling by the weights after it")
    if mode != "int" and c["mask_token"] is not None:
        raise Unsupported(f"mask_token with output_mode={mode!r}", "use 'int', and a CategoryEncoding after it")
    vocabulary = [int(v) for v in one.get_vocabulary(include_special_tokens=False)]
    if not vocabulary:
        raise Unsupported("it has no vocabulary", "adapt it, or give one")
    parameters = {"vocabulary": layer.constant("vocabulary", np.asarray(vocabulary, "int64"))}
    attributes = {"size": len(vocabulary), "oov": c["num_oov_indices"], "mask": c["mask_token"]}
    if c["invert"]:
        node = Node("inverse_lookup", {**attributes, "unknown": c["oov_token"]}, parameters)
    else:
        parameters["order"] = layer.constant("order", np.argsort(vocabulary))
        node = Node("integer_lookup", attributes, parameters)
    size = c["max_tokens"] if c["pad_to_max_tokens"] else len(vocabulary) + c["num_oov_indices"]
    return [*_whole(layer, x, "int64"), node], (size, False)


def write_keras(node: Node) -> list[KerasCall]:
    if node.operator == "discretization":
        return [KerasCall("Discretization", {"bin_boundaries": list(node["bounds"])})]
    if node.operator == "category_encoding":
        if node["mode"] != "one_hot" and node.inputs[0].rank > 2:
            raise Unsupported(
                f"{node['mode']} of an input of shape {node.inputs[0].shape}", "give it a shape (batch, n)"
            )
        names = ("inputs", "count_weights") if len(node.inputs) > 1 else ()
        config = {"num_tokens": node["categories"], "output_mode": node["mode"]}
        return [KerasCall("CategoryEncoding", config, names=names)]
    config = {"num_oov_indices": node["oov"], "mask_token": node["mask"]}
    if node.operator == "inverse_lookup":
        config |= {"invert": True, "oov_token": node["unknown"]}
    return [KerasCall("IntegerLookup", config, constants={"vocabulary": ("vocabulary", "n -> n")})]


def read_torch(call: TorchOperation) -> list[Node]:
    if call.target == "Discretization":
        return [Node("discretization", {"bounds": tuple(call["bounds"])}, name=call.path)]
    if call.target == "CategoryEncoding":
        return [Node("category_encoding", {"categories": call["categories"], "mode": call["mode"]}, name=call.path)]
    parameters = call.weights(WEIGHTS)
    size = len(call.parameters[parameters["vocabulary"]].value)
    attributes = {"size": size, "oov": call["oov"], "mask": call["mask"]}
    if call.target == "InverseLookup":
        return [Node("inverse_lookup", {**attributes, "unknown": call["unknown"]}, parameters, call.path)]
    return [Node("integer_lookup", attributes, parameters, call.path)]


def write_torch(node: Node) -> TorchCall:
    if node.operator == "discretization":
        return _call("Discretization", node["bounds"])
    if node.operator == "category_encoding":
        made = _call("CategoryEncoding", node["categories"], node["mode"])
        made.state = {"like": np.zeros((), node.outputs[0].dtype)}
        return made
    options = {"mask": node["mask"]} if node["mask"] is not None else {}
    kind = "IntegerLookup"
    if node.operator == "inverse_lookup":
        kind, options = "InverseLookup", {**options, "unknown": node["unknown"]}
    made = _call(kind, node["size"], node["oov"], **options)
    made.weights = {role: WEIGHTS[role] for role in node.parameters}
    return made


def _call(helper: str, *positional, **named) -> TorchCall:
    return TorchCall("{self}({all})", call_source(helper, *positional, **named), helpers=(helper,))
