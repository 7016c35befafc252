"""The weights of a model into another model that computes the same, whichever frameworks they are of.

Both can be run, so names do not matter: the two networks are aligned, as in `bridge.verify`, or where they are written
otherwise, by what flows into what (`bridge.flow`); and then both are run on the same random input.
"""

import itertools
from dataclasses import dataclass, replace
from types import EllipsisType

import keras
import numpy as np
import torch

from bridge import (
    convert,
    flow,
    inference,
    keras_reader,
    keras_weights,
    rules,
    samples,
    state_dict,
    torch_reader,
    untrusted,
    walk,
)
from bridge.align import align
from bridge.checkpoints.difference import finite
from bridge.graph import BridgeError, Graph, flatten
from bridge.layout import convert as laid_out
from bridge.matching import Plan, Row
from bridge.tensors import tensor

BY_STRUCTURE, BY_FLOW = "by what is computed", "by what flows into it"
CLOSE = 1e-4  # of the largest output: float32 on both sides, through any depth of network
ALIKE = "; layers that are alike in kind and place were tried in a few orders, so a state dict with a table may do it"
NOTHING = "no output says anything"
HALF = 0.05  # the same where either has 16 bits


def running(target, source) -> Plan:
    """A model into one that computes the same, confirmed on a random input."""
    into_keras = isinstance(target, keras.Model)
    inputs, dynamic = examples(target if into_keras else source)
    if not into_keras:
        twin = convert.to_torch(source)
        copies = torch_side(target, inputs, dynamic), torch_side(twin, inputs, dynamic)
    else:
        twin = source if isinstance(source, keras.Model) else convert.to_keras(source, inputs, dynamic)
        copies = keras_side(target), keras_side(twin)
    model = target if into_keras else source
    name, graphs = type(target).__name__, [graph for graph, _ in copies]
    far = []

    def made(found: list, how: str, order: tuple[int, ...]) -> Plan:
        return Plan(lambda: table(target, source, found, how, order), lambda: fill(target, found))

    for order in [(), *flow.orders(*(laid_out(graph, "first") for graph in graphs))]:
        pairs, how = aligned(name, *graphs, order)
        found = moves(name, pairs, *copies)
        if left := left_over(target, {one.target for one in found}):
            raise BridgeError(
                f"{len(left)} weight(s) of {name} would not be filled, as no output depends on them: "
                f"{', '.join(left[:20])}{f' and {len(left) - 20} more' if len(left) > 20 else ''}. Give a state dict "
                "that has them"
            )
        apart_by = tried(found, target, source, model, how)
        if not apart_by and how == BY_FLOW:
            apart_by = tried_at_random(found, target, twin, model, how)
        far.append(apart_by)
        if not far[-1]:
            return made(found, how, order)
        if how == BY_STRUCTURE:
            break
    raise BridgeError(
        f"{name} would not compute what {type(source).__name__} does: on a random input {far[0]}. Nothing has been "
        f"changed{ALIKE if how == BY_FLOW else ''}"
    )


def tried(found: list, target, source, model, how: str, strict: bool = False) -> str:
    """Fill a model, say how far it is from the source, if it is, and put everything back; see `apart`."""
    before = [copied(one.to) for one in found]
    try:
        fill(target, found)
        return apart(target, source, model, how, strict)
    except Exception as e:  # of the user's own code
        return untrusted.why(e)
    finally:
        fill(target, [replace(one, value=value) for one, value in zip(found, before, strict=True)])


def fill(target, found: list) -> None:
    """Give a model what was found."""
    for one in found:
        one.assign(one.value)
    if isinstance(target, keras.Model):
        keras_weights.finalize(target)


def tried_at_random(found: list, target, twin, model, how: str) -> str:
    """Compare a model with the source's copy once more, both with the same random weights, and put everything back.

    Of trained weights a part of the network may be so small in the output that two layers in each other's place would
    not be seen: queries and keys that have hardly learned, or a branch behind a small scale.
    """
    rng = np.random.default_rng(0)
    before = [copied(one.of) for one in found]
    try:
        for make in (drawn, scaled):  # the former may be none that the network has an output for
            for one, value in zip(found, before, strict=True):
                put(one.of, make(rng, value))
            said = tried([replace(one, value=copied(one.of)) for one in found], target, twin, model, how, strict=True)
            if said != NOTHING:
                return said
        return said
    finally:
        for one, value in zip(found, before, strict=True):
            put(one.of, value)


