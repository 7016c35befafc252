"""Which numbers of a torch module are which of a Keras model's, one by one.

Of a module that the bridge made the names say it; of the user's own it is what the two compute (`bridge.align`).
"""

import functools
from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from bridge import model_weights, rules, state_dict
from bridge.graph import BridgeError


@dataclass
class Part:
    """Rows of a tensor of torch, and the cells of a Keras variable that they are, by number, in the rows' shape."""

    rows: slice | EllipsisType
    variable: object
    cells: np.ndarray


def parts(model, module) -> dict[str, list[Part]]:
    """Find what the tensors of a module's state dict are in a Keras model.

    Args:
        model: A functional or Sequential `keras.Model`.
        module: A `torch.nn.Module` that computes the same.

    Returns:
        For the name of each tensor that is of the model's weights, in one part or in several.

    Raises:
        BridgeError: They do not compute the same, or they have other values than one another.
    """
    places = state_dict.weights_of(state_dict.places(model, {}))
    tensors = dict(module.state_dict(keep_vars=True))
    if all(name in tensors and tuple(tensors[name].shape) == p.cells.shape for name, p in places.items()):
        found = {name: [Part(..., place.variable, place.cells)] for name, place in places.items()}
    else:
        found = _by_structure(model, module, places)
    biases = {name: tensors.get(name.replace("bias_ih", "bias_hh")) for name in found if "bias_ih" in name}
    summed = {
        name: tensors[name] + other for name, other in biases.items() if other is not None and _second(found, name)
    }
    other = [n for n, held in found.items() if not all(_equal(summed.get(n, tensors[n]), part) for part in held)]
    if other:
        raise BridgeError(
            f"{type(module).__name__} has not the weights of {model.name}: {', '.join(other[:10])}"
            f"{f' and {len(other) - 10} more' if len(other) > 10 else ''}. Carry these first: "
            "bridge.load_weights(module, model), or the other way round"
        )
    return found


def _by_structure(model, module, places: dict[str, state_dict.Place]) -> dict[str, list[Part]]:
    """The same for a module of other names: by those of the module that the bridge makes, which computes the same."""
    from bridge import convert, torch_reader

    inputs, dynamic = model_weights.examples(model)
    read = functools.partial(torch_reader.read, module, inputs, dynamic)
    found: dict[str, list[Part]] = {}
    try:
        twin = torch_reader.read(convert.to_torch(model), inputs, dynamic)
        pairs = model_weights.aligned(type(module).__name__, read(), twin)[0]
    except BridgeError as parted:
        return _by_layer(model, module, read(tied=True), places, parted)
    for ours, theirs in pairs:
        for one, other in zip(rules.tensors(ours), rules.tensors(theirs), strict=True):
            if other not in places:  # a constant
                continue
            place = places[other]
            part = Part(model_weights.rows(ours), place.variable, place.cells[model_weights.rows(theirs)])
            held = found.setdefault(one, [])
            if not any(p.rows == part.rows for p in held):
                held.append(part)
    return found


def _by_layer(model, module, graph, places: dict[str, state_dict.Place], parted: BridgeError) -> dict[str, list[Part]]:
    """The same where Keras has two layers for one of torch, as for a bias that is frozen apart from its kernel."""
    mine, variables = model_weights.keras_side(model)
    tensors = dict(module.state_dict(keep_vars=True))
    cells = {id(place.variable): place.cells for place in places.values()}
    found = {}
    try:
        pairs = model_weights.pairs_of(type(module).__name__, mine, graph)
    except BridgeError:
        raise parted from None
    for ours, name in pairs:
        if ours in variables and name in tensors:
            variable = variables[ours].variable
            found[name] = [Part(..., variable, cells[id(variable)].reshape(tensors[name].shape))]
    return found


def _second(found: dict[str, list[Part]], name: str) -> bool:
    """Tell whether a recurrent layer's second bias is no weight of Keras, which has the sum of both."""
    return name.replace("bias_ih", "bias_hh") not in found


def numbers(variable) -> np.ndarray:
    """The values of a Keras variable, those of bfloat16 as float32, which torch knows."""
    value = np.asarray(variable)
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def _equal(tensor, part: Part) -> bool:
    """Tell whether rows of a tensor have the values of a variable, as far as the tensor's dtype tells them apart."""
    import torch

    value = torch.from_numpy(np.asarray(numbers(part.variable).reshape(-1)[part.cells])).to(tensor.dtype)
    have = tensor.detach().cpu()[part.rows]
    close = torch.isclose(have, value, 1e-6, 0, equal_nan=True) if tensor.dtype.is_floating_point else have == value
    return bool(close.all())
