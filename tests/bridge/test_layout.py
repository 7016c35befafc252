"""The layout pass: few permutes, rows that stay in step, the same layout from either side."""

from dataclasses import replace
from itertools import pairwise

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, layout, torch_reader
from bridge.graph import Graph, Node, Value

layers = keras.layers


def permutes(model, target="first"):
    return sum(n.operator == "permute" for n in layout.convert(keras_reader.read(model), target).nodes)


def convolutions(rank=2):
    x = keras.Input((*[8] * rank, 3), name="x")
    conv = getattr(layers, f"Conv{rank}D")
    y = layers.ReLU()(layers.BatchNormalization()(conv(4, 3, padding="same")(x)))
    z = layers.Concatenate()([conv(4, 3, padding="same")(y), y])
    z = layers.Add()([conv(8, 1)(y), z])
    return keras.Model(x, conv(2, 3)(z))


@pytest.mark.parametrize("rank, count", [(1, 2), (2, 0), (3, 0)])
def test_permutes_between_convolutions(rank, count):
    """None; a sequence enters and leaves channels-last, so that costs two."""
    model = convolutions(rank)
    assert permutes(model) == count
    assert permutes(model, "last") == 0


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_both_sides_are_laid_out_alike(rank):
    model = convolutions(rank)
    x = torch.randn(2, 8, 3) if rank == 1 else torch.randn(2, 3, *[8] * rank)
    mine = layout.convert(keras_reader.read(model), "first")
    theirs = layout.convert(torch_reader.read(bridge.to_torch(model), (x,)), "first")
    assert [n.operator for n in mine.nodes] == [n.operator for n in theirs.nodes]
    assert [n.outputs[0].shape for n in mine.nodes] == [n.outputs[0].shape for n in theirs.nodes]


def test_a_sequence_from_outside_does_not_decide():
    """A skip from the input of a 1-D network is permuted once, not the whole network."""
    y = x = keras.Input((8, 3), name="x")
    for _ in range(3):
        y = layers.Add()([y, layers.Conv1D(3, 3, padding="same")(y)])
    assert permutes(keras.Model(x, y)) == 2


def test_the_order_of_execution_does_not_decide():
    """Keras runs the branches of a network in another order than torch does."""
    x = torch.randn(2, 4, 6)

    def gated(x):
        return (x.tanh().unsqueeze(-1) * torch.stack([x.sin(), x.cos()], -1)).sum(-2)

    module = torch.nn.Module()
    module.forward = gated
    graph = torch_reader.read(module, (x,))
    made = {n.outputs[0].name: n for n in graph.nodes}
    turned: dict = {}
    for node in reversed(graph.nodes):  # the other way round, but each after what it reads
        stack = [node]
        while stack:
            node = stack.pop()
            rest = [made[v.name] for v in node.inputs if v.name in made and v.name not in turned]
            if rest:
                stack += [node, *rest]
            else:
                turned[node.outputs[0].name] = node
    assert list(turned) != list(made)
    for target in ("first", "last"):
        one, other = (layout.convert(replace(graph, nodes=list(d.values())), target) for d in (made, turned))
        assert {n.outputs[0] for n in one.nodes} == {n.outputs[0] for n in other.nodes}
        assert [n.outputs[0].name for n in one.nodes] != [n.outputs[0].name for n in other.nodes]


def test_values_know_where_their_axes_came_from():
    graph = layout.convert(keras_reader.read(convolutions()), "first")
    assert graph.inputs[0].shape == (None, 3, 8, 8) and graph.inputs[0].order == (0, 3, 1, 2)
    for node in graph.nodes:
        assert node.outputs[0].order == (0, 3, 1, 2) and node.outputs[0].source


def test_inverse_pairs_vanish():
    x = keras.Input((8, 7, 3), name="x")
    y = layers.Conv2D(3, 3)(x)
    for dims in ((3, 1, 2), (2, 3, 1), (2, 1, 3), (2, 1, 3)):
        y = layers.Permute(dims)(y)
    assert permutes(keras.Model(x, layers.Conv2D(3, 3)(y))) == 0


