"""Small models of keras.ops that stand for what Keras lacks (a rule's MODELS), and how they are known again.

Such a model is one layer of the network that it is in, and is saved as any nested model is. What it is does not hang on
its name: it is what the rule's function makes of the same inputs with the same options.
"""

import functools

import keras
import numpy as np

from bridge import rules


def made(name: str, options: dict, tensors: list, title: str | None = None):
    """Make the model of a name for inputs such as these tensors."""
    inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in tensors]
    outputs = rules.models()[name].MODELS[name](*inputs, **options)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name=title)


def roles(layer) -> dict[str, keras.Variable]:
    """The weights of a layer by its own names for them; of a small model by the names of its layers and theirs."""
    from bridge.models import is_functional
    from bridge.walk import unique

    if is_functional(layer):
        return {f"{part.name}/{w.name}": w for part in layer.layers for w in part.weights}
    found = {}
    for w in getattr(layer, "weights", ()):
        name = _own(layer, w)
        found[name if name not in found else unique(name, found)] = w  # of two layers inside it
    return found


def _own(layer, variable) -> str:
    parts = variable.path.split("/")
    if layer.name in parts[:-1]:
        return "/".join(parts[len(parts) - 1 - parts[-2::-1].index(layer.name) :])
    return variable.name


def known(model) -> tuple[str, dict] | None:
    """Tell whether a functional model is one of these: the name under which a rule reads it, and its options."""
    if len(model.outputs) != 1 or isinstance(model, keras.Sequential):
        return None
    own = None
    for name, rule in rules.models().items():
        for options in _candidates(rule, name, model):
            own = own or _signature(model)
            shapes = tuple((tuple(x.shape), x.dtype) for x in model.inputs)
            if own == _expected(rule.MODELS[name], name, tuple(options.items()), shapes):
                return f"model.{name}", options
    return None


def _candidates(rule, name: str, model) -> list[dict]:
    try:
        return list(rule.options(name, model))
    except Exception:  # a user's model may have anything where ours has what is looked for
        return []


@functools.cache
def _expected(function, name: str, options: tuple, shapes: tuple) -> str:
    try:
        return _signature(made(name, dict(options), [keras.KerasTensor(*x) for x in shapes]))
    except Exception:  # Keras raises many classes: there is no such model of these inputs
        return ""


def _signature(model) -> str:
    """What a model computes, as a text that is the same for all models which compute it in the same way."""
    layers: dict[int, int] = {}  # one with weights -> its number: it may be called twice
    numbers: dict[str, str] = {}  # a call -> its number: a tensor that is used often stays short

    def plain(x):
        if isinstance(x, dict):
            return {k: plain(v) for k, v in sorted(x.items()) if k not in ("name", "trainable")}
        if isinstance(x, (list, tuple)):
            return [plain(v) for v in x]
        return [str(x.dtype), np.asarray(x).tolist()] if hasattr(x, "dtype") else x

    def visit(call):
        try:
            config = call.operation.get_config()
        except NotImplementedError:
            config = {}
        which = layers.setdefault(id(call.operation), len(layers)) if getattr(call.operation, "weights", ()) else None
        text = repr([type(call.operation).__name__, which, *map(plain, (config, call.arguments, call.keywords))])
        number = numbers.setdefault(text, f"%{len(numbers)}")
        return [f"{number}.{i}" for i in range(len(call.node.outputs))]

    from bridge.walk import Walk

    outputs = Walk(visit, lambda v, *_: str(id(v)), masks=None).model(
        model, [f"input{i}" for i in range(len(model.inputs))]
    )
    return repr([list(numbers), outputs])
