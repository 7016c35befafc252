"""Weights from a model of one framework into the user's own model of the other, whatever its layers are called.

A source that can be run is carried over by the bridge, and what that makes is aligned with the target as in
`bridge.verify`: by what the two compute, not by names; then both are run on the same random input. So a checkpoint that
was trained on one side loads on the other: into the module or model of that side first, and from there by
`load_weights`.
Of a state dict, or a file of weights alone, the names decide, else the order, the kinds and the shapes of the layers.
"""

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bridge import convert, flow, matching, naming, rules, sources, state_dict, tensorflow_weights
from bridge.align import align
from bridge.checkpoints.difference import finite
from bridge.graph import BridgeError, Graph, flatten
from bridge.layout import convert as laid_out

BY_NAME, BY_STRUCTURE, BY_CLASS = "by name", "by what is computed", "by class and order"
BY_FLOW = "by what flows into it"
AS_IT_IS = "as it is"
CLOSE = 1e-3  # of the largest output: float32 on both sides, through any depth of network


@dataclass(frozen=True)
class Row:
    """A tensor of the source and what it fills: the names, the shapes, how it is rearranged, and how that is known."""

    source: str
    target: str
    transform: str
    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    how: str


@dataclass
class Plan:
    """What is to be filled from what.

    Attributes:
        rows: Gives a line for each tensor.
        notes: What cannot be known.
        fill: Does it, all or nothing.
    """

    rows: Callable[[], list[Row]]
    fill: Callable[[], None]
    notes: list[str] = field(default_factory=list)


def load_weights(target, source, names: "naming.Table | None" = None):
    """Copy every weight and statistic of a model, or of a file, into a model that computes the same.

    Args:
        target: A functional or Sequential `keras.Model`, or a `torch.nn.Module`; it is changed in place.
        source: The same of the other framework, or a Keras model for a Keras model; or a state dict of torch, or a
            file: of a state dict (`.safetensors`, `.pt`), or one of Keras (`.keras`; for a Keras model also
            `.weights.h5`, `.h5` and what `tf.train.Checkpoint` has written). All of it must find a place, and all of
            the target be filled.
        names: The names of a state dict for a Keras model, as `bridge.to_torch` takes them; by default those that the
            bridge gives. Where the names are others, the order, the kinds and the shapes of the layers decide.

    Returns:
        The target.

    Raises:
        BridgeError: One of them cannot be carried, or they do not compute the same, or the names do not fit, or there
            are NaN or infinite numbers: nothing has been changed then.
    """
    plan(target, source, names).fill()
    return target


def plan(target, source, names: "naming.Table | None" = None) -> Plan:
    """Find out what `load_weights` would do; takes and raises the same, and changes nothing."""
    import keras

    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if path.endswith(sources.KERAS) and isinstance(target, keras.Model):
            return _keras_file(target, path)
        if tensorflow_weights.is_checkpoint(path) and isinstance(target, keras.Model):
            return _tensorflow(target, path)
        if path.endswith(".weights.h5") or tensorflow_weights.is_checkpoint(path):
            raise BridgeError(
                f"{path} has weights alone, which do not say what a torch module's are: give the .keras file, or the "
                "model"
            )
        source = sources.load(path) if path.endswith(sources.KERAS) else sources.read_state(path)
    if isinstance(source, Mapping):
        return (_state if isinstance(target, keras.Model) else _into_module)(target, source, names)
    if not isinstance(source, keras.Model) and not isinstance(target, keras.Model):
        raise BridgeError(
            f"load_weights takes a Keras model, a state dict or a file for a torch module. Received: "
            f"{type(source).__name__}. Give its state_dict()"
        )
    return _running(target, source)


def _tensorflow(model, path: str) -> Plan:
    """A checkpoint of TensorFlow into a Keras model, by the graph of objects."""
    tensorflow_weights.load(model, path, dry_run=True)
    rows = [Row(v.path, v.path, AS_IT_IS, tuple(v.shape), tuple(v.shape), BY_CLASS) for v in model.weights]
    return Plan(lambda: rows, lambda: tensorflow_weights.load(model, path), [_unconfirmed(path, rows)])


def _keras_file(model, path: str) -> Plan:
    """A file of Keras into a Keras model: by the names of the layers, else as a model, else by classes and order."""
    from bridge import keras_weights

    try:
        places, ordered = keras_weights.load(model, path, by_order=not path.endswith(".keras"), dry_run=True)
    except BridgeError as e:
        if path.endswith(".weights.h5"):
            raise
        try:
            return _running(model, sources.load(path))
        except BridgeError:
            raise e from None
    how = BY_CLASS if ordered else BY_NAME
    shapes = {name: place.cells.shape for name, place in places.items()}
    rows = [Row(name, name, AS_IT_IS, shape, shape, how) for name, shape in shapes.items()]
    fill = lambda: keras_weights.load(model, path, by_order=ordered)  # noqa: E731
    return Plan(lambda: rows, fill, [_unconfirmed(path, rows)] if ordered else [])


