"""Graph -> functional keras.Model."""

import contextlib
import inspect
import operator
import warnings
from dataclasses import replace
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras.src import backend

from bridge import call_order, composed, rules
from bridge.graph import BridgeError, Graph, Node, Obstacle, Unsupported, flatten, map_structure
from bridge.rules import KerasCall
from bridge.tensors import owned, tensor, torch_to_tf


def write(graph: Graph) -> keras.Model:
    """Build a functional Keras model from a graph with channels last.

    Args:
        graph: What `layout.convert(graph, "last")` returned.

    Returns:
        A model with real layers, named after the nodes, that holds the graph's weights.

    Raises:
        BridgeError: Lists every node that Keras cannot hold.
    """
    graph, plans, obstacles = call_order.in_order(graph), [], []
    for node in graph.nodes:
        try:
            node = getattr(rules.for_operator(node.operator), "arranged", lambda node: node)(node)
            _policy(node, graph)
            plans.append((node, rules.for_operator(node.operator).write_keras(node), _trainable(node, graph)))
        except Unsupported as e:
            obstacles.append(Obstacle(node.name or "model", node.operator, e.reason, e.remedy))
    if obstacles:
        raise BridgeError(f"{graph.name} has {len(obstacles)} node(s) that Keras cannot hold:", obstacles)
    still = [node.name for node, _, trainable in plans if node.attributes.get("frozen") is False and not trainable]
    if still:
        warnings.warn(
            f"the parameters of {len(still)} layer(s) are frozen, but in training they take the statistics of the "
            "batch; a frozen Keras layer takes its moving statistics there and leaves them as they are: "
            + ", ".join(still[:5]),
            stacklevel=3,
        )
    plans = _fuse(_pad_apart(plans), graph)
    _check_shared(plans, graph)
    taken: set[str] = set()
    tensors = {v.name: keras.Input(batch_shape=v.shape, dtype=v.dtype, name=_name(v.name, taken)) for v in graph.inputs}
    inputs = [tensors[v.name] for v in graph.inputs]
    layers: dict[tuple, Any] = {}
    ones: dict[str, Any] = {}
    owner = {v.name: v.name for v in graph.inputs}  # value -> the layer that made it, to name what has no name
    for node, calls, trainable in plans:
        if node.operator == "constant":  # an array in the place of a tensor
            tensors[node.outputs[0].name] = owned(graph.parameters[node.parameters["value"]].value)
            continue
        x = [tensors[v.name] for v in node.inputs]
        x = x[0] if len(x) == 1 else x or _one(inputs, node.outputs[0].dtype, ones, taken)
        read = next((owner[v.name] for v in node.inputs if v.name in owner), "")
        for call in calls:
            call = _with_constants(call, node, graph)
            key, given = _identity(node, call), x[0] if call.first else x
            if key in layers:
                made = _called(layers[key], call, given)
            else:
                base = node.name or f"{read}_{node.operator}"
                layer = layers[key] = _layer(base, _policy(node, graph), call, trainable, taken, given)
                with _given(layer, node, graph) if call.weights else contextlib.nullcontext(set()) as have:
                    made = _called(layer, call, given)
                if call.weights:
                    _assign(layer, node, graph, have)
            x = [made, *x[1:]] if call.first else made
        owner |= dict.fromkeys([v.name for v in node.outputs], node.name or read)
        tensors.update(zip([v.name for v in node.outputs], x if isinstance(x, (list, tuple)) else [x], strict=True))
    return keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        map_structure(lambda v: tensors[v.name], graph.outputs),
        name=_name(graph.name, set()),
    )


def _called(layer, call: KerasCall, given):
    """What a layer makes of its inputs, of which the last may go by names."""
    if not call.names or not isinstance(layer, keras.Layer):
        return layer(given)
    given = keras.tree.flatten(given)
    by_place = len(given) - len(call.names)
    named: dict[str, Any] = {}
    for name, x in zip(call.names, given[by_place:], strict=True):
        if name.endswith("[]"):
            named.setdefault(name[:-2], []).append(x)
        else:
            named[name] = x
    made = layer(*([given[0] if by_place == 1 else given[:by_place]] if by_place else []), **named)
    return keras.tree.map_structure(_unmasked, made)


def _unmasked(x):
    """A tensor without the mask that a layer hangs on what it makes: what takes a mask here is given it."""
    return x if backend.get_keras_mask(x) is None else keras.ops.get_item(x, (slice(None),))


def _one(inputs: list, dtype: str, ones: dict[str, Any], taken: set[str]):
    """A one of shape (1, 1), for the layers that multiply it by their weight; its value depends on no input's."""
    if dtype not in ones:
        x, ops = inputs[0], keras.ops
        for step in (lambda x: ops.cast(x, dtype), ops.sum, ops.ones_like, lambda x: ops.reshape(x, (1, 1))):
            x = step(x)
            x._keras_history.operation.name = _name("one", taken)
        ones[dtype] = x
    return ones[dtype]


