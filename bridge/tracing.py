"""Layers that no rule knows, as the functions of keras.ops that they call.

A layer's `call` is run once on tensors that are not there. Its weights are such tensors, too, for as long: what it
computes of them alone (`kernel * mask`, `softplus(rho)`) would else be done at once, and be a constant ever after. What
was called is then a graph like any functional model's, in which the layers inside keep their names.

What a layer does in training alone is in such a graph, too (`bridge.modes`).
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras.src.ops.function import Function

from bridge import keras_attention, modes, open_sizes, rules, time_distributed
from bridge.graph import Unsupported

OPS = "compute with keras.ops and the layer's own weights"


@dataclass
class Trace:
    """What a layer's `call` computes: a graph of its tensors and, behind them, of what stands for its `variables`.

    Of a variable that it does not read there is None. `trained` has the calls that are made in training mode, where
    that does something else. `lost` has the weights of which its graph knows nothing: if that of no other call of the
    layer does, they may have been computed with unseen.
    """

    function: Function
    variables: list[keras.Variable | None]
    lost: list[keras.Variable]
    trained: frozenset[int] = frozenset()
    adds_loss: bool = False


def needed(layer, keywords: dict[str, Any]) -> bool:
    """Tell whether a layer is to be traced: no rule carries it, or none with these arguments."""
    if not isinstance(layer, keras.Layer):
        return False
    rule = rules.for_keras(rules.class_name(type(layer)))
    if rule is None:
        return True
    given = {k for k, x in keywords.items() if any(v is not None for v in keras.tree.flatten(x))}
    return any(k.endswith("mask") and k not in getattr(rule, "ARGUMENTS", ()) for k in given)


def is_tensor(x) -> bool:
    """Tell whether an argument of a call is a tensor, or stands for one."""
    return hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, np.ndarray | np.generic)


def symbolic(structure, recorded=None) -> tuple[list[keras.KerasTensor], Any]:
    """Tensors that are not there in the place of all tensors of a structure: a list of them, and the structure.

    `recorded` is a structure like it, of tensors that are not there, whose dtypes are the layer's own: a twin of the
    model has others.
    """
    found = []

    def place(x, like=None):
        if not is_tensor(x):
            return x
        dtype = (like if isinstance(like, keras.KerasTensor) else x).dtype
        found.append(keras.Input(batch_shape=tuple(x.shape), dtype=keras.backend.standardize_dtype(dtype)))
        return found[-1]

    if recorded is None:
        return found, keras.tree.map_structure(place, structure)
    return found, keras.tree.map_structure(place, structure, recorded)


def nodes(function) -> Iterator[Any]:
    """Keras' records of the calls in a graph of layers, in the order of execution."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from (node for node in function._nodes_by_depth[depth] if not node.is_input)


def trace(layer, arguments: tuple, keywords: dict[str, Any], recorded, looked_at: list) -> Trace:
    """Run a layer's `call` on tensors that are not there.

    Args:
        layer: Any layer that is built.
        arguments: What it is called with.
        keywords: The same, by name.
        recorded: Keras' record of both.
        looked_at: For its tensors in turn the mask, or None, that hangs on them for its `call` to look at.

    Raises:
        Unsupported: It does something else than to compute with keras.ops.
    """
    like = recorded.args, {k: recorded.kwargs.get(k, x) for k, x in keywords.items()}
    tensors, (arguments, keywords) = symbolic((arguments, keywords), like)
    hung, own = symbolic(looked_at), [*_own_variables(layer), *_inner_variables(layer)]
    places = [keras.Input(batch_shape=v.shape, dtype=v.dtype) for v in own]
    constants = open_sizes.Constants()
    alike = _alike(layer, tensors, like, arguments, keywords)
    given, trained = (layer, tensors, hung, places, constants, alike, arguments), None
    losses: list = []  # they are no part of any output
    adding = mock.patch.object(keras.Layer, "add_loss", lambda _, loss: losses.append(loss))
    with _uncalled(layer), adding:
        if layer._call_has_training_arg and not keywords.get("training"):
            function, trained = [_called(*given, keywords | {"training": mode}) for mode in (None, True)]
            if constants.places:  # one mode may have some that the other has not
                inputs = [*tensors, *hung[0], *places, *constants.places]
                function, trained = (Function(inputs, f._outputs_struct) for f in (function, trained))
            if _text(function) == _text(trained):
                trained = None
            else:
                function = modes.joined(function, trained)
        else:
            function = _called(*given, keywords)
    calls = frozenset(map(id, nodes(trained))) if trained else frozenset()
    variables, lost = _read(layer, function, own, places)
    return Trace(function, variables + constants.variables(), lost, calls, bool(losses))


