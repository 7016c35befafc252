"""A state dict of torch into a Keras model, by the names that the model's torch module has.

Where each number belongs is found by writing the model as torch source with numbers for weights: a weight that is
transposed, whose rows follow another order of channels, or of which torch holds a part, is then seen to be so. The
tables of the rules are all that is used, and nothing of them is repeated here.
"""

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from bridge import keras_reader, layout, matching, naming, torch_writer
from bridge.checkpoints.difference import finite
from bridge.graph import BridgeError, Obstacle

AS_IT_IS = "as it is"
COUNTER = "num_batches_tracked"  # of torch's BatchNorm, which Keras has none of
WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and DataParallel; of torch.compile


@dataclass
class Place:
    """Where a tensor of a state dict belongs: the cells of a variable, by number, in the tensor's shape."""

    variable: object
    cells: np.ndarray


def load(model, state: Mapping, names: naming.Table | None = None) -> list[matching.Pair]:
    """Fill every weight and statistic of a model from a state dict.

    Args:
        model: A functional or Sequential `keras.Model`; it is changed in place.
        state: Name -> tensor or array.
        names: The names of the module that has this state dict, as `bridge.to_torch` takes them. Without a table they
            are those that the bridge gives; where few of these are there, the layers' order, kinds and shapes decide.

    Returns:
        What was filled from what, if not by name.

    Raises:
        BridgeError: Lists every name that is missing, unexpected, of another shape, not of numbers or with NaN or
            infinite ones; nothing has been changed then.
    """
    expected, arrays, pairs = prepared(model, state, names)
    fill(model, arrays, expected)
    return pairs


def prepared(model, state: Mapping, names: naming.Table | None) -> tuple[dict, dict, list[matching.Pair]]:
    """Find where the tensors of a state dict belong in a model; takes and raises what `load` does.

    Returns:
        The places by the expected names, the arrays by the same names, and what was paired if not by name.
    """
    expected = places(model, names or {})
    arrays = {name: array(value) for name, value in unwrapped(state, expected).items()}
    pairs = []
    if names is None and others(arrays, expected):
        beside = {matching.end(name) for name, place in expected.items() if place is None} | {COUNTER}
        shapes = {name: place.cells.shape for name, place in weights_of(expected).items()}
        arrays, pairs = matching.renamed(model.name, arrays, shapes, beside)
    if problems := differences(expected, arrays) or rounded_away(
        {name: (arrays[name], np.dtype(place.variable.dtype)) for name, place in weights_of(expected).items()}
    ):
        raise BridgeError("\n  - ".join([f"the state dict is not one of {model.name}:", *problems]))
    return expected, arrays, pairs


def rounded_away(values: Mapping[str, tuple[np.ndarray, np.dtype]]) -> list[str]:
    """Say which finite numbers the dtype that they are to have cannot hold: too large ones, or fractions."""

    def fits(value, dtype) -> bool:
        new = value.astype(dtype)
        return bool((new == value).all()) if np.dtype(dtype).kind in "biu" else finite(new)

    with np.errstate(over="ignore", invalid="ignore"):
        wrong = [f"{name} in {dtype}" for name, (value, dtype) in values.items() if not fits(value, dtype)]
    return [f"{len(wrong)} with numbers that the dtype does not have: {', '.join(wrong)}"] if wrong else []


def transform(place: Place) -> str:
    """Say how a variable of Keras is rearranged in torch: as it is, with other axes, or cell by cell."""
    cells, shape = place.cells, tuple(place.variable.shape)
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    for axes in itertools.permutations(range(len(shape))):
        moved, same = numbers.transpose(axes), axes == tuple(range(len(shape)))
        said = AS_IT_IS if same else f"axes {', '.join(map(str, axes))}"
        if moved.shape == cells.shape and np.array_equal(moved, cells):
            return said
        if moved.size == cells.size and np.array_equal(moved.reshape(-1), cells.reshape(-1)):
            return "reshaped" if same else f"{said}, then reshaped"
    return "rows in torch's order" if cells.size == numbers.size else "a part"


def others(arrays: Collection[str], expected: Collection[str]) -> bool:
    """Tell whether the names of a state dict are others than those that are expected: fewer than half are there."""
    return 2 * len(set(arrays) & set(expected)) < len(expected)


def weights_of(expected: Mapping[str, Place | None]) -> dict[str, Place]:
    """Those of the names that are weights of Keras."""
    return {name: place for name, place in expected.items() if place is not None}