def test_one_permute_serves_all_readers():
    x = keras.Input((8, 3), name="x")
    assert permutes(keras.Model(x, [layers.Flatten()(layers.Conv1D(3, k)(x)) for k in (1, 2, 3)])) == 1 + 3


def test_boundary_orders():
    values = [Value("v", (None, *range(2, rank + 1))) for rank in range(1, 7)]
    assert [layout.boundary_order(v, "last", "first") for v in values] == [
        (0,),
        (0, 1),
        (0, 1, 2),
        (0, 3, 1, 2),
        (0, 4, 1, 2, 3),
        (0, 1, 2, 3, 4, 5),
    ]
    assert layout.boundary_order(values[3], "first", "last") == (0, 2, 3, 1)
    assert layout.boundary_order(values[3], "last", "last") == (0, 1, 2, 3)


def test_rows():
    rows = layout.Rows((2, 3, 4), (2, 0, 1))
    kernel = np.random.default_rng(0).normal(size=(24, 5))
    index = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1).ravel()
    for target in ("first", "last"):
        have = rows.put(kernel, target)
        np.testing.assert_array_equal(have, kernel[index])
        assert not np.shares_memory(have, kernel)
        assert (have.T if target == "first" else have).flags.c_contiguous  # as the framework has it: copied once


def test_kernels_are_copied_not_changed():
    x = keras.Input((4, 5, 3), name="x")
    y = layers.Flatten()(layers.Conv2D(3, 2)(x))
    graph = keras_reader.read(keras.Model(x, layers.Dense(2, name="fc")(y)))
    before = graph.parameters["fc.kernel"].value.copy()
    after = layout.convert(graph, "first").parameters["fc.kernel"].value
    np.testing.assert_array_equal(graph.parameters["fc.kernel"].value, before)
    assert not np.array_equal(after, before) and sorted(after.ravel()) == sorted(before.ravel())


def test_most_inputs_decide():
    x, y = Value("x", (2, 3, 4)), Value("y", (2, 4, 3))
    made = [Value(n, (2, 3, 4)) for n in "abcd"]
    nodes = [
        Node("add", {"number": 1}, inputs=[x], outputs=[made[0]]),
        Node("permute", {"permutation": (0, 2, 1)}, inputs=[y], outputs=[made[1]]),
        Node("add", {"number": 1}, inputs=[made[1]], outputs=[made[2]]),
        Node("concatenate", {"axis": 1}, inputs=[made[0], made[2], made[2]], outputs=[Value("e", (2, 9, 4))]),
    ]
    result = layout.convert(Graph("g", [x, y], Value("e", (2, 9, 4)), nodes, {}, "last"), "first")
    last = next(n for n in result.nodes if n.operator == "concatenate")
    assert last["axis"] == 2 and last.outputs[0].shape == (2, 4, 9)
    assert result.outputs.shape == (2, 9, 4)


def blocks(y):
    """What transformers are made of: tokens that go on, and what is added to them."""
    for _ in range(2):
        z = layers.Dense(5, "tanh")(layers.LayerNormalization()(y))
        y = layers.Add()([y, layers.Dense(4)(z)])
    return layers.LayerNormalization()(y)


def patches():
    x = keras.Input((6, 8, 3), name="x")
    y = blocks(layers.Reshape((12, 4))(layers.Conv2D(4, 2, 2)(x)))
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(y[:, :1])))


def sound():
    x = keras.Input((9, 3), name="x")
    y = layers.Conv1D(4, 3, activation="tanh")(layers.Conv1D(4, 3)(x))
    return keras.Model(x, blocks(y))


def mixed():
    """Of pictures that convolutions go on with, what is between becomes tokens, and a picture again."""
    x = keras.Input((4, 4, 3), name="x")
    y = layers.Conv2D(4, 1)(x)
    for _ in range(2):
        z = blocks(layers.Reshape((16, 4))(layers.Conv2D(4, 3, padding="same")(y)))
        y = layers.Add()([y, layers.Reshape((4, 4, 4))(z)])
    return keras.Model(x, y)