def drawn(rng: np.random.Generator, like):
    """Draw a weight: numbers about 1 for one axis, as scales and variances are, else such as keep a signal's size."""
    if isinstance(like, Several):
        return Several([drawn(rng, tensor) for tensor in like.tensors])
    shape = tuple(like.shape)
    fan_in = np.prod(shape) / max(shape[0], shape[-1]) if len(shape) > 1 else 1
    numbers = rng.normal(0, fan_in**-0.5, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
    return torch.from_numpy(numbers).to(like) if isinstance(like, torch.Tensor) else numbers.astype(dtype_of(like))


def scaled(rng: np.random.Generator, like):
    """Draw a weight near another."""
    if isinstance(like, Several):
        return Several([scaled(rng, tensor) for tensor in like.tensors])
    factors = rng.uniform(0.5, 1.5, tuple(like.shape))
    return like * torch.from_numpy(factors).to(like) if isinstance(like, torch.Tensor) else like * factors


def copied(place):
    """The values of a tensor or variable as they are now."""
    return place.clone() if hasattr(place, "clone") else np.asarray(place).copy()


def put(place, value) -> None:
    """Give a tensor or variable values."""
    (place.assign if hasattr(place, "assign") else place.copy_)(value)


def table(target, source, found: list, how: str, order: tuple[int, ...]) -> list[Row]:
    """What goes where, in the names and shapes of both."""
    if isinstance(target, keras.Model) and isinstance(source, keras.Model):
        return [
            Row(m.source, m.target, state_dict.AS_IT_IS, tuple(m.value.shape), tuple(m.to.shape), how) for m in found
        ]
    into_keras = isinstance(target, keras.Model)
    model, module = (target, source) if into_keras else (source, target)
    graph, variables = keras_side(model)
    tensors = dict(itertools.chain(module.named_parameters(remove_duplicate=False), module.named_buffers()))
    transforms = {
        id(p.variable): state_dict.transform(p) for p in state_dict.weights_of(state_dict.places(model, {})).values()
    }
    rows = []
    pairs, how = aligned(type(module).__name__, graph, torch_reader.read(module, *examples(model)), order)
    for ours, theirs in dict(pairs).items():
        if ours not in variables or not all(name in tensors for name in rules.tensors(theirs)):
            continue  # a constant
        variable = variables[ours].variable
        sides = (theirs, tuple(part(tensors, theirs).shape)), (ours, tuple(variable.shape))
        (a, shape_a), (b, shape_b) = sides if into_keras else sides[::-1]
        rows.append(Row(a, b, transforms.get(id(variable), state_dict.AS_IT_IS), shape_a, shape_b, how))
    return rows


def apart(target, other, model, how: str, strict: bool = False) -> str:
    """Run two models on the same random input, and say how far their outputs are from one another, if they are.

    Args:
        target: A model of either framework.
        other: The same.
        model: The Keras model of those that are to compute the same.
        how: How it is known what belongs together.
        strict: An output that is not finite, or the same everywhere, says nothing; there must be another.
    """
    graph = keras_reader.read(model)
    if any(node.operator == "random" for node in graph.nodes):
        return "" if how == BY_STRUCTURE else "no two runs are the same, and nothing else would confirm it"
    arrays, first = samples.inputs_of(model, graph), laid_out(graph, "first")

    def outputs(side) -> list[np.ndarray]:
        """Channels first."""
        if isinstance(side, keras.Model):
            made = [np.asarray(x) for x in flatten(walk.run(side, arrays)[0])]
            made = [x.transpose(v.order) for x, v in zip(made, flatten(first.outputs), strict=True)]
        else:
            made = inference.run(side, [x.transpose(v.order) for x, v in zip(arrays, first.inputs, strict=True)])
        return [x.astype("float32") if x.dtype.kind == "V" else x for x in made]

    seen = not strict
    close = HALF if any("float16" in str(w.dtype) for w in weights_of(target, other)) else CLOSE
    for i, (x, y) in enumerate(zip(outputs(other), outputs(target), strict=True)):
        if x.dtype.kind != "f":
            continue
        differ = ~((x == y) | (np.isnan(x) & np.isnan(y)))  # a random input may be none of the network's
        far, size = float(np.abs(x - y)[differ].max(initial=0)), float(np.abs(x[np.isfinite(x)]).max(initial=0))
        if not far <= close * size:
            return f"output {i} differs by {far:.2g}, where the largest is {size:.2g}"
        seen = seen or (np.isfinite(x).all() and np.ptp(x) > 1e-3 * size)
    return "" if seen else NOTHING


def weights_of(*models) -> list:
    """All weights of models of either framework."""
    return [w for m in models for w in (m.weights if isinstance(m, keras.Model) else m.parameters())]


def array(value) -> np.ndarray:
    """Numbers of either framework; bfloat16 as float32."""
    found = state_dict.array(value if hasattr(value, "detach") else np.asarray(value))
    return found.astype(np.float32) if found.dtype.kind == "V" else found


def dtype_of(to) -> np.dtype:
    """The dtype of a tensor or of a part of a variable; bfloat16, which has float32's range, is that."""
    return array(getattr(to, "tensors", [to])[0]).dtype


def names(model, module) -> dict[str, str]:
    """Map the names of a Keras model's weights, `layer.kernel`, to those of a torch module's state dict.

    Args:
        model: A functional or Sequential `keras.Model`.
        module: A `torch.nn.Module` that computes the same; a name such as `in_proj_weight[0:4]` is a part of a weight.

    Raises:
        BridgeError: They do not compute the same.
    """
    inputs, dynamic = examples(model)
    graphs = keras_reader.read(model), torch_reader.read(module, inputs, dynamic)
    return dict(pairs_of(type(module).__name__, *graphs))


def examples(model) -> tuple[tuple, list[set[int]]]:
    """Example inputs for torch's side of a Keras model, and the axes that are open."""
    graph = keras_reader.read(model)
    values = laid_out(graph, "first").inputs
    arrays = [x.transpose(v.order) for x, v in zip(samples.inputs_of(model, graph), values, strict=True)]
    return tuple(tensor(np.array(x, order="C")) for x in arrays), [
        {i for i, d in enumerate(v.shape) if d is None} for v in values
    ]


def keras_side(model) -> tuple[Graph, dict]:
    """The graph of a Keras model, and its variables by their names there."""
    found: dict[int, str] = {}
    graph = keras_reader.read(model, names=found)
    numbers = keras_reader.read(model, values=state_dict.numbered).parameters
    named = {found[id(v)]: v for v in model.weights if id(v) in found}
    return graph, {name: Cells(v, numbers[name].value.astype(np.int64)) for name, v in named.items()}


def torch_side(module, inputs, dynamic) -> tuple[Graph, dict]:
    """The graph of a torch module, and its tensors by their names there."""
    graph = torch_reader.read(module, inputs, dynamic)
    tensors = dict(itertools.chain(module.named_parameters(remove_duplicate=False), module.named_buffers()))
    held = [name for name in graph.parameters if all(n in tensors for n in rules.tensors(name))]
    return graph, {name: part(tensors, name) for name in held}


class Several:
    """Tensors of torch that are one weight in Keras: its rows, or what it is the sum of."""

    def __init__(self, tensors: list):
        self.tensors, self.shape = tensors, (len(tensors), *tensors[0].shape)

    def copy_(self, other: "Several") -> None:
        """Take the values of others."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs)

    def clone(self) -> "Several":
        """The values as they are now."""
        return Several([tensor.clone() for tensor in self.tensors])


class Cells:
    """A variable of Keras, or a part of one, as the graph has it: with the axes of a Dense layer's kernel, say.

    Args:
        variable: The variable.
        cells: The numbers of its cells, in the graph's shape.
    """

    def __init__(self, variable, cells: np.ndarray):
        self.variable, self.cells, self.shape = variable, cells, cells.shape

    def __array__(self, *_, **__) -> np.ndarray:
        return np.asarray(self.variable).reshape(-1)[self.cells]

    def assign(self, value) -> None:
        """Take other values."""
        whole = np.asarray(self.variable).copy()
        whole.reshape(-1)[self.cells] = np.asarray(value)
        self.variable.assign(whole)


def held(side: dict, name: str):
    """What a name means: a tensor or variable, or the part of one that `name[start:stop]` says."""
    whole = side.get(name)
    if whole is not None or "[" not in name:
        return whole
    whole = side.get(name.partition("[")[0])
    if whole is None:
        return None
    return Cells(whole.variable, whole.cells[..., rows(name)]) if isinstance(whole, Cells) else whole[rows(name)]


def part(tensors: dict, name: str):
    """A tensor, or the rows of it that `name[start:stop]` says, or several."""
    if len(several := rules.tensors(name)) > 1:
        return Several([tensors[n].data for n in several])
    return tensors[name.partition("[")[0]].data[rows(name)]


def rows(name: str) -> slice | EllipsisType:
    """The rows of a tensor that `name[start:stop]` says; all of it of any other name."""
    bounds = [int(n) for n in name.partition("[")[2].rstrip("]").split(":") if n.isdigit()]
    return slice(*bounds) if len(bounds) == 2 else ...


def pairs_of(kind: str, first: Graph, second: Graph) -> list[tuple[str, str]]:
    """The names of the weights of aligned nodes."""
    graphs = [laid_out(g, "first") for g in (first, second)]
    pairs, unmatched = align(*graphs)
    if unmatched:
        raise BridgeError(f"the weights have no place in {kind}, which computes something else: {'; '.join(unmatched)}")
    return [
        (name, pair.torch.parameters[role])
        for pair in pairs
        for role, name in pair.keras.parameters.items()
        if role in pair.torch.parameters
    ]


@dataclass
class Move:
    """A value that a tensor of the target takes, by the names of both.

    Attributes:
        to: The tensor, or the part of a variable.
        value: What it takes.
        of: Where that is held.
    """

    target: str
    source: str
    to: object
    value: object
    of: object

    def assign(self, value) -> None:
        """Give the tensor a value."""
        put(self.to, value)


def left_over(target, filled: set[str]) -> list[str]:
    """Name the weights and statistics of a torch module that are not among those filled; Keras' model reads all."""
    if isinstance(target, keras.Model):
        return []
    done = {tensor for name in filled for tensor in rules.tensors(name)}
    return [name for name, _ in target.named_parameters() if name not in done]


def aligned(kind: str, first: Graph, second: Graph, order: tuple[int, ...] = ()) -> tuple[list[tuple[str, str]], str]:
    """The names of weights of two networks that compute the same, and how that is known; `order` is as in `flow`."""
    try:
        return pairs_of(kind, first, second), BY_STRUCTURE
    except BridgeError as parted:
        pairs, wrong = flow.pairs(*(laid_out(graph, "first") for graph in (first, second)), order)
        if wrong:
            raise BridgeError(
                f"{parted}. These layers with weights, too, are not the same: {'; '.join(wrong)}"
            ) from None
        return pairs, BY_FLOW


def moves(
    kind: str, pairs: list[tuple[str, str]], target: tuple[Graph, dict], source: tuple[Graph, dict]
) -> list[Move]:
    """What takes each value of the source, all of them checked before the first is taken."""
    found, wrong = [], []
    for mine, theirs in pairs:
        to, value = held(target[1], mine), held(source[1], theirs)
        if to is None or value is None:
            continue  # a constant
        if tuple(to.shape) != tuple(value.shape):
            wrong.append(f"{mine} has the shape {tuple(to.shape)}, the source has {tuple(value.shape)}")
        elif not all(finite(array(part)) for part in getattr(value, "tensors", [value])):
            wrong.append(f"{theirs} has NaN or infinite numbers")
        elif not all(finite(array(part).astype(dtype_of(to))) for part in getattr(value, "tensors", [value])):
            wrong.append(f"{theirs} has numbers too large for the dtype of {mine}")
        found.append(Move(mine, theirs, to, value, value))
    if wrong:
        raise BridgeError(f"{len(wrong)} weight(s) do not fit into {kind}: {'; '.join(wrong)}")
    return found