def _state(model, state: Mapping, names: "naming.Table | None") -> Plan:
    """A state dict into a Keras model."""
    expected, arrays, pairs = state_dict.prepared(model, state, names)
    known = {pair.target: pair for pair in pairs}
    rows = [
        Row(
            known[name].source if name in known else name,
            state_dict.path_of(place),
            state_dict.transform(place),
            place.cells.shape,
            tuple(place.variable.shape),
            known[name].how if name in known else BY_NAME,
        )
        for name, place in state_dict.weights_of(expected).items()
    ]
    return Plan(lambda: rows, lambda: state_dict.fill(model, arrays, expected), _doubts("the state dict", rows))


def _into_module(module, state: Mapping, names: "naming.Table | None" = None) -> Plan:
    """A state dict into a module, by its names or by the order, the kinds and the shapes of the layers."""
    if names is not None:
        raise BridgeError("a table of names is for a Keras model. Leave it out: a module's names are its own")
    import torch

    own = {
        n: np.asarray(v.detach().cpu()) for n, v in module.state_dict().items() if not n.endswith(state_dict.COUNTER)
    }
    found = {n: state_dict.array(v) for n, v in state_dict.unwrapped(state, own).items()}
    arrays = {n: v for n, v in found.items() if not n.endswith(state_dict.COUNTER)}
    pairs = {}
    if state_dict.others(arrays, own):
        shapes = {name: value.shape for name, value in own.items()}
        arrays, listed = matching.renamed(type(module).__name__, arrays, shapes, set())
        pairs = {pair.target: pair for pair in listed}
    if problems := state_dict.differences({name: state_dict.Place(None, value) for name, value in own.items()}, arrays):
        raise BridgeError("\n  - ".join([f"the state dict is not one of {type(module).__name__}:", *problems]))
    rows = [
        Row(
            pairs[n].source if n in pairs else n, n, AS_IT_IS, v.shape, v.shape, pairs[n].how if n in pairs else BY_NAME
        )
        for n, v in arrays.items()
    ]

    def fill():
        counters = {name: state_dict.array(value) for name, value in found.items() if name.endswith(state_dict.COUNTER)}
        kept = {name: value for name, value in counters.items() if name in module.state_dict()}
        module.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in (arrays | kept).items()}, strict=False)

    return Plan(lambda: rows, fill, _doubts("the state dict", rows))


def _doubts(kind: str, rows: list[Row]) -> list[str]:
    """Say which layers only their order tells apart."""
    doubted = [row for row in rows if row.how == matching.ORDER]
    return [_unconfirmed(kind, doubted)] if doubted else []


def _unconfirmed(kind: str, rows: list[Row]) -> str:
    layers = list(dict.fromkeys(row.source.rpartition(".")[0] or row.source for row in rows))
    shown = ", ".join(layers[:5]) + (f" and {len(layers) - 5} more" if len(layers) > 5 else "")
    return (
        f"{len(layers)} layers have others of their shapes beside them, and their order alone says which is which "
        f"({shown}): that two are swapped could only be seen by running the source, and {kind} cannot be run"
    )


def _running(target, source) -> Plan:
    """A model into one that computes the same, confirmed on a random input."""
    import keras

    into_keras = isinstance(target, keras.Model)
    inputs, dynamic = _examples(target if into_keras else source)
    if not into_keras:
        copies = _torch(target, inputs, dynamic), _torch(convert.to_torch(source), inputs, dynamic)
    elif isinstance(source, keras.Model):
        copies = _keras(target), _keras(source)
    else:
        copies = _keras(target), _keras(convert.to_keras(source, inputs, dynamic))
    name = type(target).__name__
    pairs, how = aligned(name, *(graph for graph, _ in copies))
    found = _matched(name, pairs, *copies)
    if left := _left(target, {one.target for one in found}):
        raise BridgeError(
            f"{len(left)} weight(s) of {name} would not be filled, as no output depends on them: {', '.join(left[:20])}"
            f"{f' and {len(left) - 20} more' if len(left) > 20 else ''}. Give a state dict that has them"
        )

    def fill():
        before = [one.to.clone() if hasattr(one.to, "clone") else np.asarray(one.to).copy() for one in found]
        for one in found:
            one.assign(one.value)
        if apart := _apart(target, source, how):
            for one, value in zip(found, before, strict=True):
                one.assign(value)
            raise BridgeError(
                f"{type(target).__name__} would not compute what {type(source).__name__} does: on a random input "
                f"{apart}. Nothing has been changed"
            )

    return Plan(lambda: _rows(target, source, found, how), fill)


