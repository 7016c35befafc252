"""Where channels-last and channels-first meet.

Every tensor carries an order: axis i of the tensor as it is written is axis `order[i]` of the tensor as it
was read. A permutation in the source graph costs nothing, it only changes the order; a permutation is
written where an operator needs another order than its input has. So inverse pairs never come to be.

How an operator follows the layout is a function of this file, named in its rule as LAYOUT:
`anything` (elementwise), `axes` (has axes that can be renumbered), `channels` (wants the channel axis where
the framework has it) or `fixed` (must see its input as it was read; the rule for what is unknown).
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bridge import rules
from bridge.graph import Graph, Node, Value, flatten, map_structure
from bridge.simplify import simplify
from bridge.tensors import owned

Order = tuple[int, ...]
AHEAD = 50  # so many operators, at most, are looked at on the way to one that wants an order
KERNELS = ("computed_kernel", "transposed_kernel")  # of whose inputs the second is the kernel
OWN_KERNELS = ("own_kernel", "own_transposed_kernel")  # and one of its own for each example
LIGHT = ("parameter", "constant", "ones", "row", "size", "linspace")  # a weight, or as many ones as a size says


@dataclass(frozen=True)
class Rows:
    """The order of a flattened tensor: its last axis runs over `shape` with the axes permuted by `order`."""

    shape: tuple[int, ...]
    order: Order

    def put(self, rows: np.ndarray, target: str) -> np.ndarray:
        """The rows of a kernel as they are written: the only copy, with its memory in the order of the target's own."""
        apart = rows.reshape(*self.shape, -1).transpose(*self.order, -1)  # (a, b, c, units)
        if target == "first":
            return owned(np.moveaxis(apart, -1, 0)).reshape(-1, len(rows)).T
        return owned(apart).reshape(len(rows), -1)


@dataclass
class Placement:
    """What an operator wants: the order of each input, what comes out, and its renumbered attributes."""

    inputs: list[Any]
    outputs: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    alias: bool = False  # the node only renames axes: nothing is written
    kernel: Any = None  # the form of its kernel, the same at all uses: `Rows`, in whose order they are put, or a word
    weights: dict[str, Order] = field(default_factory=dict)  # role -> order of the axes of a weight that follows them


