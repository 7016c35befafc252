"""keras.Model -> Graph.

`walk` visits every layer call of a functional or Sequential model in the order of execution, nested
models included. The reader visits it with plain data and asks the rules; `run` visits it with tensors.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from bridge import composed, rules
from bridge.graph import BridgeError, Graph, Node, Obstacle, Parameter, Unsupported, Value, chain
from bridge.rules import KerasLayer, rescaling
from bridge.simplify import simplify
from bridge.tensors import held

FLOATS = {"bfloat16", "float16", "float32", "float64"}


def functional(model):
    """The graph of layers that a model is or, for a Sequential, has."""
    return model._functional if isinstance(model, keras.Sequential) else model


def is_functional(model) -> bool:
    """Tell whether a model is a graph of layers: functional, or Sequential and built."""
    own = (keras.src.models.Functional, keras.Sequential)
    if not isinstance(model, own) or not getattr(model, "inputs", None):
        return False
    return type(model).call in [kind.call for kind in own]  # another `call` may do anything


@dataclass
class Call:
    """One call of a layer or operation; `label` is its path, numbered from the second call of the same layer on.

    `scope` has the labels of the nested models around it.
    """

    path: str
    label: str
    operation: Any
    node: Any  # Keras' own record of the call
    arguments: Any
    keywords: dict[str, Any]
    scope: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The names of the outputs as the graph has them."""
        return [self.label if i == 0 else f"{self.label}:{i}" for i in range(len(self.node.outputs))]


def walk(
    model,
    inputs: list,
    visit: Callable[[Call], list],
    prefix: str = "",
    training: bool | None = None,
    used: set[str] | None = None,
    scope: tuple[str, ...] = (),
):
    """Run through a model's graph of layers with anything in the place of tensors.

    Args:
        model: A functional or Sequential `keras.Model`.
        inputs: What stands for each of `model.inputs`, in their order.
        visit: Takes a `Call` and returns what stands for its outputs, as a flat list.
        prefix: The path of the model itself, ending in a dot, where it is nested.
        training: The `training` argument that an enclosing model was called with.
        used: The labels given so far.
        scope: The labels of the enclosing models.

    Returns:
        The model's outputs, in its own structure.
    """
    function = functional(model)
    known = dict(zip(map(id, keras.tree.flatten(function.inputs)), inputs, strict=True))
    used = set(input_names(model)) if used is None else used

    def lookup(x):
        return known[id(x)] if isinstance(x, keras.KerasTensor) else x

    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.is_input or id(node.outputs[0]) in known:
                continue
            operation, path = node.operation, prefix + node.operation.name
            arguments, keywords = keras.tree.map_structure(lookup, (node.arguments.args, node.arguments.kwargs))
            if (
                keywords.get("training") is None
                and training is not None
                and getattr(operation, "_call_has_training_arg", False)
            ):
                keywords["training"] = training
            enters = is_functional(operation) and not composed.known(operation)
            if enters and (inner := _entering(operation, node.arguments, arguments, keywords)):
                label = _unique(path, used)
                used.add(label)
                outputs = walk(operation, inner, visit, path + ".", keywords.get("training"), used, (*scope, label))
                outputs = keras.tree.flatten(outputs)
            else:
                label = _unique(path, used)
                used.add(label)
                outputs = visit(Call(path, label, operation, node, arguments, keywords, scope))
            known.update(zip(map(id, node.outputs), outputs, strict=True))
    return keras.tree.map_structure(lookup, function._outputs_struct)


def _entering(model, recorded, arguments, keywords) -> list | None:
    """What goes into a nested model, in the order of its inputs; None where Keras would change it on the way.

    Args:
        model: The nested model.
        recorded: Keras' record of the call's arguments.
        arguments: What stands for them now.
        keywords: The same, by name.
    """
    inputs = functional(model)._inputs_struct

    def ordered(args, kwargs):
        given = args[0] if args else kwargs["inputs"]
        if isinstance(given, dict) and not isinstance(inputs, dict):  # Keras goes by the names, whatever else is there
            given = [given[t.name] for t in keras.tree.flatten(inputs)]
        return keras.tree.flatten(given)

    given, wanted = ordered(recorded.args, recorded.kwargs), keras.tree.flatten(inputs)
    kinds = [[(len(t.shape), t.dtype) for t in side] for side in (given, wanted)]
    masked = any(m is not None for m in keras.tree.flatten(recorded.kwargs.get("mask")))
    return ordered(arguments, keywords) if kinds[0] == kinds[1] and not masked else None