def _identity(node: Node, call: KerasCall) -> tuple:
    """Two calls are of one layer if they share their parameters, or have none and the same module's name."""
    shared = _parameters(node) if call.weights else ()
    own = ("module", node.name) if node.name else ("value", node.outputs[0].name)  # which may have the same name
    return (node.operator, repr(call), shared or own)


def _parameters(node: Node) -> tuple:
    return tuple(sorted(node.parameters.items()))


def _forms(plans) -> dict[tuple, set[str]]:
    """Map the parameters of each layer to what it would be at its calls, which is one thing if it can be one layer."""
    forms: dict[tuple, set[str]] = {}
    for node, calls, _ in plans:
        forms.setdefault(_parameters(node), set()).add(repr(calls[-1:]))
    return forms


def _pad_apart(plans) -> list:
    """Take the padding out of a layer whose calls differ in it: what is "same" at one size is not at the next."""
    forms, apart = _forms(plans), []
    for node, calls, trainable in plans:
        if node.parameters and "pads" in node.attributes and len(forms[_parameters(node)]) > 1:
            explicit = replace(node, attributes={**node.attributes, "explicit": True})
            calls = rules.for_operator(node.operator).write_keras(explicit)
        apart.append((node, calls, trainable))
    return apart


def _fuse(plans, graph: Graph) -> list:
    """Put an activation that has no layer of its own into the convolution or Dense before it, as Keras can."""
    consumers = graph.consumers()
    leaving = {v.name for v in flatten(graph.outputs)}
    fused: dict[int, list[KerasCall]] = {}  # position -> the calls with the activation
    for i, ((node, calls, _), (after, after_calls, _)) in enumerate(pairwise(plans)):
        alone = consumers.get(node.outputs[0].name, []) == [after] and node.outputs[0].name not in leaving
        if (
            alone
            and not after.name
            and [c.layer for c in after_calls] == ["Activation"]
            and calls
            and calls[-1].weights
            and getattr(rules.for_operator(node.operator), "FUSES", False)
        ):
            fused[i] = [*calls[:-1], replace(calls[-1], config={**calls[-1].config, **after_calls[0].config})]
    # a layer that is called several times has one activation
    forms = _forms((node, fused.get(i, calls), trainable) for i, (node, calls, trainable) in enumerate(plans))
    fused = {i: calls for i, calls in fused.items() if len(forms[_parameters(plans[i][0])]) == 1}
    return [
        (replace(node, outputs=plans[i + 1][0].outputs), fused[i], trainable)
        if i in fused
        else (node, calls, trainable)
        for i, (node, calls, trainable) in enumerate(plans)
        if i - 1 not in fused
    ]


def _check_shared(plans, graph: Graph) -> None:
    """Refuse what Keras cannot tie: it shares whole layers, not single weights."""
    holders: dict[str, tuple] = {}
    obstacles = []
    for node, calls, _ in plans:
        for call in calls:
            for name in node.parameters.values() if call.weights else ():
                if holders.setdefault(name, _identity(node, call)) != _identity(node, call):
                    reason = f"its weight {name} is also another layer's, and Keras shares whole layers only"
                    obstacles.append(
                        Obstacle(
                            node.name or "model", node.operator, reason, "use one module in both places, or untie them"
                        )
                    )
    if obstacles:
        raise BridgeError(
            f"{graph.name} has {len(obstacles)} node(s) that Keras cannot hold:", list(dict.fromkeys(obstacles))
        )


def _name(text: str, taken: set[str]) -> str:
    """A name that Keras and TensorFlow's scopes accept and that is new."""
    text = (
        "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text)[:200].lstrip("_-/.") or "layer"
    )
    unique, n = text, 1
    while unique in taken:
        unique, n = f"{text}_{n}", n + 1
    taken.add(unique)
    return unique


def _with_constants(call: KerasCall, node: Node, graph: Graph) -> KerasCall:
    """Put the arrays that a call has in its configuration there: copies, as what was read may change."""
    arrays = {
        entry: np.array(rules.to_torch_axes(graph.parameters[node.parameters[role]].value, pattern))
        for entry, (role, pattern) in call.constants.items()
    }
    first = arrays.pop("x1", None)  # given before the inputs
    call = call if first is None else replace(call, leading=(first, *call.leading))
    return replace(call, config=call.config | arrays) if arrays else call


def _policy(node: Node, graph: Graph) -> str:
    """The dtype policy of a node's layers: the dtype that they make, or the mixed policy of it."""
    made = node.outputs[0].dtype
    held = {graph.parameters[p].value.dtype.name for p in node.parameters.values()}
    held = {d for d in held if "float" in d} - {made}
    if not held or "float" not in made:
        return made
    if held == {"float32"} and made in ("bfloat16", "float16"):
        return f"mixed_{made}"
    raise Unsupported(
        f"it computes in {made} with weights of {', '.join(sorted(held))}",
        "keep its weights in the dtype that it computes in; Keras converts float32 to bfloat16 or float16 alone",
    )