@dataclass
class Context:
    """What a layout function may ask.

    The orders of a node's inputs, which of them are the graph's own, the layouts that the graph was read from and is
    written for, who reads its outputs, and in which orders each value has been written so far, the first one first.

    What is decided here must not depend on which axes come first in the source, so that a graph has the same layout
    from whichever framework it was read: `bridge.verify` compares the two.
    """

    orders: list[Any]
    outside: list[bool]
    source: str
    target: str
    consumers: dict[str, list[Node]]
    written: dict[str, dict[Any, Value]] = field(default_factory=dict)
    known: dict[tuple, int] = field(default_factory=dict)  # answers about values, or ways would multiply
    ahead: int = 0  # operators between the value in question and the one that is looked at

    def feeds_only(self, value: Value, accepted: Callable[[Node], bool]) -> bool:
        """Tell whether a value reaches nothing but accepted nodes, through elementwise ones."""
        nodes = self.consumers.get(value.name, [])
        return bool(nodes) and all(
            accepted(n)
            or (
                n.operator != "output"
                and _elementwise(n)
                and len(n.inputs) == 1
                and self.feeds_only(n.outputs[0], accepted)
            )
            for n in nodes
        )

    def takers(self, value: Value, order: Order) -> int:
        """Count the readers of a value, through elementwise ones, that would take it in this order as it is."""
        return self._ask(value, order, self.taken, sum)

    def taken(self, value: Value, order: Order) -> bool:
        """Tell whether a value has a reader that would take it in this order as it is, and not in any other."""
        return self._ask(value, order, self.taken, any)

    def all_takers(self, value: Value, order: Order) -> int:
        """Count them along every way."""
        return self._ask(value, order, self.all_takers, sum)

    def _ask(self, value: Value, order: Order, further: Callable, of_all: Callable) -> int:
        key = value.name, order, further.__name__, of_all
        if key not in self.known:
            readers = {id(node): node for node in self.consumers.get(value.name, []) if self.ahead < AHEAD}.values()
            self.ahead += 1
            self.known[key] = of_all(self._takes(node, value, order, further) for node in readers)
            self.ahead -= 1
        return self.known[key]

    def wanted(self, value: Value, order: Order) -> Order:
        """Give the order that several readers want of a value, where none wants this one: it is turned once for all.

        So the patches that a convolution makes become tokens, with their channels last in torch, too, and stay it.
        """
        if not isinstance(order, tuple) or len(order) < 3 or self.taken(value, order):
            return order
        batch, *rest = order
        others = (batch, *rest[1:], rest[0]), (batch, rest[-1], *rest[:-1])
        return next((other for other in others if self.all_takers(value, other) > 1), order)

    def as_kernel(self, value: Value) -> Order | None:
        """The order of a value that becomes the kernel of a convolution, or a part of it, at whatever distance."""
        found, seen = [value.name], {value.name}
        for name in found:
            for reader in self.consumers.get(name, []):
                if reader.operator in KERNELS + OWN_KERNELS:
                    if reader.inputs[1].name == name:
                        own = reader.operator in OWN_KERNELS and value.rank == reader.inputs[1].rank
                        return (own_kernel_order if own else kernel_order)(value.rank, self.source, self.target)
                    continue  # the image, with which the network goes on
                more = [v.name for v in reader.outputs if v.name not in seen]
                found += more
                seen.update(more)
        return None

    def _takes(self, node: Node, value: Value, order: Order, further: Callable[[Value, Order], int]) -> int:
        if node.operator == "output":
            return order == boundary_order(value, self.source, self.target)
        if node.operator == "permute":
            return further(node.outputs[0], tuple(node["permutation"].index(a) for a in order))
        if _elementwise(node):
            others = [self.written[v.name] for v in node.inputs if v.name in self.written]
            if len({v.rank for v in node.inputs}) > 1:
                return False
            return any(order in orders for orders in others) if others else further(node.outputs[0], order)

        at, turned = node.inputs.index(value), (*order[:1], *order[:0:-1])
        placement = self._placed(node, value, order)
        if placement.inputs[at] != order or turned == order:
            return placement.inputs[at] == order
        other = self._placed(node, value, turned)
        if other.inputs[at] != turned:
            return True
        # It takes any: what becomes of it decides, if not the same whatever comes.
        made = placement.outputs[0]
        return further(node.outputs[0], made) if isinstance(made, tuple) and other.outputs[0] != made else 0

    def _placed(self, node: Node, value: Value, given: Order) -> Placement:
        """What a reader of a value wants where it is given the value in this order."""
        rest = {v.name: given if v.rank == len(given) else identity(v.rank) for v in node.inputs}  # not written yet
        orders = [given if v == value else next(iter(self.written.get(v.name, [rest[v.name]]))) for v in node.inputs]
        inner = replace(self, orders=orders, outside=[False] * len(orders))
        return rules.for_operator(node.operator).LAYOUT(node, inner)

    def follows(self, node: Node, placement: Placement) -> bool:
        """Tell whether a node has its order from its first input, for which what becomes of it has been looked at."""
        if not node.inputs or node.inputs[0].rank != node.outputs[0].rank:
            return False
        order = placement.inputs[0]
        if _elementwise(node) or not isinstance(order, tuple):
            return True
        turned = (*order[:1], *order[:0:-1])
        return self._placed(node, node.inputs[0], turned).inputs[0] == turned


def _elementwise(node: Node) -> bool:
    layout = rules.for_operator(node.operator).LAYOUT
    return layout is anything or (layout is axes and not {"axis", "axes"} & node.attributes.keys())


def identity(rank: int) -> Order:
    """The order in which a tensor was read."""
    return tuple(range(rank))


def channel_order(rank: int, axis: int, target: str) -> Order:
    """The order that puts the channel axis where the target has it, the other axes as they are."""
    others = [a for a in range(rank) if a != axis % rank]
    others.insert(1 if target == "first" else rank - 1, axis % rank)
    return tuple(others)


def kernel_order(rank: int, source: str, target: str) -> Order:
    """The order of a convolution's kernel: (..., i, o) in Keras, (o, i, ...) in torch."""
    if source == target:
        return identity(rank)
    return (*range(2, rank), 1, 0) if source == "first" else (rank - 1, rank - 2, *range(rank - 2))


def own_kernel_order(rank: int, source: str, target: str) -> Order:
    """The order of a kernel for each example: behind the batch that of a kernel."""
    return 0, *(a + 1 for a in kernel_order(rank - 1, source, target))


def boundary_order(value: Value, source: str, target: str) -> Order:
    """The order of a tensor at the model's boundary: ranks 4 and 5 follow the framework, others stay."""
    if value.rank not in (4, 5) or source == target:
        return identity(value.rank)
    return channel_order(value.rank, 1 if source == "first" else value.rank - 1, target)


def fixed(node: Node, context: Context) -> Placement:
    """Inputs and outputs as they were read."""
    return Placement([identity(v.rank) for v in node.inputs], [identity(v.rank) for v in node.outputs])


def anything(node: Node, context: Context) -> Placement:
    """Elementwise: any order, the same for all inputs, that the most have been written in.

    Then most of them decide, but those straight from outside only where there are no others.
    """
    if len({v.rank for v in node.inputs + node.outputs}) > 1:
        return fixed(node, context)
    inner = [o for o, outside in zip(context.orders, context.outside, strict=True) if not outside]
    votes = Counter(inner or context.orders)
    order = max(votes, key=lambda o: (sum(o in context.written.get(v.name, ()) for v in node.inputs), votes[o]))
    return Placement([order] * len(node.inputs), [order] * len(node.outputs))