def _rows(target, source, found: list, how: str) -> list[Row]:
    """What goes where, in the names and shapes of both."""
    import keras

    from bridge import torch_reader

    if isinstance(target, keras.Model) and isinstance(source, keras.Model):
        return [Row(m.source, m.target, AS_IT_IS, tuple(m.value.shape), tuple(m.to.shape), how) for m in found]
    into_keras = isinstance(target, keras.Model)
    model, module = (target, source) if into_keras else (source, target)
    graph, variables = _keras(model)
    tensors = dict(itertools.chain(module.named_parameters(remove_duplicate=False), module.named_buffers()))
    transforms = {
        id(p.variable): state_dict.transform(p) for p in state_dict.weights_of(state_dict.places(model, {})).values()
    }
    rows = []
    pairs, how = aligned(type(module).__name__, graph, torch_reader.read(module, *_examples(model)))
    for ours, theirs in dict(pairs).items():
        if ours not in variables or not all(name in tensors for name in rules.tensors(theirs)):
            continue  # a constant
        variable = variables[ours].variable
        sides = (theirs, tuple(_part(tensors, theirs).shape)), (ours, tuple(variable.shape))
        (a, shape_a), (b, shape_b) = sides if into_keras else sides[::-1]
        rows.append(Row(a, b, transforms.get(id(variable), AS_IT_IS), shape_a, shape_b, how))
    return rows


def _apart(target, source, how: str) -> str:
    """Run both on the same random input, and say how far their outputs are from one another, if they are."""
    import keras
    import torch

    from bridge import keras_reader, samples, walk
    from bridge.tensors import tensor

    model = target if isinstance(target, keras.Model) else source
    graph = keras_reader.read(model)
    if any(node.operator == "random" for node in graph.nodes):
        return "" if how == BY_STRUCTURE else "no two runs are the same, and nothing else would confirm it"
    arrays = samples.inputs_of(model, graph)
    wanted = [np.asarray(x) for x in flatten(walk.run(model, arrays)[0])]
    other = source if model is target else target
    if isinstance(other, keras.Model):
        have = [np.asarray(x) for x in flatten(walk.run(other, arrays)[0])]
    else:
        first = laid_out(graph, "first")
        given = [x.transpose(v.order) for x, v in zip(arrays, first.inputs, strict=True)]
        wanted = [x.transpose(v.order) for x, v in zip(wanted, flatten(first.outputs), strict=True)]
        training = other.training
        with torch.no_grad():
            have = [np.asarray(x) for x in flatten(other.eval()(*(tensor(np.array(x, order="C")) for x in given)))]
        other.train(training)
    for i, (x, y) in enumerate(zip(wanted, have, strict=True)):
        if x.dtype.kind != "f":
            continue
        far, size = float(np.abs(x - y).max(initial=0)), float(np.abs(x).max(initial=0))
        if not far <= CLOSE * size:
            return f"output {i} differs by {far:.2g}, where the largest is {size:.2g}"
    return ""


def names(model, module) -> dict[str, str]:
    """Map the names of a Keras model's weights, `layer.kernel`, to those of a torch module's state dict.

    Args:
        model: A functional or Sequential `keras.Model`.
        module: A `torch.nn.Module` that computes the same; a name such as `in_proj_weight[0:4]` is a part of a weight.

    Raises:
        BridgeError: They do not compute the same.
    """
    from bridge import keras_reader, torch_reader

    inputs, dynamic = _examples(model)
    graphs = keras_reader.read(model), torch_reader.read(module, inputs, dynamic)
    return dict(_pairs(type(module).__name__, *graphs))


def _examples(model) -> tuple[tuple, list[set[int]]]:
    """Example inputs for torch's side of a Keras model, and the axes that are open."""
    from bridge import keras_reader, samples
    from bridge.tensors import tensor

    graph = keras_reader.read(model)
    values = laid_out(graph, "first").inputs
    arrays = [x.transpose(v.order) for x, v in zip(samples.inputs_of(model, graph), values, strict=True)]
    return tuple(tensor(np.array(x, order="C")) for x in arrays), [
        {i for i, d in enumerate(v.shape) if d is None} for v in values
    ]


