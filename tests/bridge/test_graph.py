"""The graph's own small functions and its errors."""

import subprocess
import sys

import numpy as np
import pytest

import bridge
from bridge.graph import BridgeError, Graph, Node, Obstacle, Parameter, Value, chain, flatten, map_structure


def test_no_framework_is_imported():
    code = (
        "import sys, bridge, bridge.graph, bridge.layout, bridge.simplify, bridge.rules\nbridge.rules.families()\n"
        "assert not {'torch', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_error_lists_every_obstacle():
    error = BridgeError(
        "two things are wrong:",
        [Obstacle("a.b", "Lambda", "it is opaque", "write a layer"), Obstacle("c", "Conv9D", "no rule")],
    )
    assert str(error).splitlines() == [
        "two things are wrong:",
        "  - a.b (Lambda): it is opaque; write a layer",
        "  - c (Conv9D): no rule",
    ]
    assert isinstance(error, ValueError) and bridge.BridgeError is BridgeError and len(error.obstacles) == 2


def test_flatten_has_the_order_of_keras():
    assert list(flatten({"b": [1, (2, None)], "a": 3})) == [3, 1, 2]


def test_map_structure_keeps_the_structure():
    assert map_structure(lambda v: v + 1, {"b": [1, (2, None)], "a": 3}) == {"b": [2, (3, None)], "a": 4}


def test_chain_fills_in_the_edges():
    x, y = Value("x", (2, 3)), Value("y", (2, 5))
    nodes = chain([Node("a", shape=(2, 4)), Node("b"), Node("c")], [x], [y])
    assert nodes[0].inputs == [x] and nodes[2].outputs == [y]
    assert (
        nodes[1].inputs == nodes[0].outputs
        and nodes[0].outputs[0].shape == (2, 4)
        and nodes[1].outputs[0].shape == (2, 5)
    )
    assert len({n.outputs[0].name for n in nodes}) == 3


def test_chain_leaves_given_edges():
    x, y, z = Value("x", (2,)), Value("y", (2,)), Value("z", (2,))
    first, second = chain([Node("a", inputs=[y], outputs=[z]), Node("b", inputs=[z, x])], [x, y], [Value("o", (2,))])
    assert first.inputs == [y] and second.inputs == [z, x] and second.outputs[0].name == "o"


def test_consumers_and_other_values():
    x, y = Value("x", (2,)), Value("y", (2,))
    node = Node("add", inputs=[x, x], outputs=[y], parameters={"kernel": "k"})
    graph = Graph("g", [x], y, [node], {"k": Parameter(np.ones(2), False), "other": Parameter(np.ones(1))}, "last")
    assert graph.consumers() == {"x": [node, node]}
    with pytest.raises(KeyError):
        node["axis"]


def test_the_public_names_are_there():
    for name in bridge.__all__:
        assert getattr(bridge, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        bridge.__getattr__("nonsense")
    assert set(bridge.__all__) <= set(dir(bridge))