def axes(node: Node, context: Context) -> Placement:
    """Any order, the same for all inputs; the attributes `axis` (a number) and `axes` (several) are renumbered."""
    if not _elementwise(node) and any(isinstance(o, Rows) for o in context.orders):
        return fixed(node, context)
    placement = anything(node, context)
    order = placement.inputs[0]
    rank = node.inputs[0].rank
    if "axis" in node.attributes:
        placement.attributes["axis"] = order.index(node["axis"] % rank)
    if "axes" in node.attributes:
        placement.attributes["axes"] = tuple(sorted(order.index(a % rank) for a in node["axes"]))
    return placement


def channels(node: Node, context: Context) -> Placement:
    """The channel axis (attribute `axis`) where the target framework has it; what loses its axes is as it was read."""
    order = channel_order(node.inputs[0].rank, node["axis"], context.target)
    rank = node.inputs[0].rank
    outputs = [order if v.rank == rank else identity(v.rank) for v in node.outputs]
    return Placement([order] * len(node.inputs), outputs, {"axis": order.index(node["axis"] % rank)})


def convert(graph: Graph, target: str, inputs: dict[str, Order] | None = None) -> Graph:
    """Rewrite a graph for channels "first" (torch) or "last" (Keras).

    Args:
        graph: What a reader returned.
        target: "first" or "last". The graph's own layout may be asked for: its permutations are then reduced
            to those that are needed.
        inputs: Name of an input -> its order at the boundary, where it does not follow the rule of ranks 4 and 5.

    Returns:
        A graph in which every value has its `source` and `order`, and "permute" nodes stand where orders meet.
    """
    before, graph = graph.nodes, replace(graph, nodes=_late(_as_needed(graph)))
    consumers = graph.consumers()
    for value in flatten(graph.outputs):
        consumers.setdefault(value.name, []).append(Node("output"))
    written: dict[str, dict[Any, Value]] = {}  # source value -> order -> value as written
    nodes: list[Node] = []
    parameters = dict(graph.parameters)
    forms: dict[str, Any] = {}  # of the weights that have one
    axes_of: dict[str, tuple[str, Order]] = {}  # value that renames axes -> the value that it renames, which axis of it
    renamed: dict[str, list[str]] = {}  # that value -> those

    def put(value: Value, order) -> Value:
        shape = value.shape if isinstance(order, Rows) else tuple(value.shape[a] for a in order)
        new = replace(value, shape=shape, source=value.name, order=None if isinstance(order, Rows) else order)
        written.setdefault(value.name, {}).setdefault(order, new)
        return new

    def get(value: Value, order) -> Value:
        have = written[value.name]
        if order not in have:
            origin, old = next((o, v) for o, v in have.items())
            permutation = tuple(origin.index(a) for a in order)
            new = replace(
                value,
                name=f"{value.name}@{''.join(map(str, order))}",
                order=order,
                source=value.name,
                shape=tuple(value.shape[a] for a in order),
            )
            nodes.append(Node("permute", {"permutation": permutation}, inputs=[old], outputs=[new], scope=scope))
            share(value.name, order, new)
        return have[order]

    def share(name: str, order: Order, new: Value) -> None:
        """Let all that rename the axes of a value have it in an order, too."""
        root, own = axes_of.get(name, (name, identity(len(order))))
        for other in (root, *renamed.get(root, ())):
            _, axes = axes_of.get(other, (root, identity(len(order))))
            theirs = tuple(axes.index(own[a]) for a in order)
            written[other].setdefault(theirs, replace(new, source=other, order=theirs))

    def turn(value: Value, order) -> None:
        written[value.name] = {order: get(value, order), **written[value.name]}

    given = inputs or {}
    entering = [put(v, tuple(given.get(v.name) or boundary_order(v, graph.channels, target))) for v in graph.inputs]
    outside = {v.name for v in entering}
    scope = ()
    for value, new in zip(graph.inputs, entering, strict=True):
        turn(value, Context([], [], graph.channels, target, consumers, written).wanted(value, new.order))
        outside.update(v.name for v in written[value.name].values())
    for node in graph.nodes:
        scope = node.scope
        have = [next(iter(written[v.name].items())) for v in node.inputs]
        context = Context(
            [order for order, _ in have],
            [v.name in outside for _, v in have],
            graph.channels,
            target,
            consumers,
            written,
        )
        placement = rules.for_operator(node.operator).LAYOUT(node, context)
        if placement.alias:
            (value,), (order,), name = node.outputs, placement.outputs, node.inputs[0].name
            (first, old), *more = written[name].items()
            written[value.name] = {order: replace(old, source=value.name, order=order)}
            if isinstance(order, tuple):
                root, own = axes_of.get(name, (name, identity(len(order))))
                axes_of[value.name] = root, tuple(own[first[order.index(a)]] for a in range(len(order)))
                renamed.setdefault(root, []).append(value.name)
                for other, new in more:
                    share(name, other, new)
            continue
        read = [get(v, o) for v, o in zip(node.inputs, placement.inputs, strict=True)]
        wanted = placement.outputs
        if not context.follows(node, placement):
            wanted = [context.wanted(v, o) for v, o in zip(node.outputs, placement.outputs, strict=True)]
        made = [put(v, o) for v, o in zip(node.outputs, placement.outputs, strict=True)]
        nodes.append(replace(node, inputs=read, outputs=made, attributes={**node.attributes, **placement.attributes}))
        for value, order in zip(node.outputs, wanted, strict=True):
            turn(value, order)
        kernel = {} if placement.kernel is None else {"kernel": placement.kernel}
        for role, form in (kernel | placement.weights).items():
            name = node.parameters[role]
            if forms.setdefault(name, form) != form and not node.attributes.get("pinned"):
                return convert(_pin(replace(graph, nodes=before), name), target, inputs)
            old = parameters.get(name)
            if old is not None and old is graph.parameters.get(name) and not isinstance(form, str):
                rows = isinstance(form, Rows)
                value = form.put(old.value, target) if rows else old.value.transpose(form)
                parameters[name] = replace(old, value=value, own=rows or old.own)
    scope = ()
    outputs = map_structure(lambda v: get(v, boundary_order(v, graph.channels, target)), graph.outputs)
    nodes = _executed(nodes, before)
    nodes = [replace(n, attributes={k: v for k, v in n.attributes.items() if k != "pinned"}) for n in nodes]
    laid_out = replace(graph, nodes=nodes, inputs=entering, outputs=outputs, parameters=parameters, channels=target)
    return simplify(laid_out)  # what a permutation stood between may meet now