def input_names(model) -> list[str]:
    """The names of a model's inputs; a KerasTensor's own name is another in each process."""
    return [t._keras_history.operation.name for t in keras.tree.flatten(functional(model).inputs)]


def _unique(name: str, taken) -> str:
    """A name that is not in `taken`, without the characters by which the graph names what belongs to a layer."""
    name = re.sub("[#:@]", "_", name)
    unique, n = name, 1
    while unique in taken:
        n += 1
        unique = f"{name}#{n}"
    return unique


def run(model, inputs: list, twin=None, training: bool = False) -> tuple[Any, dict[str, np.ndarray]]:
    """Run a model and return its outputs, in its own structure, and every value by its name in the graph.

    Args:
        model: A functional or Sequential `keras.Model`.
        inputs: An array or tensor for each of `model.inputs`, in their order.
        twin: A `bridge.twin.Twin`, whose layers do the work in place of the model's own.
        training: Run as in a training step, whatever a layer was called with, as Keras' `fit` does.
    """
    seen = {}

    def visit(call: Call):
        keywords = dict(call.keywords)
        if isinstance(call.operation, keras.Layer) and call.operation._call_has_training_arg:
            keywords["training"] = training or bool(keywords.get("training"))
        operation = twin.layer(call.operation, call.arguments, keywords) if twin else call.operation
        outputs = keras.tree.flatten(operation(*call.arguments, **keywords))
        arrays = [np.asarray(t.numpy()) for t in outputs]  # a bfloat16 without axes has no __array__
        seen.update(zip(call.names(), arrays, strict=True))
        return outputs

    wanted = keras.tree.flatten(functional(model).inputs)
    dtypes = [twin.dtype if twin and twin.dtype and "float" in t.dtype else t.dtype for t in wanted]
    tensors = [keras.ops.convert_to_tensor(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
    outputs = walk(model, tensors, visit)
    return outputs, seen | dict(zip(input_names(model), inputs, strict=True))


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
            "write a subclassed model with `keras.Model(inputs, outputs)`"
        )
    graph = Graph(model.name, [], None, [], {}, channels="last")
    names = {} if names is None else names
    trained = set(map(id, model.trainable_variables))  # a frozen model trains none, whatever its layers say
    refuse = obstacles is None
    obstacles = [] if refuse else obstacles

    def visit(call: Call):
        specifications = zip(call.names(), _specifications(call), strict=True)
        outputs = [Value(n, tuple(t.shape), t.dtype) for n, t in specifications]
        try:
            layer = _layer(call, outputs)
            layer.parameters = graph.parameters
            layer.weights = _weights(call.path, call.operation, names, graph.parameters, values, trained)
            rule = rules.for_keras(layer.class_name)
            if rule is None:
                raise Unsupported("there is no rule for this class", _remedy(call.operation))
            casts = _casts(layer)
            nodes = rule.read_keras(layer)
            read = {name for node in nodes for name in node.parameters.values()}
            held = getattr(rule, "WEIGHTS", {role for role, name in layer.weights.items() if name in read})
            lost = set(layer.weights) - {*held, *getattr(rule, "IDLE", ())}
            if lost:
                raise Unsupported(f"its weights {', '.join(sorted(lost))} have no place in the other framework")
            nodes = [*casts, *chain(nodes, layer.inputs, outputs)]
            graph.nodes += [replace(n, scope=call.scope) for n in nodes]
            graph.notes += _unseen(call.path, layer.config)
        except Unsupported as e:
            obstacles.append(Obstacle(call.path, type(call.operation).__name__, e.reason, e.remedy))
        return outputs

    inputs = [(n, tuple(t.shape), t.dtype) for n, t in zip(input_names(model), functional(model).inputs, strict=True)]
    if isinstance(model, keras.Sequential):  # built on data, it has recorded the batch of that data
        inputs = [(n, (None, *shape[1:]), dtype) for n, shape, dtype in inputs]
    graph.inputs = [Value(*x) for x in inputs]
    graph.outputs = walk(model, graph.inputs, visit)
    if obstacles and refuse:
        raise BridgeError(f"{model.name} has {len(obstacles)} layer(s) that cannot be carried:", obstacles)
    return graph if obstacles else simplify(graph)  # what leads to an obstacle is there to be seen


def _specifications(call: Call) -> list:
    """The outputs of a call: as Keras recorded them or, inside a model that is called at other sizes, worked out."""
    recorded = keras.tree.flatten((call.node.arguments.args, call.node.arguments.kwargs))
    given = keras.tree.flatten((call.arguments, call.keywords))
    if all(tuple(a.shape) == b.shape for a, b in zip(recorded, given, strict=True) if isinstance(b, Value)):
        return call.node.outputs

    def symbolic(x):
        return keras.KerasTensor(x.shape, x.dtype) if isinstance(x, Value) else x

    arguments, keywords = keras.tree.map_structure(symbolic, (call.arguments, call.keywords))
    return keras.tree.flatten(call.operation.compute_output_spec(*arguments, **keywords))


def _layer(call: Call, outputs: list[Value]) -> KerasLayer:
    """Describe a layer call as plain data; anything that a rule could overlook is refused here."""
    operation = call.operation
    is_layer = isinstance(operation, keras.Layer)
    if type(operation).__module__.split(".")[0] != "keras":
        raise Unsupported("it is a class of the user's own, for which there is no rule")
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
    if config.get("data_format") == "channels_first" and config.get("use_bias"):  # it is added by keras.ops.add
        shape = outputs[0].shape
        rescaling.refuse_biased(shape, (1, shape[1], *[1] * (len(shape) - 2)))
    flat = keras.tree.flatten(call.arguments)
    extra = [a for a in flat if not isinstance(a, Value) and a is not None]
    given = {k: v for k, v in call.keywords.items() if any(x is not None for x in keras.tree.flatten(v))}
    extra += [f"{k}={v}" for k, v in given.items() if k != "training"]
    if extra and is_layer:
        masked = any(k.endswith("mask") for k in given)
        remedy = "masks are not carried: leave Masking and mask_zero out" if masked else ""
        raise Unsupported(f"it is called with {', '.join(map(str, extra))}", remedy)
    arguments = {k: v for k, v in call.keywords.items() if v is not None}
    if not is_layer:
        arguments = dict(inspect.signature(operation.call).bind(*call.arguments, **call.keywords).arguments)
    kind = type(operation).__name__ if is_layer else f"ops.{type(operation).__name__}"
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
    policy = call.operation.dtype_policy
    given = [a.dtype for a in keras.tree.flatten(call.arguments) if isinstance(a, Value)]
    used = {d for d in given if "float" in d} | {policy.compute_dtype, policy.variable_dtype}
    if getattr(policy, "quantization_mode", None) or not used <= FLOATS:
        raise Unsupported(
            f"its dtype policy is {policy.name} with inputs of {', '.join(sorted(set(given)))}",
            f"rebuild the model with one of {', '.join(sorted(FLOATS))}, mixed_float16 and mixed_bfloat16",
        )
    kind = type(call.operation).__name__
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
    found += [k for k in ("l1", "l2", "mask_zero", "synchronized") if config.get(k)]
    return [f"{path}: {k} belongs to Keras' training; the torch module does not have it" for k in found]


def _weights(path, layer, names, parameters, values, trained) -> dict[str, str]:
    """Record a layer's variables once each; return the layer's own names for them."""
    found = {}

    def own(variable):
        parts = variable.path.split("/")
        if layer.name in parts[:-1]:
            return "/".join(parts[len(parts) - 1 - parts[-2::-1].index(layer.name) :])
        return variable.name

    several = composed.roles(layer) if is_functional(layer) else {own(v): v for v in getattr(layer, "weights", ())}
    for role, variable in several.items():
        if id(variable) not in names:
            names[id(variable)] = name = _unique(f"{path}.{role}", parameters)
            parameters[name] = Parameter(values(variable), id(variable) in trained)
        found[role] = names[id(variable)]
    return found


def _remedy(operation) -> str:
    if type(operation).__name__ == "Lambda":
        return "replace it by a layer, or by functions of keras.ops on the tensors"
    if is_functional(operation):
        return "a model inside another must be called with its inputs' number, rank and dtype, and without a mask"
    return "`bridge rules` lists what is supported"