@contextlib.contextmanager
def _uncalled(layer) -> Iterator[None]:
    """Nothing has been called in the end, as far as the user's model is concerned."""
    inside = {id(x): x for x in layer._flatten_layers()}.values()
    before = [(x, len(x._inbound_nodes)) for x in inside]
    try:
        yield
    finally:
        for x, n in before:
            del x._inbound_nodes[n:]


def _alike(layer, tensors: list, recorded, arguments, keywords) -> list[tuple]:
    """Pairs of tensors of one size: those that are one in the user's model, and masks after what they mask."""
    first: dict[int, Any] = {}
    same = [x for x in keras.tree.flatten(recorded) if is_tensor(x)]
    found = [(first.setdefault(id(x), mine), mine) for x, mine in zip(same, tensors, strict=False)]
    named = dict(zip(inspect.signature(layer.call).parameters, arguments, strict=False)) | keywords
    for name, mask in named.items():
        masked = named.get(name.removesuffix("_mask")) if name != "mask" else next(iter(named.values()))
        pair = [x[0] if isinstance(x, list | tuple) and x else x for x in (masked, mask)]
        if name.endswith("mask") and all(isinstance(x, keras.KerasTensor) for x in pair) and pair[0] is not pair[1]:
            found.append(tuple(pair))
    return [(x, other) for x, other in found if x is not other]


def _called(
    layer, tensors: list, hung: tuple[list, list], places: list, constants, alike: list[tuple], arguments, keywords
) -> Function:
    own = [*_own_variables(layer), *_inner_variables(layer)]
    compute = layer.compute_dtype if layer.autocast else None

    def cast(x):
        floats = compute and isinstance(x, keras.KerasTensor) and "float" in x.dtype
        return keras.ops.cast(x, compute) if floats and x.dtype != compute else x

    for x, mask in zip(tensors, hung[1], strict=False):
        if mask is not None:  # the call may take it away
            keras.src.backend.set_keras_mask(x, mask)
    given = {id(v): cast(x) if getattr(v, "_autocast", True) else x for v, x in zip(own, places, strict=True)}
    try:
        masks = [(x, m) for x, m in zip(tensors, hung[1], strict=False) if m is not None]
        sizes = open_sizes.Sizes([*tensors, *hung[0], *places], [*alike, *masks], constants)
        with contextlib.ExitStack() as looks, keras.StatelessScope() as scope:
            following = open_sizes.followed(sizes), keras_attention.followed(), time_distributed.followed()
            for look in (_swapped(layer, given), _swapped_inside(layer, given), *following):
                looks.enter_context(look)
            outputs = layer.call(*keras.tree.map_structure(cast, arguments), **keras.tree.map_structure(cast, keywords))
        if scope.state_mapping:
            raise Unsupported("its call assigns to a variable", "keep what it counts out of the network")
        if not all(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(outputs)):
            raise Unsupported("it returns something that is no tensor computed from its inputs", OPS)
        return Function([*tensors, *hung[0], *places, *constants.places], outputs)
    except Unsupported:
        raise
    except Exception as e:  # as the user's own code fails
        raise Unsupported(f"its call cannot be followed: {_said(e)}", OPS) from e


def _said(error: Exception) -> str:
    words = " ".join(str(error).split())
    if "has no attribute 'assign" in words:
        return "it assigns to a variable"
    if "cannot be used as input to a TensorFlow function" in words:
        return "it calls a function of TensorFlow itself"
    if "A KerasTensor is symbolic" in words:
        return "it asks for the numbers of a tensor or a weight"
    return f"{type(error).__name__}: {words if len(words) < 200 else words[:200].rpartition(' ')[0] + ' ...'}"


def _own_variables(layer) -> list[keras.Variable]:
    """The variables that a layer holds itself; those of the layers inside it are theirs, seeds no one computes with."""
    theirs = {id(v) for x in layer._flatten_layers(include_self=False) for v in x.variables}
    theirs |= {id(x.state) for x in layer._seed_generators}
    return [v for v in layer.variables if id(v) not in theirs]


def _inner_variables(layer) -> list[keras.Variable]:
    """The variables of the layers inside a layer, with which its `call` may compute itself: a table that is a head."""
    seeds = {id(g.state) for x in layer._flatten_layers() for g in x._seed_generators}
    found = {id(v): v for x in layer._flatten_layers(include_self=False) for v in x.variables}
    own = {id(v) for v in _own_variables(layer)}
    return [v for i, v in found.items() if i not in seeds | own]