def _keras(model) -> tuple[Graph, dict]:
    """The graph of a Keras model, and its variables by their names there."""
    from bridge import keras_reader

    found: dict[int, str] = {}
    graph = keras_reader.read(model, names=found)
    numbers = keras_reader.read(model, values=state_dict.numbered).parameters
    named = {found[id(v)]: v for v in model.weights if id(v) in found}
    return graph, {name: _Cells(v, numbers[name].value.astype(np.int64)) for name, v in named.items()}


def _torch(module, inputs, dynamic) -> tuple[Graph, dict]:
    """The graph of a torch module, and its tensors by their names there."""
    from bridge import torch_reader

    graph = torch_reader.read(module, inputs, dynamic)
    tensors = dict(itertools.chain(module.named_parameters(remove_duplicate=False), module.named_buffers()))
    held = [name for name in graph.parameters if all(n in tensors for n in rules.tensors(name))]
    return graph, {name: _part(tensors, name) for name in held}


class _Several:
    """Tensors of torch that are one weight in Keras: its rows, or what it is the sum of."""

    def __init__(self, tensors: list):
        self.tensors, self.shape = tensors, (len(tensors), *tensors[0].shape)

    def copy_(self, other: "_Several") -> None:
        """Take the values of others."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            mine.copy_(theirs)

    def clone(self) -> "_Several":
        """The values as they are now."""
        return _Several([tensor.clone() for tensor in self.tensors])


class _Cells:
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


def _held(side: dict, name: str):
    """What a name means: a tensor or variable, or the part of one that `name[start:stop]` says."""
    whole = side.get(name)
    if whole is not None or "[" not in name:
        return whole
    whole = side.get(name.partition("[")[0])
    if whole is None:
        return None
    return _Cells(whole.variable, whole.cells[..., rows(name)]) if isinstance(whole, _Cells) else whole[rows(name)]


def _part(tensors: dict, name: str):
    """A tensor, or the rows of it that `name[start:stop]` says, or several."""
    if len(several := rules.tensors(name)) > 1:
        return _Several([tensors[n].data for n in several])
    return tensors[name.partition("[")[0]].data[rows(name)]


def rows(name: str) -> slice:
    """The rows of a tensor that `name[start:stop]` says; all of them of any other name."""
    bounds = [int(n) for n in name.partition("[")[2].rstrip("]").split(":") if n.isdigit()]
    return slice(*bounds) if len(bounds) == 2 else slice(None)


def _pairs(kind: str, first: Graph, second: Graph) -> list[tuple[str, str]]:
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
class _Move:
    """A value that a tensor of the target takes, by the names of both."""

    target: str
    source: str
    to: object
    value: object

    def assign(self, value) -> None:
        """Give the tensor a value."""
        (self.to.assign if hasattr(self.to, "assign") else self.to.copy_)(value)


def _left(target, filled: set[str]) -> list[str]:
    """Name the weights and statistics of a torch module that are not among those filled; Keras' model reads all."""
    import keras

    if isinstance(target, keras.Model):
        return []
    done = {tensor for name in filled for tensor in rules.tensors(name)}
    return [name for name, _ in target.named_parameters() if name not in done]


def aligned(kind: str, first: Graph, second: Graph) -> tuple[list[tuple[str, str]], str]:
    """The names of weights of two networks that compute the same, and how that is known."""
    try:
        return _pairs(kind, first, second), BY_STRUCTURE
    except BridgeError as parted:
        pairs, wrong = flow.pairs(*(laid_out(graph, "first") for graph in (first, second)))
        if wrong:
            raise BridgeError(
                f"{parted}. These layers with weights, too, are not the same: {'; '.join(wrong)}"
            ) from None
        return pairs, BY_FLOW


def _matched(
    kind: str, pairs: list[tuple[str, str]], target: tuple[Graph, dict], source: tuple[Graph, dict]
) -> list[_Move]:
    """What takes each value of the source, all of them checked before the first is taken."""
    found, wrong = [], []
    for mine, theirs in pairs:
        to, value = _held(target[1], mine), _held(source[1], theirs)
        if to is None or value is None:
            continue  # a constant
        if tuple(to.shape) != tuple(value.shape):
            wrong.append(f"{mine} has the shape {tuple(to.shape)}, the source has {tuple(value.shape)}")
        elif bad := [part for part in getattr(value, "tensors", [value]) if not finite(state_dict.array(part))]:
            wrong.append(f"{theirs} has NaN or infinite numbers in {len(bad)} tensor(s)")
        found.append(_Move(mine, theirs, to, value))
    if wrong:
        raise BridgeError(f"{len(wrong)} weight(s) do not fit into {kind}: {'; '.join(wrong)}")
    return found