def _layer(base: str, dtype: str, call: KerasCall, trainable: bool, taken: set[str], given=None):
    """Make a layer, or the function of keras.ops with its options; `given` is what it is first called with."""
    own = isinstance(call.layer, type)
    if not own and call.layer.startswith("ops."):
        function = operator.attrgetter(call.layer.removeprefix("ops."))(keras.ops)

        def apply(x):
            inputs = x if isinstance(x, list) else [x]
            by_place = len(inputs) - len(call.names)
            named = dict(zip(call.names, inputs[by_place:], strict=True))
            result = function(*call.leading, *inputs[:by_place], *call.trailing, **named, **call.config)
            keras.tree.flatten(result)[0]._keras_history.operation.name = _name(base + call.suffix, taken)
            return result

        return apply
    if not own and call.layer.startswith("model."):
        name = call.layer.removeprefix("model.")

        def model(x):
            return composed.made(name, call.config, keras.tree.flatten(x), _name(base + call.suffix, taken))

        return model(given) if call.weights else lambda x: model(x)(x)
    config = {
        k: _layer(base, dtype, replace(v, suffix="_layer"), trainable, set()) if isinstance(v, KerasCall) else v
        for k, v in call.config.items()
    }
    config |= {"dtype": dtype} if "float" in dtype else {}
    kind = call.layer if own else getattr(keras.layers, call.layer)
    if "data_format" in inspect.signature(kind).parameters:  # whatever Keras is set to
        config["data_format"] = "channels_last"
    layer = kind(**config, name=_name(base + call.suffix, taken))
    layer.trainable = trainable
    return layer


@contextlib.contextmanager
def _given(layer, node: Node, graph: Graph):
    """Let a layer's weights begin as the graph's arrays; yields the set of those that did.

    What its own initializers draw would be thrown away, and while it is, two copies of a weight are in memory.
    """
    own = {role: vars(layer).get(f"{role}_initializer") for role in node.parameters}
    own = {role: initializer for role, initializer in own.items() if initializer is not None}
    have = set()

    def begin(role):
        parameter = graph.parameters[node.parameters[role]]

        def initializer(shape, dtype=None):
            value = parameter.value
            if value.shape != tuple(shape) or value.dtype.name != dtype:
                return own[role](shape, dtype=dtype)
            have.add(role)
            return torch_to_tf(tensor(value if parameter.own else owned(value)))

        return initializer

    try:
        for role in own:
            setattr(layer, f"{role}_initializer", begin(role))
        yield have
    finally:
        for role, initializer in own.items():
            setattr(layer, f"{role}_initializer", initializer)


def _assign(layer, node: Node, graph: Graph, have: set[str]):
    """Give a built layer those of the graph's arrays that it does not have, by the layer's own names of its weights."""
    rule = rules.for_operator(node.operator)
    idle = getattr(rule, "IDLE", ())
    several = isinstance(layer, keras.Model) or ":" in rules.class_name(type(layer))  # it has layers of its own
    own = composed.roles(layer) if several else {w.name: w for w in layer.weights}
    if hasattr(rule, "ordered"):
        own = dict(zip(rule.ordered(node), layer.weights, strict=True))
    by_role = {role: w for role, w in own.items() if role in node.parameters or role not in idle}
    if set(by_role) != set(node.parameters):
        raise BridgeError(f"{layer.name} has the weights {sorted(by_role)}, the graph has {sorted(node.parameters)}")
    for role in node.parameters.keys() - have:
        by_role[role].assign(np.asarray(graph.parameters[node.parameters[role]].value))
    if hasattr(layer, "finalize_state"):  # it computes with constants that it makes of its weights
        layer.finalize_state()


def _trainable(node: Node, graph: Graph) -> bool:
    """Keras trains a layer as a whole or not at all, and a frozen one works with its statistics in training too."""
    statistics = getattr(rules.for_operator(node.operator), "STATISTICS", ())
    flags = {role: graph.parameters[p].trainable for role, p in node.parameters.items() if role not in statistics}
    if len(set(flags.values())) > 1:
        raise Unsupported(
            f"of its parameters {[r for r, t in flags.items() if t]} are trained and "
            f"{[r for r, t in flags.items() if not t]} are not, but Keras trains a layer as a whole",
            "freeze all of the module's parameters or none",
        )
    frozen, trained = node.attributes.get("frozen"), all(flags.values())
    if frozen and flags and trained:
        raise Unsupported("its statistics stand still and its parameters are trained", "freeze its parameters, too")
    return trained if flags else not frozen
