"""Why the first layer that differs does: the known traps, tried one by one on what the torch module has read and made.

A trap is a setting or a weight of Keras' layer with another value. It explains the difference if the layer with that
value, and nothing else changed, makes of the torch module's own input the torch module's own output.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product

import numpy as np

from bridge import rules, torch_writer
from bridge.align import Pair
from bridge.graph import BridgeError, Graph, Node, Parameter

CLOSE = 1e-6  # relative: what explains a difference leaves no more of it than float32 does
# attribute -> what is known to go wrong with it
KNOWN = {
    "approximate": "keras.ops.gelu is the tanh approximation by default, keras.activations.gelu and torch's are not",
    "axis": "the channels are last in Keras and first in torch",
    "axes": "the channels are last in Keras and first in torch",
    "crops": "Keras' 'same' cuts the odd pixel after the image, torch's padding as many on both sides",
    "epsilon": "the default is 1e-3 in most of Keras' layers and 1e-5 in torch's",
    "function": "functions of one name differ between the frameworks",
    "groups": "a convolution with groups",
    "negative_slope": "the default is 0.3 in Keras' layer, 0.2 in its function and 0.01 in torch",
    "operator": "an average may count its padding or not",
    "order": "depth_to_space runs depth first in TensorFlow, channels first in torch's PixelShuffle",
    "pads": "SAME puts the odd pixel of padding after the image and depends on its size, torch's padding is equal on "
    "both sides",
    "rule": "a resize is half-pixel, or aligns corners, or neither",
}


def explain(pair: Pair, first: Graph, second: Graph, inputs: list[np.ndarray], output: np.ndarray) -> str:
    """Say which trap explains that a layer's output differs.

    Args:
        pair: The layer on both sides.
        first: Keras' graph, laid out as torch has it.
        second: The torch module's graph.
        inputs: What the torch module's layer has read, in float64.
        output: What it has made of that.

    Returns:
        A sentence; empty where no trap explains the difference.
    """
    mine, theirs = pair.keras, pair.torch
    arrays = {role: first.parameters[name].value for role, name in mine.parameters.items()}
    tried = [*_settings(mine, theirs), *_weights(pair, first, second)]
    everything = [step for _, step in tried]
    for sentence, change in [*tried, ("all of these together", lambda n, w: _all(everything, n, w))]:
        node, weights = change(replace(mine, attributes=dict(mine.attributes)), dict(arrays))
        if _makes(node, weights, inputs, output):
            return sentence
    return ""


def _all(changes, node: Node, weights: dict):
    for change in changes:
        node, weights = change(node, weights)
    return node, weights


def _settings(mine: Node, theirs: Node) -> Iterator:
    """Every setting that differs, as the torch module has it."""
    for key in mine.attributes.keys() | theirs.attributes.keys():
        here, there = mine.attributes.get(key), theirs.attributes.get(key)
        if here != there:

            def change(node, weights, key=key, there=there):
                node.attributes[key] = there
                return node, weights

            known = f": {KNOWN[key]}" if key in KNOWN else ""
            yield f"its {key} is {there} and not {here}{known}", change


def _weights(pair: Pair, first: Graph, second: Graph) -> Iterator:
    """Every weight that differs, with how it came to be from Keras' where that can be told."""
    for role, name in pair.keras.parameters.items():
        if role not in pair.torch.parameters:

            def drop(node, weights, role=role):
                weights[role] = np.zeros_like(weights[role])
                return node, weights

            yield f"its {role} is missing", drop
            continue
        here, there = first.parameters[name].value, second.parameters[pair.torch.parameters[role]].value
        if here.shape == there.shape and not np.array_equal(here, there):

            def change(node, weights, role=role, there=there):
                weights[role] = there
                return node, weights

            yield f"its {role} is {relation(here, there, first, name)}", change


def relation(here: np.ndarray, there: np.ndarray, graph: Graph, own: str) -> str:
    """Say how a weight of the torch module came to be from Keras', in Keras' axes.

    Args:
        here: Keras' weight.
        there: The torch module's.
        graph: Keras' graph, which has the other weights.
        own: The name of this one.
    """
    if not there.any():
        return "zero"
    for name, other in graph.parameters.items():
        if name != own and other.value.shape == there.shape and np.array_equal(other.value, there):
            return f"that of {name.rpartition('.')[0]}: two layers of the same shape are swapped"
    for axes in permutations(range(here.ndim)):
        moved = here.transpose(axes)
        for flips in product((False, True), repeat=here.ndim):
            flipped = tuple(i for i, flip in enumerate(flips) if flip)
            if moved.shape == there.shape and np.array_equal(np.flip(moved, flipped), there):
                moves = f" with its axes in the order {axes}" if list(axes) != sorted(axes) else ""
                turned = f" reversed along axes {flipped}" if flipped else ""
                return f"Keras'{moves}{' and' if moves and turned else ''}{turned}"
    if here.ndim == 1 and np.array_equal(np.sort(here), np.sort(there)):
        return "Keras' in another order"
    for axes in permutations(range(here.ndim)):
        if np.array_equal(here.transpose(axes).ravel(), there.ravel()):
            return f"Keras' reshaped as if its axes were in the order {axes}"
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = there.astype("float64") / here.astype("float64")
    ratio = ratio[np.isfinite(ratio)]
    if ratio.size and np.allclose(ratio, ratio.flat[0], rtol=1e-6):
        return f"Keras' times {float(ratio.flat[0]):.6g}"
    if np.array_equal(here.astype("float16").astype(there.dtype), there):
        return "Keras' in float16"
    return "another one"


def _makes(node: Node, weights: dict[str, np.ndarray], inputs: list[np.ndarray], output: np.ndarray) -> bool:
    """Tell whether a node makes the output of the inputs."""
    import torch

    parameters = {role: Parameter(np.asarray(a, "float64"), False) for role, a in weights.items()}
    read, made = (
        [replace(v, dtype="float64") if "float" in v.dtype else v for v in values]
        for values in (node.inputs, node.outputs)
    )
    names = {role: role for role in parameters}
    alone = replace(node, parameters=names, name="layer", scope=(), inputs=read, outputs=made)
    graph = Graph("layer", alone.inputs, alone.outputs[0], [alone], parameters, "first")
    try:
        module = torch_writer.build(torch_writer.write(graph)).double()
        with torch.no_grad():
            have = module(*(torch.from_numpy(np.ascontiguousarray(x, "float64")) for x in inputs)).numpy()
    except (BridgeError, rules.Unsupported, RuntimeError, ValueError, TypeError, KeyError, IndexError):
        return False  # the value makes no sense for this layer
    if have.shape != output.shape:
        return False
    return bool(np.abs(have - output).max(initial=0) <= CLOSE * max(np.abs(output).max(initial=0), 1e-30))
