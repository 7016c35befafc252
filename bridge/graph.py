"""The neutral graph that both frameworks are read into and written from. It imports no framework.

A graph is a list of nodes in the order of execution. A node is an operator of ours ("convolution",
"batch_norm") with canonical attributes; its parameters are names in `Graph.parameters`, where each is
held once, so that sharing and tying need no machinery. The arrays have Keras' axes
(`rules/*.py` say how torch's follow from them).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Shape = tuple[int | None, ...]
OUTPUT = ":output{}"  # the name of what a network returns, by its number, among the values of a run


class BridgeError(ValueError):
    """Every refusal of the bridge: the sentence, and all obstacles at once.

    Args:
        message: What was asked for and why it is not done.
        obstacles: All things that stand in the way, each with its remedy.
    """

    def __init__(self, message: str, obstacles: "list[Obstacle] | None" = None):
        self.obstacles = obstacles or []
        super().__init__("\n".join([message, *(f"  - {o}" for o in self.obstacles)]))


class Unsupported(Exception):
    """Raised by a rule for one layer or operator; the reader collects them all into one `BridgeError`.

    Args:
        reason: The option that cannot be carried, with its value.
        remedy: What the user can do instead.
        final: Whether it holds for what torch decomposes the operator into, too.
    """

    def __init__(self, reason: str, remedy: str = "", final: bool = False):
        super().__init__(reason)
        self.reason, self.remedy, self.final = reason, remedy, final


@dataclass(frozen=True)
class Obstacle:
    """One thing that cannot be carried: where it stands, what it is, why not, what to do."""

    path: str
    kind: str
    reason: str
    remedy: str = ""

    def __str__(self):
        return f"{self.path} ({self.kind}): {self.reason}" + (f"; {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Value:
    """A tensor that flows between nodes; an open dimension is None.

    `source` and `order` are set by the layout pass: axis i of this tensor is axis `order[i]` of the
    tensor `source` of the graph that was read. `symbols` is the shape with a name for each open size, by which equal
    ones are known, where the framework has such names.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    source: str = ""
    order: tuple[int, ...] | None = None
    symbols: tuple[int | str, ...] = field(default=(), compare=False)

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Parameter:
    """An array that belongs to the model; `trainable` is false for statistics and frozen weights.

    `value` may be a look at the model's own memory, and is not written to; it is not if `own`, and what is made of the
    graph may then have that memory. `pattern` is how a rule has rearranged what a Keras layer holds, if it has
    (`rules.KerasLayer.rearrange`). `rounding` is by how much its dtype rounds a constant that Keras makes more
    exactly in float64.
    """

    value: np.ndarray
    trainable: bool = True
    pattern: str = ""
    own: bool = False
    rounding: float = 0.0


@dataclass
class Node:
    """One application of an operator.

    `name` is the layer's or module's own path, for people and for naming things; it is empty for what has
    no layer of its own, such as the activation inside a convolution. `inputs` and `outputs` may be left
    empty by a rule: the reader then chains the nodes from the layer's input to its output. `shape` is the
    shape of the output of a node inside such a chain, where it is not the layer's. `scope` names the calls of nested
    models around it, from the outside in.
    """

    operator: str
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    name: str = ""
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    shape: Shape | None = None
    scope: tuple[str, ...] = ()

    def __getitem__(self, attribute: str):
        return self.attributes[attribute]


@dataclass
class Graph:
    """A network: nodes in the order of execution, its parameters, and what goes in and out.

    `outputs` is a value or a nested tuple, list or dictionary of values, as the model returns them. `notes` says what
    belongs to the model and is not in the graph.
    """

    name: str
    inputs: list[Value]
    outputs: Any
    nodes: list[Node]
    parameters: dict[str, Parameter]
    channels: str  # "last" (Keras) or "first" (torch): what tensors of rank 4 and 5 are at the boundary
    notes: list[str] = field(default_factory=list)

    def consumers(self) -> dict[str, list[Node]]:
        """Map the name of each value to the nodes that read it (a node per use)."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(value.name, []).append(node)
        return found


def flatten(structure) -> Iterator[Any]:
    """Yield the leaves of a nested structure, dictionaries in the order of their keys, as Keras does."""
    if isinstance(structure, dict):
        structure = [structure[k] for k in sorted(structure)]
    if isinstance(structure, (list, tuple)):
        for item in structure:
            yield from flatten(item)
    elif structure is not None:
        yield structure


def map_structure(function, structure):
    """Apply a function to each leaf of nested lists, tuples and dictionaries; named tuples become plain ones."""
    if isinstance(structure, dict):
        return {k: map_structure(function, v) for k, v in structure.items()}
    if isinstance(structure, (list, tuple)):
        items = [map_structure(function, v) for v in structure]
        return tuple(items) if isinstance(structure, tuple) else items
    return None if structure is None else function(structure)


def chain(nodes: list[Node], inputs: list[Value], outputs: list[Value]) -> list[Node]:
    """Fill in the edges that a rule left open: each node feeds the next, from a layer's inputs to its outputs."""
    for i, node in enumerate(nodes):
        last = i == len(nodes) - 1
        if node.operator in ("constant", "parameter"):  # it reads nothing
            continue
        node.inputs = node.inputs or (list(inputs) if i == 0 else list(nodes[i - 1].outputs))
        if not node.outputs:
            name = f"{outputs[0].name}:{i}"
            node.outputs = (
                list(outputs) if last else [replace(outputs[0], name=name, shape=node.shape or outputs[0].shape)]
            )
    return nodes


class Steps:
    """Nodes that are made one after the other: each step returns what it makes, and the last one makes `made`."""

    def __init__(self, made: Value):
        self.made, self.nodes = made, []

    def __call__(self, operator: str, inputs: list[Value], shape: Shape, dtype: str = "", /, **attributes) -> Value:
        """Add a node.

        Args:
            operator: The neutral one.
            inputs: What it reads.
            shape: Of what it makes.
            dtype: Of that; by default the first input's.
            **attributes: The node's.
        """
        value = Value(f"{self.made.name}:{len(self.nodes)}", tuple(shape), dtype or inputs[0].dtype)
        self.nodes.append(Node(operator, attributes, inputs=list(inputs), outputs=[value]))
        return value

    def finish(self, name: str = "") -> list[Node]:
        """Return the nodes; the last one has the layer's name and makes its output."""
        self.nodes[-1].outputs, self.nodes[-1].name = [self.made], name
        return self.nodes
