"""A visit to every layer call of a Keras model, in the order of execution, with anything in the place of tensors.

Nested models are entered, and so are the layers that no rule knows (`bridge.tracing`). Masks, which Keras hangs on
tensors and which a model's own graph mostly does not show, are arguments here (`bridge.masks`). The reader visits with
plain data and asks the rules; `run` visits with tensors.
"""

import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from bridge import composed, modes, rules, tracing
from bridge.graph import OUTPUT, Unsupported
from bridge.masks import Given, Masks, forget, given_mask
from bridge.models import functional, input_names, is_functional


def unique(name: str, taken) -> str:
    """A name that is not in `taken`, without the characters by which the graph names what belongs to a layer."""
    name = re.sub("[#:@]", "_", name)
    found, n = name, 1
    while found in taken:
        n += 1
        found = f"{name}#{n}"
    return found


@dataclass
class Call:
    """One call of a layer or operation; `label` is its path, numbered from the second call of the same layer on.

    `scope` has the labels of the nested models around it. `refused` says why a layer without a rule was not entered.
    """

    path: str
    label: str
    operation: Any
    node: Any  # Keras' own record of the call
    arguments: Any
    keywords: dict[str, Any]
    scope: tuple[str, ...] = ()
    refused: Unsupported | None = None

    def names(self) -> list[str]:
        """The names of the outputs as the graph has them."""
        return [self.label if i == 0 else f"{self.label}:{i}" for i in range(len(self.node.outputs))]


# model -> what its reader has traced, by Keras' record of a call and the scope: with open sizes, which no run has
TRACES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@dataclass
class Walk:
    """A visit.

    Args:
        visit: Takes a `Call` and returns what stands for its outputs, as a flat list.
        variable: Takes a variable that is computed with, its name, its label and the scope; returns what stands for it.
        masks: None where nothing is to be known of masks.
        used: The labels given so far.
        traces: What has been traced before: a run is through what has been read.
        notes: Sentences on what is left out.
        lost: Each weight of the layers that were entered, by the ids of both: None or, where no call of the layer has
            shown anything of it so far, a call and the weight.
    """

    visit: Callable[[Call], list]
    variable: Callable[[keras.Variable, str, str, tuple[str, ...]], Any]
    masks: Masks | None = field(default_factory=Masks)
    used: set[str] = field(default_factory=set)
    variables: dict[tuple, Any] = field(default_factory=dict)
    traces: dict[tuple, tracing.Trace] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lost: dict[tuple[int, int], tuple[Call, keras.Variable] | None] = field(default_factory=dict)

    def model(self, model, inputs: list):
        """Run through a model's graph; `inputs` are what stands for each of `model.inputs`, in their order.

        Returns:
            The model's outputs, in its own structure.
        """
        self.used.update(input_names(model))
        return self.graph(functional(model), inputs)

    def graph(
        self,
        function,
        inputs: list,
        prefix="",
        training=None,
        scope=(),
        traced=False,
        trained: frozenset[int] = frozenset(),
    ):
        """Run through a graph of layers.

        Args:
            function: The graph.
            inputs: What stands for its inputs.
            prefix: The path of the model itself, ending in a dot, where it is nested.
            training: The `training` argument that an enclosing model was called with.
            scope: The labels of the enclosing models.
            traced: Its functions have been named by Keras just now, by a count that goes on and on.
            trained: The calls in it that are made in training mode, where these are others.
        """
        done: dict[tuple, list] = {}
        known = dict(zip(map(id, keras.tree.flatten(function.inputs)), inputs, strict=True))

        def lookup(x):
            if isinstance(x, keras.Variable):
                return self._variable(x, prefix, scope)
            return known[id(x)] if isinstance(x, keras.KerasTensor) else x

        for node in tracing.nodes(function):
            if id(node.outputs[0]) not in known:
                if trained:  # what is done in both modes is done once
                    given = keras.tree.map_structure(lookup, (node.arguments.args, node.arguments.kwargs))
                    does = modes.signature(node, *given)
                    if isinstance(node.operation, modes.ByMode) and given[0][0] is given[0][1]:
                        done[does] = [given[0][0]]
                    outputs = done.get(does) or self._call(
                        node, lookup, prefix, training, scope, traced, id(node) in trained
                    )
                    done[does] = outputs
                else:
                    outputs = self._call(node, lookup, prefix, training, scope, traced)
                known.update(zip(map(id, node.outputs), outputs, strict=True))
        return keras.tree.map_structure(lookup, function._outputs_struct)

    def _variable(self, variable, prefix: str, scope: tuple[str, ...]):
        key = (id(variable), scope)
        if key not in self.variables:
            name = f"{prefix}{variable.name}"
            label = unique(name, self.used)
            self.used.add(label)
            self.variables[key] = self.variable(variable, name, label, scope)
        return self.variables[key]

    def _call(
        self, node, lookup, prefix: str, training, scope: tuple[str, ...], traced: bool, trained: bool = False
    ) -> list:
        """What stands for the outputs of one call in a graph."""
        operation = node.operation
        is_layer = isinstance(operation, keras.Layer)
        name = type(operation).__name__ if traced and not is_layer else operation.name
        name = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() if traced and not is_layer else name
        arguments, keywords = keras.tree.map_structure(lookup, (node.arguments.args, node.arguments.kwargs))
        if trained and "training" in keywords:  # it is in that mode because all is
            keywords["training"] = None
        if is_layer and operation._call_has_training_arg and keywords.get("training") is None and training is not None:
            keywords["training"] = training
        given = Given(operation, node, lookup) if is_layer and self.masks is not None else None
        if given:
            keywords |= self.masks.taken(given, keywords)
        path = prefix + name
        label = unique(path, self.used)
        self.used.add(label)
        call = Call(path, label, operation, node, arguments, keywords, scope)
        outputs = keras.tree.flatten(self._outputs(call, self.masks.looked_at(given) if given else []))
        if given:
            self.masks.follow(given, keywords.get("mask"), outputs, lambda made, x: self._masks(made, x, call))
        return outputs

    def _masks(self, function, inputs: list, call: Call) -> list:
        return keras.tree.flatten(self.graph(function, inputs, f"{call.label}.mask.", None, call.scope, True))

    def _outputs(self, call: Call, looked_at: list):
        operation, inner = call.operation, (*call.scope, call.label)
        training = call.keywords.get("training")
        if is_functional(operation):
            inputs = _entering(operation, call.node.arguments, call.arguments, call.keywords)
            if inputs and not composed.known(operation):
                for x, mask in zip(inputs, keras.tree.flatten(call.keywords.get("mask")), strict=False):
                    if mask is not None:
                        self.masks.hang(x, given_mask(mask))
                return self.graph(functional(operation), inputs, call.path + ".", training, inner)
        elif tracing.needed(operation, call.keywords) or any(looked_at):
            key = id(call.node), call.scope
            try:
                if key not in self.traces:
                    given = call.arguments, call.keywords, call.node.arguments
                    self.traces[key] = tracing.trace(operation, *given, looked_at)
                made = self.traces[key]
                if made.adds_loss:
                    self.notes.append(
                        f"{call.path}: add_loss belongs to Keras' training; the torch module is without it"
                    )
            except Unsupported as e:
                call.refused = e
            else:
                lost = {id(v) for v in made.lost}
                for v in operation.trainable_variables:
                    if id(v) not in lost:
                        self.lost[id(operation), id(v)] = None
                    self.lost.setdefault((id(operation), id(v)), (call, v))
                tensors = [x for x in keras.tree.flatten((call.arguments, call.keywords)) if tracing.is_tensor(x)]
                hung = [m.tensor for m in looked_at if m]
                weights = [v if v is None else self._variable(v, _prefix(call, v), inner) for v in made.variables]
                given = [*tensors, *hung, *weights]
                return self.graph(made.function, given, call.path + ".", training, inner, True, made.trained)
        return self.visit(call)