def _as_needed(graph: Graph) -> list[Node]:
    """The nodes in the order in which the outputs need them, which is the same whatever order they are executed in."""
    makers = {v.name: n for n in graph.nodes for v in n.outputs}
    found: dict[int, Node] = {}
    for value in flatten(graph.outputs):
        stack = [(makers.get(value.name), False)]
        while stack:
            node, ready = stack.pop()
            if node is None or id(node) in found:
                continue
            if ready:
                found[id(node)] = node
            else:
                stack += [(node, True), *((makers.get(v.name), False) for v in reversed(node.inputs))]
    return [*found.values(), *(n for n in graph.nodes if id(n) not in found)]


def _executed(nodes: list[Node], before: list[Node]) -> list[Node]:
    """Laid-out nodes in the order of execution that they had before, each permutation with its first reader."""
    places = {v.name: i for i, n in enumerate(before) for v in n.outputs}
    first: dict[str, tuple] = {}  # value -> the place of its first reader, and its scope
    found = []
    for node in reversed(nodes):
        made, written = node.outputs[0], node.operator == "permute"
        place, scope = first.get(made.name, (len(before), ())) if written else (places[made.source], node.scope)
        found.append((place, not written, replace(node, scope=scope)))
        for value in node.inputs:
            if place < first.get(value.name, (len(before) + 1,))[0]:
                first[value.name] = place, scope
    return [node for *_, node in sorted(reversed(found), key=lambda item: item[:2])]


def _late(nodes: list[Node]) -> list[Node]:
    """Put what is made of weights and sizes alone before its first reader: it takes the order of what that reads, too.

    A class token is made before the patches in one framework and after them in the other. So are masks, of the scores.
    """
    makers, light = {v.name: n for n in nodes for v in n.outputs}, set()
    for node in nodes:
        masks = all(v.dtype == "bool" for v in node.outputs)
        if masks or node.operator in LIGHT or (node.inputs and all(v.name in light for v in node.inputs)):
            light.update(v.name for v in node.outputs)
    found: dict[int, Node] = {}

    def put(node: Node) -> None:
        for value in node.inputs:
            if value.name in light and id(makers[value.name]) not in found:
                put(makers[value.name])
        found[id(node)] = node

    for node in nodes:
        if not {v.name for v in node.outputs} <= light:
            put(node)
    return [*found.values(), *(n for n in nodes if id(n) not in found)]


def _pin(graph: Graph, weight: str) -> Graph:
    """A weight that is used in two forms stays as it was read: its inputs are permuted instead."""
    nodes = [
        replace(n, attributes={**n.attributes, "pinned": True}) if weight in n.parameters.values() else n
        for n in graph.nodes
    ]
    return replace(graph, nodes=nodes)


LayoutRule = Callable[[Node, Context], Placement]
