"""The masks of Keras, which hang on tensors, as tensors that flow.

A layer such as Embedding(mask_zero=True) hangs a mask on what it makes, and a layer that does not mind hands it on; a
layer with an argument `mask` takes the one that hangs on its input. All of it is done while a model runs, so that its
graph shows masks by chance alone. Here a walk through the graph does as `Layer.__call__` does, and puts each mask among
the arguments of the layer that takes it. What makes a mask is followed like a layer without a rule, when one takes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
from keras.src import backend
from keras.src.layers.layer import CallSpec
from keras.src.ops.function import Function

from bridge import tracing

LOOKING = ("MultiHeadAttention", "Multiply", "Maximum", "Minimum")  # their `call` looks at what hangs on its tensors


@dataclass
class Mask:
    """A mask that is made when a layer takes it."""

    shape: tuple[int | None, ...]
    dtype: str
    make: Callable[[], Any]

    @cached_property
    def tensor(self):
        """What stands for it."""
        return self.make()


class Given:
    """What a layer was called with: what stands for the tensors, by the names of the arguments of its `call`."""

    def __init__(self, layer, node, lookup: Callable):
        keywords = dict(node.arguments.kwargs)
        spec = CallSpec(layer._call_signature, layer._call_context_args, node.arguments.args, keywords)
        self.layer, self.names = layer, spec.argument_names
        self.tensors = {k: keras.tree.map_structure(lookup, v) for k, v in spec.tensor_arguments_dict.items()}
        self.first = keras.tree.map_structure(lookup, spec.first_arg)


class Masks:
    """The masks that hang on tensors, or on what stands for these."""

    def __init__(self):
        self.held: dict[int, tuple[Any, Mask]] = {}  # id of a tensor -> the tensor, which stays alive, and its mask

    def on(self, x) -> Mask | None:
        """The mask that hangs on a tensor."""
        return self.held.get(id(x), (x, None))[1]

    def hang(self, x, mask: Mask | None) -> None:
        """Hang a mask on a tensor."""
        if mask is not None:
            self.held[id(x)] = x, mask

    def looked_at(self, given: Given) -> list[Mask | None]:
        """The masks that the `call` of a layer looks at itself, for each of its tensors."""
        looks = any(
            kind.__name__ in LOOKING and kind.__module__.startswith("keras.") for kind in type(given.layer).__mro__
        )
        return [self.on(x) if looks else None for x in keras.tree.flatten(given.tensors)]

    def taken(self, given: Given, keywords: dict[str, Any]) -> dict[str, Any]:
        """The masks that a layer takes beside what it was called with, as tensors."""
        names = {k if len(given.tensors) > 1 else "": x for k, x in given.tensors.items()}
        found = {f"{k}_mask".lstrip("_"): keras.tree.map_structure(self.on, x) for k, x in names.items()}
        return {
            k: keras.tree.map_structure(lambda m: m and m.tensor, x)
            for k, x in found.items()
            if k in given.names and keywords.get(k) is None and any(m is not None for m in keras.tree.flatten(x))
        }

    def follow(self, given: Given, mask, outputs: list, walk: Callable[[Function, list], list]) -> None:
        """Hang masks on what a layer has made.

        Args:
            given: What it was called with.
            mask: Its argument `mask`, if it had one.
            outputs: What it has made.
            walk: Runs through a graph with what stands for its inputs, and returns its outputs.
        """
        layer = given.layer
        previous = (
            keras.tree.map_structure(self.on, given.first)
            if mask is None
            else keras.tree.map_structure(given_mask, mask)
        )
        if isinstance(layer, keras.layers.MultiHeadAttention):  # it takes them away
            for x in keras.tree.flatten(list(given.tensors.values())):
                self.held.pop(id(x), None)
        if layer.supports_masking:
            for x, m in zip(outputs, _next(layer, given.first, previous, walk), strict=False):
                self.hang(x, m)


def given_mask(x) -> Mask | None:
    """A tensor that was given as a mask."""
    return Mask(tuple(x.shape), "bool", lambda: x) if tracing.is_tensor(x) else None


def _next(layer, first, previous, walk: Callable[[Function, list], list]) -> list[Mask | None]:
    """The masks of a layer's outputs."""
    if getattr(layer.compute_mask, "_is_default", False):
        return keras.tree.flatten(previous)
    tensors, shown = tracing.symbolic(first)
    marks, before = tracing.symbolic(previous)
    made = keras.tree.flatten(layer.compute_mask(shown, before))
    same = dict(zip(map(id, marks), (m for m in keras.tree.flatten(previous) if m is not None), strict=True))
    new = [m for m in made if m is not None and id(m) not in same]
    if not new:
        return [m if m is None else same[id(m)] for m in made]
    function = Function([*tensors, *marks], new)

    def run():
        given = [x for x in keras.tree.flatten(first) if tracing.is_tensor(x)]
        return walk(function, [*given, *(m.tensor for m in same.values())])

    shared = Mask((), "", run)
    places = {id(m): Mask(m.shape, m.dtype, lambda i=i: shared.tensor[i]) for i, m in enumerate(new)}
    return [m if m is None else (same | places)[id(m)] for m in made]


def forget(tensors: list) -> None:
    """Take away the masks that Keras has hung on tensors by itself."""
    for x in tensors:
        if backend.get_keras_mask(x) is not None:
            backend.set_keras_mask(x, None)
