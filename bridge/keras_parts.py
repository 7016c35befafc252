"""Functions of keras.ops in the words of others, for the rules: what decomposition.py is for operators of torch.

A rule says a function once more, in functions that have rules. That is traced on tensors such as the layer's, and read
as any model is. So it says no more than Keras can, and whether it is the same is seen by running both.
"""

from collections.abc import Callable
from dataclasses import replace

from bridge.graph import BridgeError, Node, Unsupported, Value, flatten, map_structure
from bridge.layout import identity
from bridge.rules import KerasLayer


def read(layer: KerasLayer, parts: dict[str, Callable]) -> list[Node]:
    """Nodes for a function of keras.ops.

    Args:
        layer: Its call.
        parts: Class name ("ops.Hstack") -> function of keras.ops, the operation and its arguments in their order, that
            returns what the operation does.

    Raises:
        Unsupported: The first part that cannot be carried, or one that makes something else than Keras says.
    """
    import keras

    from bridge import keras_reader

    values = {v.name: v for v in flatten(list(layer.arguments.values())) if isinstance(v, Value)}
    if not values:
        raise Unsupported("it is computed from constants alone", "compute it beforehand")
    inputs = {
        name: keras.Input(batch_shape=v.shape, dtype=v.dtype, name=f"input{i}")
        for i, (name, v) in enumerate(values.items())
    }

    def symbolic(x):
        return inputs[x.name] if isinstance(x, Value) else x

    # a `None` is an argument, too
    arguments = [x if x is None else map_structure(symbolic, x) for x in layer.arguments.values()]
    function = parts[layer.class_name]
    made = keras.tree.flatten(function(keras.ops, layer.operation, *arguments))
    for have, want in zip(made, layer.outputs, strict=True):
        if have.dtype != want.dtype:
            given = ", ".join(sorted({v.dtype for v in values.values()}))
            raise Unsupported(
                f"it makes {want.dtype} of {given}", f"convert them before: keras.ops.cast(x, {want.dtype!r})"
            )
        if len(have.shape) != len(want.shape):
            raise Unsupported(f"Keras says that it makes {want.shape}, and makes {tuple(have.shape)}")
    try:
        graph = keras_reader.read(keras.Model(list(inputs.values()), made))
    except BridgeError as e:
        raise Unsupported(e.obstacles[0].reason, e.obstacles[0].remedy) from e
    return _nodes(layer, graph, list(values.values()))


def _nodes(layer: KerasLayer, graph, given: list[Value]) -> list[Node]:
    """The nodes of a graph between a layer's own inputs and outputs."""
    prefix, outputs = layer.outputs[0].name, list(flatten(graph.outputs))
    known = {v.name: mine for v, mine in zip(graph.inputs, given, strict=True)}
    nodes = list(graph.nodes)
    for have, want in zip(outputs, layer.outputs, strict=True):
        if have.name in known:  # an input, or what is an output already
            same = {"permutation": identity(have.rank)}
            nodes.append(Node("permute", same, inputs=[known[have.name]], outputs=[want]))
        known.setdefault(have.name, want)
    held = {name: layer.constant(f"constant{i}", p.value) for i, (name, p) in enumerate(graph.parameters.items())}
    for name, mine in held.items():
        layer.parameters[mine].rounding = graph.parameters[name].rounding

    def own(value: Value) -> Value:
        done = value if value in layer.outputs or value in given else None
        return done or known.get(value.name) or replace(value, name=f"{prefix}:{value.name}")

    made = []
    for node in nodes:
        ends = any(v in layer.outputs for v in map(own, node.outputs))
        parameters = {role: held[name] for role, name in node.parameters.items()}
        named = bool(parameters) or node.operator in ("constant", "take")
        name = layer.path if ends else f"{layer.path}.{node.name}" if named else ""
        made.append(
            replace(
                node,
                name=name,
                inputs=[own(v) for v in node.inputs],
                outputs=[own(v) for v in node.outputs],
                parameters=parameters,
                scope=(),
            )
        )
    return made
