"""Weights from a model of one framework into the user's own model of the other, whatever its layers are called.

The source is carried over by the bridge, and what that makes is aligned with the target as `bridge.verify` does: by
what the two compute, not by names. So a checkpoint that was trained on one side loads on the other: into the module or
model of that side first, and from there by `load_weights`.
"""

import itertools
import os
from collections.abc import Mapping

import numpy as np

from bridge import convert, matching, naming, rules, sources, state_dict
from bridge.align import align
from bridge.graph import BridgeError, Graph
from bridge.layout import convert as laid_out


def load_weights(target, source, names: "naming.Table | None" = None):
    """Copy every weight and statistic of a model into a model of the other framework that computes the same.

    Args:
        target: A functional or Sequential `keras.Model`, or a `torch.nn.Module`; it is changed in place.
        source: The same of the other framework; or a state dict of torch, or a file: of a state dict (`.safetensors`,
            `.pt`), or one of Keras (`.keras`; for a Keras model also `.weights.h5` and `.h5`). All of it must find a
            place, and all of the target be filled.
        names: The names of a state dict for a Keras model, as `bridge.to_torch` takes them; by default those that the
            bridge gives. Where the names are others, the order, the kinds and the shapes of the layers decide.

    Returns:
        The target.

    Raises:
        BridgeError: One of them cannot be carried, or they do not compute the same, or the names do not fit: nothing
            has been changed then.
    """
    import keras

    if isinstance(source, (str, os.PathLike)):
        source = _opened(target, os.fspath(source))
    if isinstance(source, Mapping):
        into = state_dict.load if isinstance(target, keras.Model) else _into_module
        into(target, source, names)
    if source is None or isinstance(source, Mapping):
        return target
    if isinstance(target, keras.Model) == isinstance(source, keras.Model):
        raise BridgeError(
            "load_weights takes a Keras model and a torch module. Received: "
            f"{type(target).__name__} and {type(source).__name__}. Within one framework use its own "
            "load_weights or load_state_dict"
        )
    into_keras = isinstance(target, keras.Model)
    inputs, dynamic = _examples(target if into_keras else source)
    if into_keras:
        copies = _keras(target), _keras(convert.to_keras(source, inputs, dynamic))
    else:
        copies = _torch(target, inputs, dynamic), _torch(convert.to_torch(source), inputs, dynamic)
    for assign, value in _matched(type(target).__name__, *copies):
        assign(value)
    return target


def _opened(target, path: str):
    """Read a file: a state dict, or a Keras model for a module; None where the target has been filled from it."""
    import keras

    from bridge import keras_weights

    if not path.endswith(sources.KERAS):
        return sources.read_state(path)
    if isinstance(target, keras.Model):
        keras_weights.load(target, path)
        return None
    if path.endswith(".weights.h5"):
        raise BridgeError(
            f"{path} has weights alone, which do not say what a torch module's are: give the .keras file, or the model"
        )
    return sources.load(path)


def _into_module(module, state: Mapping, names: "naming.Table | None" = None) -> None:
    """Fill a module from a state dict, by its names or by the order, the kinds and the shapes of the layers."""
    if names is not None:
        raise BridgeError("a table of names is for a Keras model. Leave it out: a module's names are its own")
    import torch

    own = {
        n: np.asarray(v.detach().cpu()) for n, v in module.state_dict().items() if not n.endswith(state_dict.COUNTER)
    }
    found = {n: state_dict.array(v) for n, v in state_dict.unwrapped(state, own).items()}
    arrays = {n: v for n, v in found.items() if not n.endswith(state_dict.COUNTER)}
    if state_dict.others(arrays, own):
        shapes = {name: value.shape for name, value in own.items()}
        arrays, _ = matching.renamed(type(module).__name__, arrays, shapes, set())
    if problems := state_dict.differences({name: state_dict.Place(None, value) for name, value in own.items()}, arrays):
        raise BridgeError("\n  - ".join([f"the state dict is not one of {type(module).__name__}:", *problems]))
    counters = {name: state_dict.array(value) for name, value in found.items() if name.endswith(state_dict.COUNTER)}
    kept = {name: value for name, value in counters.items() if name in module.state_dict()}
    module.load_state_dict({n: torch.from_numpy(np.array(v)) for n, v in (arrays | kept).items()}, strict=False)


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
    return graph, {found[id(v)]: v for v in model.weights if id(v) in found}


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


def _part(tensors: dict, name: str):
    """A tensor, or the rows of it that `name[start:stop]` says, or several."""
    if len(several := rules.tensors(name)) > 1:
        return _Several([tensors[n].data for n in several])
    whole, _, part = name.partition("[")
    bounds = [int(n) for n in part.rstrip("]").split(":") if n.isdigit()]
    return tensors[whole].data[slice(*bounds)] if len(bounds) == 2 else tensors[whole].data


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


def _matched(kind: str, target: tuple[Graph, dict], source: tuple[Graph, dict]) -> list[tuple]:
    """What takes each value of the source, all of them checked before the first is taken."""
    found, wrong = [], []
    for mine, theirs in _pairs(kind, target[0], source[0]):
        if mine not in target[1] or theirs not in source[1]:
            continue  # a constant
        to, value = target[1][mine], source[1][theirs]
        if tuple(to.shape) != tuple(value.shape):
            wrong.append(f"{mine} has the shape {tuple(to.shape)}, the source has {tuple(value.shape)}")
        found.append((to.assign if hasattr(to, "assign") else to.copy_, value))
    if wrong:
        raise BridgeError(f"{len(wrong)} weight(s) do not fit into {kind}: {'; '.join(wrong)}")
    return found