def _prefix(call: Call, variable) -> str:
    """The path of the layer that holds a variable: the one that is called, or one inside it."""
    inside = (x for x in call.operation._flatten_layers(include_self=False) if not x._layers)
    owner = next((x for x in inside if any(v is variable for v in x.variables)), None)
    return f"{call.path}.{owner.name}." if owner else f"{call.path}."


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
    return ordered(arguments, keywords) if kinds[0] == kinds[1] else None


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
            passed = type(call.operation).__name__ in rules.passed()  # whose default is True
            keywords["training"] = training or (bool(keywords.get("training")) and not passed)
        if training and isinstance(call.operation, modes.ByMode):
            outputs = [call.arguments[1]]
            seen[call.label] = np.asarray(outputs[0].numpy())
            return outputs
        operation = twin.layer(call.operation, call.arguments, keywords) if twin else call.operation
        outputs = keras.tree.flatten(operation(*call.arguments, **keywords))
        forget(outputs)
        arrays = [np.asarray(t.numpy()) for t in outputs]  # a bfloat16 without axes has no __array__
        seen.update(zip(call.names(), arrays, strict=True))
        return outputs

    def variable(v, name, label, scope):
        value = keras.ops.convert_to_tensor(twin.variable(v) if twin else v)
        seen[label] = np.asarray(value.numpy())
        return value

    wanted = keras.tree.flatten(functional(model).inputs)
    dtypes = [twin.dtype if twin and twin.dtype and "float" in t.dtype else t.dtype for t in wanted]
    tensors = [keras.ops.convert_to_tensor(x, dtype) for x, dtype in zip(inputs, dtypes, strict=True)]
    outputs = Walk(visit, variable, traces=TRACES.get(model, {})).model(model, tensors)
    seen |= {OUTPUT.format(i): np.asarray(x.numpy()) for i, x in enumerate(keras.tree.flatten(outputs))}
    return outputs, seen | dict(zip(input_names(model), inputs, strict=True))
