"""keras.Model -> Graph: a walk through the model with plain data, which asks the rules."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from bridge import composed, rules, tracing
from bridge.graph import BridgeError, Graph, Node, Obstacle, Parameter, Unsupported, Value, chain
from bridge.keras_attention import kept_sizes
from bridge.models import functional, input_names, is_functional
from bridge.rules import KerasLayer, rescaling, sizes
from bridge.simplify import simplify, with_weights
from bridge.tensors import held
from bridge.walk import TRACES, Call, Walk, unique

FLOATS = {"bfloat16", "float16", "float32", "float64"}


def read(
    model,
    values: Callable[[Any], np.ndarray] = held,
    obstacles: list[Obstacle] | None = None,
    names: dict[int, str] | None = None,
) -> Graph:
    """Read a Keras model into a graph with channels last.

    Args:
        model: A functional or Sequential `keras.Model`.
        values: Function from a `keras.Variable` to the array to record; by default its value.
        obstacles: A list to fill with what cannot be carried, instead of raising.
        names: A dictionary to fill: the id of a variable -> its name among the graph's parameters.

    Returns:
        The graph; its parameters are named `path.role`, such as `down0_conv0.kernel`.

    Raises:
        BridgeError: Lists every layer that no rule can carry.
    """
    if not is_functional(model):
        kind = type(model).__name__
        raise BridgeError(
            f"{getattr(model, 'name', kind)} cannot be read: it must be a functional keras.Model or a Sequential model "
            f"that is built. Received: {kind}. Build a Sequential model with `model.build(input_shape)`; "
            "put a subclassed model into one: `x = keras.Input(shape); keras.Model(x, model(x))`"
        )
    graph = Graph(model.name, [], None, [], {}, channels="last")
    names = {} if names is None else names
    ones: set[str] = set()
    trained = set(map(id, model.trainable_variables))  # a frozen model trains none, whatever its layers say
    refuse = obstacles is None
    obstacles = [] if refuse else obstacles

    def visit(call: Call):
        specifications = zip(call.names(), _specifications(call), strict=True)
        outputs = [Value(n, tuple(t.shape), t.dtype) for n, t in specifications]
        try:
            if call.refused:
                raise call.refused
            layer = _layer(call, outputs)
            layer.parameters, layer.notes, layer.ones = graph.parameters, graph.notes, ones
            layer.weights = _weights(call.path, call.operation, names, graph.parameters, values, trained)
            rule = rules.for_keras(layer.class_name)
            if rule is None:
                raise Unsupported("there is no rule for this class", _remedy(call.operation))
            casts = _casts(layer)
            nodes = _nodes(rule, layer)
            read = {name for node in nodes for name in node.parameters.values()}
            held = getattr(rule, "WEIGHTS", {role for role, name in layer.weights.items() if name in read})
            lost = set(layer.weights) - {*held, *getattr(rule, "IDLE", ())}
            if lost:
                raise Unsupported(f"its weights {', '.join(sorted(lost))} have no place in the other framework")
            nodes = [*casts, *chain(nodes, layer.inputs, outputs)]
            ones.update(sizes.ones_among(nodes, ones))
            graph.nodes += [replace(n, scope=call.scope) for n in nodes]
            graph.notes += _unseen(call.path, layer.config)
        except Unsupported as e:
            obstacles.append(Obstacle(call.path, type(call.operation).__name__, e.reason, e.remedy))
        return outputs

    def variable(v, name, label, scope):
        made = Value(label, tuple(v.shape), v.dtype)
        if v.dtype not in FLOATS:
            obstacles.append(Obstacle(name, "Variable", f"it is computed with, and holds {v.dtype}", "hold floats"))
        held = _record(v, name, names, graph.parameters, values, trained)
        if not made.rank and not graph.parameters[held].pattern:  # EinsumDense has an axis for it
            graph.parameters[held].value = graph.parameters[held].value.reshape(1)
            graph.parameters[held].pattern = "-> 1"
        graph.nodes.append(Node("parameter", {}, {"kernel": held}, name, outputs=[made], scope=scope))
        return made

    inputs = [(n, tuple(t.shape), t.dtype) for n, t in zip(input_names(model), functional(model).inputs, strict=True)]
    if isinstance(model, keras.Sequential):  # built on data, it has recorded the batch of that data
        inputs = [(n, (None, *shape[1:]), dtype) for n, shape, dtype in inputs]
    graph.inputs = [Value(*x) for x in inputs]
    way = Walk(visit, variable)
    graph.outputs = way.model(model, graph.inputs)
    TRACES[model] = way.traces
    graph.notes += way.notes
    obstacles += _lost(way)
    if obstacles and refuse:
        raise BridgeError(f"{model.name} has {len(obstacles)} layer(s) that cannot be carried:", obstacles)
    if obstacles:
        return graph  # what leads to an obstacle is there to be seen
    graph = simplify(graph)
    held = with_weights(graph)
    return graph if held is graph else simplify(held)


def _lost(way: Walk) -> list[Obstacle]:
    """Refuse the weights of layers that were entered of which no call has shown anything."""
    calls: dict[str, tuple[Call, list[str]]] = {}
    for call, variable in filter(None, way.lost.values()):
        calls.setdefault(call.path, (call, []))[1].append(variable.path)
    return [
        Obstacle(
            path,
            type(call.operation).__name__,
            f"its call does not compute with its weights {', '.join(paths)} by keras.ops",
            f"{tracing.OPS}, and leave out those that no call reads",
        )
        for path, (call, paths) in calls.items()
    ]


def _nodes(rule, layer: KerasLayer) -> list[Node]:
    """What a rule makes of a layer; an array that a function of keras.ops cannot hold flows, like a frozen weight."""
    try:
        return rule.read_keras(layer)
    except Unsupported as e:
        refused, flows = e, []

    def flow(x):
        if isinstance(x, Value) or not hasattr(x, "shape") or not hasattr(x, "dtype") or not np.ndim(x):
            return x
        array = np.asarray(x)
        made = Value(f"{layer.outputs[0].name}:constant{len(flows)}", array.shape, array.dtype.name)
        held = {"kernel": layer.constant(f"constant{len(flows)}" if flows else "constant", array)}
        flows.append(Node("parameter", {}, held, held["kernel"], outputs=[made]))
        return made

    mapped = layer.class_name.startswith("ops.") and getattr(rule, "OPERANDS", False)
    arguments = keras.tree.map_structure(flow, layer.arguments) if mapped else {}
    floats = {x.dtype for x in layer.inputs if "float" in x.dtype}
    if not flows or {n.outputs[0].dtype for n in flows} - floats:
        raise refused
    inputs = [x for x in keras.tree.flatten(arguments) if isinstance(x, Value)]
    try:
        nodes = rule.read_keras(replace(layer, arguments=arguments, inputs=inputs))
    except Unsupported as e:
        raise refused from e
    return [*flows, *chain(nodes, inputs, layer.outputs)]


def _specifications(call: Call) -> list:
    """The outputs of a call: as Keras recorded them or, inside a model that is called at other sizes, worked out."""
    recorded, masked = call.node.arguments, call.keywords.keys() - call.node.arguments.kwargs.keys()
    recorded = keras.tree.flatten((recorded.args, recorded.kwargs))
    given = keras.tree.flatten((call.arguments, {k: v for k, v in call.keywords.items() if k not in masked}))
    if all(tuple(a.shape) == b.shape for a, b in zip(recorded, given, strict=True) if isinstance(b, Value)):
        return _of_equation(call, call.node.outputs)

    def symbolic(x):
        return keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Value) else x

    arguments, keywords = keras.tree.map_structure(symbolic, (call.arguments, call.keywords))
    return _of_equation(call, keras.tree.flatten(call.operation.compute_output_spec(*arguments, **keywords)))


def _of_equation(call: Call, made: list) -> list:
    """The outputs with the sizes that EinsumDense keeps of its input, and with cells of an open axis."""
    if type(call.operation).__name__ == "GetItem" and isinstance(call.arguments[0], Value):
        key = call.arguments[1] if isinstance(call.arguments[1], list | tuple) else (call.arguments[1],)
        rank, numbers = len(made[0].shape), all(isinstance(k, slice) for k in key)
        numbers = numbers and all(isinstance(n, int | None) for k in key for n in (k.start, k.stop, k.step))
        if numbers and len(key) <= rank and all(k.step in (None, 1) for k in key):
            counted = len(key) == rank
            cells = [
                (k.stop or 0) - (k.start or 0) if counted and (k.start or 0) >= 0 and k.stop else None for k in key
            ]
            single = [(k.start or 0) + 1 == (k.stop or 0) and k.stop != 0 for k in key]  # from either end
            cells = [1 if one else n for one, n in zip(single, cells, strict=True)] + [None] * (rank - len(key))
            shape = [n if m is None and n and n > 0 else m for n, m in zip(cells, made[0].shape, strict=True)]
            return [keras.KerasTensor(shape, made[0].dtype)]
    if not isinstance(call.operation, keras.layers.EinsumDense):
        return made
    shape = kept_sizes(call.operation.equation, call.arguments[0].shape, made[0].shape)
    return [keras.KerasTensor(shape, made[0].dtype)]


def _layer(call: Call, outputs: list[Value]) -> KerasLayer:
    """Describe a layer call as plain data; anything that a rule could overlook is refused here."""
    operation = call.operation
    is_layer = isinstance(operation, keras.Layer)
    try:
        config = operation.get_config()
    except NotImplementedError:
        config = {}
    for key, said in config.items():
        does = getattr(operation, key, None) if key.endswith("activation") and isinstance(said, str) else None
        if does and does is not keras.src.activations.ALL_OBJECTS_DICT.get(said):
            raise Unsupported(
                f"its {key} is not keras.activations.{said}, though its configuration says so",
                f"give keras.activations.{said}, or make the function a layer of its own",
            )
    if is_layer:
        _check_dtypes(call, outputs)
    plain = hasattr(operation, "cell")  # a recurrent layer adds its bias plainly, others by keras.ops.add
    if config.get("data_format") == "channels_first" and config.get("use_bias") and not plain:
        shape = outputs[0].shape
        rescaling.refuse_biased(shape, (1, shape[1], *[1] * (len(shape) - 2)))
    kind = rules.class_name(type(operation)) if is_layer else f"ops.{type(operation).__name__}"
    carried = getattr(rules.for_keras(kind), "ARGUMENTS", ()) if is_layer else ()
    placed = list(zip(inspect.signature(operation.call).parameters, call.arguments, strict=False)) if carried else []
    keywords = call.keywords | {k: v for k, v in placed if k in carried}
    flat = keras.tree.flatten([v for k, v in placed if k not in carried] if carried else call.arguments)
    named = {k: v for k, v in call.keywords.items() if isinstance(v, Value) and not k.endswith("mask") and ":" in kind}
    if named:  # of a layer of the user's own: tensors in the order of its signature
        bound = inspect.signature(operation.call).bind(*call.arguments, **named)
        flat = keras.tree.flatten(list(bound.arguments.values()))
    extra = [a for a in flat if not isinstance(a, Value) and a is not None]
    given = {k: v for k, v in keywords.items() if any(x is not None for x in keras.tree.flatten(v))}
    extra += [f"{k}={v}" for k, v in given.items() if k not in ("training", *carried, *named)]
    if extra and is_layer:
        masked = any(k.endswith("mask") for k in given)
        remedy = "masks are not carried: leave Masking and mask_zero out" if masked else ""
        raise Unsupported(f"it is called with {', '.join(map(str, extra))}", remedy)
    arguments = {k: v for k, v in keywords.items() if v is not None}
    if not is_layer:
        arguments = dict(inspect.signature(operation.call).bind(*call.arguments, **call.keywords).arguments)
    if is_functional(operation) and (found := composed.known(operation)):
        kind, config = found
    return KerasLayer(
        call.path,
        kind,
        config,
        [a for a in flat if isinstance(a, Value)],
        outputs,
        trainable=getattr(operation, "trainable", True),
        arguments=arguments,
        operation=operation,
    )


def _check_dtypes(call: Call, outputs: list[Value]) -> None:
    """Refuse a layer whose dtypes torch does not have, or that makes floats of whole numbers unasked."""
    policy, kind = call.operation.dtype_policy, rules.class_name(type(call.operation))
    if kind in getattr(rules.for_keras(kind), "REFUSED", ()):  # whatever its dtypes
        return
    given = [a.dtype for a in keras.tree.flatten((call.arguments, call.keywords)) if isinstance(a, Value)]
    used = {d for d in given if "float" in d} | {policy.compute_dtype, policy.variable_dtype}
    if getattr(policy, "quantization_mode", None) or not used <= FLOATS:
        raise Unsupported(
            f"its dtype policy is {policy.name} with inputs of {', '.join(sorted(set(given)))}",
            f"rebuild the model with one of {', '.join(sorted(FLOATS))}, mixed_float16 and mixed_bfloat16",
        )
    casts = kind in getattr(rules.for_keras(kind), "CASTS", ())
    real = any("float" in d for d in given)
    if not real and any("float" in v.dtype for v in outputs) and not is_functional(call.operation) and not casts:
        raise Unsupported(
            f"it makes {outputs[0].dtype} of {', '.join(sorted(set(given)))}",
            "give the model an Input of a float dtype",
        )


def _casts(layer: KerasLayer) -> list[Node]:
    """The conversions that a layer does on its own, of floats to the dtype that it computes in; they become nodes."""
    policy = getattr(layer.operation, "dtype_policy", None)
    if policy is None or not layer.operation.autocast or is_functional(layer.operation):
        return []
    nodes = []
    for i, x in enumerate(layer.inputs):
        if "float" in x.dtype and x.dtype != policy.compute_dtype:
            made = replace(x, name=f"{layer.outputs[0].name}:cast{i}", dtype=policy.compute_dtype)
            nodes.append(Node("cast", {"dtype": policy.compute_dtype}, inputs=[x], outputs=[made]))
            layer.inputs[i] = made
    return nodes


def _unseen(path: str, config: dict) -> list[str]:
    """Say what belongs to Keras' training and is no part of a torch module."""
    found = [k for k, v in config.items() if v is not None and k.endswith(("_regularizer", "_constraint"))]
    found += [k for k in ("l1", "l2", "synchronized") if config.get(k)]
    return [f"{path}: {k} belongs to Keras' training; the torch module does not have it" for k in found]


def _weights(path, layer, names, parameters, values, trained) -> dict[str, str]:
    """Record a layer's variables once each; return the layer's own names for them."""
    found = {}
    for role, variable in composed.roles(layer).items():
        found[role] = _record(variable, f"{path}.{role}", names, parameters, values, trained)
    return found


def _record(variable, name: str, names, parameters, values, trained) -> str:
    """Put a variable among the parameters, once; return its name there."""
    if id(variable) not in names:
        names[id(variable)] = name = unique(name, parameters)
        parameters[name] = Parameter(values(variable), id(variable) in trained)
    return names[id(variable)]


def _remedy(operation) -> str:
    if is_functional(operation):
        return "a model inside another must be called with its inputs' number, rank and dtype"
    return "`bridge rules` lists what is supported"