@contextlib.contextmanager
def _swapped_inside(layer, given: dict[int, Any]) -> Iterator[None]:
    """Put tensors in the place of variables of the layers inside a layer, but while one of them is called."""
    inside = {id(x): x for x in layer._flatten_layers(include_self=False)}
    held = []  # attributes of a layer, the name of one, what it is and what stands for it
    for x in inside.values():
        held += [(vars(x), k, v, new) for k, v in list(vars(x).items()) if (new := _placed(v, given)) is not v]
    calls, call = [], keras.Layer.__call__

    def put(back: bool) -> None:
        for attributes, name, variable, new in held:
            have, other = (new, variable) if back else (variable, new)
            if attributes.get(name) is have:  # else `call` has put something else there
                attributes[name] = other

    def called(self, *arguments, **keywords):
        entered = id(self) in inside and not calls
        given = keras.tree.flatten((arguments, keywords))
        if entered and self.variables and not any(isinstance(x, keras.KerasTensor) for x in given):
            arguments = [keras.ops.convert_to_tensor(x) if isinstance(x, np.ndarray) else x for x in arguments]
            return self.call(*arguments, **keywords)  # of constants: computed, they would be a constant, too
        if entered:
            calls.append(self)
            put(back=True)
        try:
            return call(self, *arguments, **keywords)
        finally:
            if entered:
                calls.pop()
                put(back=False)

    with mock.patch.object(keras.Layer, "__call__", called):
        put(back=False)
        try:
            yield
        finally:
            put(back=True)


def _placed(x, given: dict[int, Any]):
    """An attribute of a layer with tensors in the place of variables, in lists and dictionaries, too."""
    if id(x) in given:
        return given[id(x)]
    if isinstance(x, dict):
        made = {k: _placed(v, given) for k, v in x.items()}
        return made if any(made[k] is not v for k, v in x.items()) else x
    if isinstance(x, list | tuple):
        made = [_placed(v, given) for v in x]
        same = all(a is b for a, b in zip(made, x, strict=True))
        return x if same else tuple(made) if isinstance(x, tuple) else made
    return x


@contextlib.contextmanager
def _swapped(layer, given: dict[int, Any]) -> Iterator[None]:
    """Put tensors in the place of variables among the attributes of a layer."""
    held = dict(vars(layer))
    try:
        vars(layer).update({k: _placed(v, given) for k, v in held.items()})
        yield
    finally:
        vars(layer).clear()
        vars(layer).update(held)


def _read(layer, function: Function, own: list, places: list) -> tuple[list, list[keras.Variable]]:
    """Those of a layer's own variables that its graph reads, and the weights that are neither these nor called for."""
    read, called = {id(x) for x in function.outputs}, set()
    for node in nodes(function):
        read.update(id(x) for x in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)))
        if isinstance(node.operation, keras.Layer):
            called.update(id(v) for v in node.operation.variables)
    seen = {id(v) for v, x in zip(own, places, strict=True) if id(x) in read}
    lost = [v for v in layer.trainable_variables if id(v) not in seen | called | read]
    return [v if id(x) in read else None for v, x in zip(own, places, strict=True)], lost


def _text(function: Function) -> str:
    """What a trace computes, but for the mode that layers inside it are called in."""
    numbers: dict[int, int] = {}

    def plain(x):
        if isinstance(x, dict):
            return {k: plain(v) for k, v in sorted(x.items()) if k != "training"}
        if isinstance(x, list | tuple):
            return [plain(v) for v in x]
        if isinstance(x, keras.KerasTensor):
            return f"%{numbers.setdefault(id(x), len(numbers))}"
        array = x.numpy() if hasattr(x, "numpy") else x  # a bfloat16 without axes has no __array__
        return [str(x.dtype), np.asarray(array).tolist()] if hasattr(x, "dtype") else str(x)

    lines = [plain(function.inputs)]
    for node in nodes(function):
        layer = isinstance(node.operation, keras.Layer)
        own = id(node.operation) if layer else [type(node.operation).__name__, _options(node.operation)]
        lines.append([own, plain(node.arguments.args), plain(node.arguments.kwargs), plain(node.outputs)])
    return repr([*lines, plain(keras.tree.flatten(function._outputs_struct))])


def _options(operation) -> dict[str, str]:
    """What a function of keras.ops was given beside its tensors."""
    return {k: str(v) for k, v in vars(operation).items() if not k.startswith("_") and k != "name"}