@pytest.mark.parametrize("make, count", [(patches, 1), (sound, 2), (mixed, 4)])
def test_tokens_have_their_channels_last(check, make, count):
    """Turned once, and from whichever side they are looked at."""
    model = make()
    assert permutes(model) == count
    module = bridge.to_torch(model)
    assert sum(isinstance(m, torch.nn.LayerNorm) for m in module.modules()) == (6 if make is mixed else 3)
    x = (torch.randn(2, *(model.input_shape[i] for i in (3, 1, 2))),) if make is not sound else (torch.randn(2, 9, 3),)
    mine = layout.convert(keras_reader.read(model), "first")
    theirs = layout.convert(torch_reader.read(module, x), "first")
    assert [n.operator for n in mine.nodes] == [n.operator for n in theirs.nodes]
    check.both_ways(model)


def test_what_one_reader_wants_is_turned_before_it():
    """A mean over all columns is smaller than what it is of."""
    x = keras.Input((8, 3), name="x")
    mean = layers.GlobalAveragePooling1D(keepdims=True)(layers.Conv1D(4, 3)(x))
    last = layout.convert(keras_reader.read(keras.Model(x, mean)), "first").nodes[-1]
    assert last.operator != "permute" or last.inputs[0].shape == (None, 4, 1)


def test_a_long_way_to_what_wants_an_order():
    """Longer than Python's stack, and than what is looked at of it."""
    values = [Value(f"v{i}", (2, 3, 4)) for i in range(2000)]
    nodes = [Node("softmax", {"axis": 2}, inputs=[a], outputs=[b]) for a, b in pairwise(values)]
    graph = Graph("g", values[:1], values[-1], nodes, {}, "last")
    assert not any(n.operator == "permute" for n in layout.convert(graph, "first").nodes)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 2, 1)])
def test_an_input_may_have_an_order_of_its_own(order):
    graph = layout.convert(keras_reader.read(convolutions()), "first", {"x": order})
    assert graph.inputs[0].order == order and graph.nodes[0].operator == "permute"


class Token(torch.nn.Module):
    """A class token that is made before the patches or after them, and the mean of experts by their gates."""

    def __init__(self, first):
        super().__init__()
        self.first, self.token = first, torch.nn.Parameter(torch.randn(4))
        self.patch, self.norm = torch.nn.Conv2d(3, 4, 2, 2), torch.nn.LayerNorm(4)
        self.gate, self.experts = torch.nn.Linear(4, 2), torch.nn.ModuleList(torch.nn.Linear(4, 3) for _ in range(2))

    def forward(self, x):
        token = self.token.expand(x.shape[0], 1, -1) if self.first else None
        patches = self.patch(x).flatten(2).mT  # (B, 9, 4)
        token = self.token.expand(x.shape[0], 1, -1) if token is None else token
        y = self.norm(torch.cat([token, patches], 1))[:, 0]
        gates = self.gate(y).softmax(-1)
        return (gates[..., None] * torch.stack([expert(y) for expert in self.experts], 1)).sum(1)


@pytest.mark.parametrize("first", [True, False])
def test_what_is_made_of_weights_alone(check, first):
    module, x = Token(first), torch.randn(2, 3, 6, 6)
    model = check.from_torch(module, x)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


class Quantiser(torch.nn.Module):
    """Each cell's nearest row of a table, as people write it: by views of the cells with their channels last."""

    def __init__(self):
        super().__init__()
        self.c, self.rows, self.d = torch.nn.Conv2d(3, 4, 1), torch.nn.Embedding(10, 4), torch.nn.Conv2d(4, 3, 1)

    def forward(self, x):
        z = self.c(x)
        b, c, h, w = z.shape
        cells = z.permute(0, 2, 3, 1).reshape(-1, c)
        nearest = (cells[:, None] - self.rows.weight).square().sum(-1).argmin(1)
        found = self.rows(nearest).view(b, h, w, c).permute(0, 3, 1, 2)
        return self.d(z + (found - z).detach())


@pytest.mark.parametrize("dynamic", [[{0}], [{0, 2, 3}]], ids=["fixed", "open"])
def test_what_renames_axes_shares_what_is_written(check, dynamic):
    module, x = Quantiser().eval(), torch.randn(2, 3, 8, 6)
    model = bridge.to_keras(module, (x,), dynamic)
    for other in (module, bridge.to_torch(model)):
        report = bridge.verify(model, other)
        assert report.passed, str(report)