def fill(model, state: Mapping[str, np.ndarray], expected: Mapping[str, Place | None]) -> None:
    """Fill a model from arrays whose places are known; raises as `load` does."""
    problems = differences(expected, state)
    values = {
        id(place.variable): np.zeros(place.variable.shape, place.variable.dtype) for place in one_of_each(expected)
    }
    taken = {name: np.zeros(value.size, bool) for name, value in values.items()}
    for name, place in expected.items() if not problems else ():
        if place is None:
            continue
        cells, new = place.cells, state[name]
        filled, known = values[id(place.variable)].reshape(-1), taken[id(place.variable)]
        if not np.array_equal(filled[cells][known[cells]], new.astype(filled.dtype)[known[cells]], equal_nan=True):
            problems.append(f"{name}: differs from another tensor that is the same weight here")
        filled[cells], known[cells] = new, True
    if problems:
        raise BridgeError("\n  - ".join([f"the state dict is not one of {model.name}:", *problems]))
    for place in one_of_each(expected):
        place.variable.assign(values[id(place.variable)])


def one_of_each(expected: Mapping[str, Place | None]) -> list[Place]:
    """One place of each variable."""
    return list({id(place.variable): place for place in expected.values() if place is not None}.values())


def places(model, names: naming.Table) -> dict[str, Place | None]:
    """Find where each tensor of a model's state dict in torch belongs; None for one that is no weight of Keras.

    Raises:
        BridgeError: The model cannot be carried, or torch holds something that is computed from its weights.
    """
    found: dict[int, str] = {}
    graph = keras_reader.read(model, values=numbered, names=found)
    source = torch_writer.write(layout.convert(naming.rename(graph, names), "first"))
    variables = {name: v for v in model.variables if (name := found.get(id(v)))}
    made: dict[str, Place | None] = {}
    filled = {name: np.zeros(int(np.prod(v.shape)), bool) for name, v in variables.items()}
    for key, value in source.state.items():
        parameter = source.parameters.get(key, "")
        parameter = parameter if parameter in variables else parameter.partition(":")[0]  # as `naming` has it
        made[key] = Place(variables[parameter], value.astype(np.int64)) if parameter in variables else None
        if parameter in variables:
            numbers = (value == made[key].cells) & (value >= 0) & (value < filled[parameter].size)
            filled[parameter][made[key].cells[numbers]] = numbers.all()
    reason = "torch's module holds what is computed from it, not its values"
    wrong = [Obstacle(parameter, "weight", reason) for parameter, cells in filled.items() if not cells.all()]
    if wrong:
        raise BridgeError(f"{model.name} has {len(wrong)} weight(s) that no state dict gives:", wrong)
    return made


def numbered(variable) -> np.ndarray:
    """Give a variable's cells their numbers, in float64, which holds them exactly."""
    return np.arange(int(np.prod(variable.shape)), dtype=np.float64).reshape(variable.shape)


def differences(expected: Mapping[str, Place | None], state: Mapping[str, np.ndarray]) -> list[str]:
    """Say what keeps a state dict from being that of a model, a line for each kind; constants need not be there."""
    places = weights_of(expected)
    found = {
        "not of real numbers": [f"{name} {value.dtype}" for name, value in state.items() if value.dtype.kind in "cOSU"],
        "with NaN or infinite numbers": [n for n, v in state.items() if n in places and not finite(v)],
        "missing": [name for name in places if name not in state],
        "unexpected": [f"{name} {value.shape}" for name, value in state.items() if name not in expected],
        "of another shape": [
            f"{name} {state[name].shape}, not {place.cells.shape}"
            for name, place in places.items()
            if name in state and state[name].shape != place.cells.shape
        ],
    }
    return [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in found.items() if names]


def unwrapped(state: Mapping, expected: Collection[str] = ()) -> Mapping:
    """Take off what a wrapper has put in front of every name, where no name that is expected begins so."""
    for prefix in WRAPPERS * 2:  # they may be in one another
        if all(str(name).startswith(prefix) for name in state) and not any(n.startswith(prefix) for n in expected):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def array(value) -> np.ndarray:
    """A tensor of any dtype as an array; bfloat16 becomes float32, which holds all of its numbers."""
    if not hasattr(value, "detach") and not isinstance(value, (np.ndarray, np.generic, float, int)):
        raise BridgeError(f"a state dict has tensors or arrays. In it is {type(value).__name__}")
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy()
    return np.asarray(value)
