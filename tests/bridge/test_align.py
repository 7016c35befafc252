"""Aligning two graphs by their structure."""

import keras
import numpy as np

import bridge
from bridge.align import align, differences
from bridge.graph import Graph, Node, Parameter, Value


def graph(names, values, order=(0, 1), epsilon=1e-3) -> Graph:
    """Two Dense branches of one input, added; `order` is the order in which they are listed."""
    x, y = Value("x", (None, 3)), Value("y", (None, 3))
    branches = [Node("dense", {"units": 3}, {"kernel": n}, n, [x], [Value(n, (None, 3))]) for n in names]
    last = Node("batch_norm", {"epsilon": epsilon}, {}, "sum", [b.outputs[0] for b in branches], [y])
    parameters = {n: Parameter(np.full((3, 3), v, "float32")) for n, v in zip(names, values, strict=True)}
    return Graph("g", [x], y, [*(branches[i] for i in order), last], parameters, "last")


def test_branches_are_told_apart_by_name():
    first, second = graph(["a", "b"], [1, 2]), graph(["a", "b"], [1, 2], order=(1, 0))
    pairs, sentences = align(first, second)
    assert not sentences and [(p.keras.name, p.torch.name) for p in pairs] == [("a", "a"), ("b", "b"), ("sum", "sum")]
    assert differences(pairs, first, second) == []


def test_dots_and_underscores_are_the_same_name():
    pairs, _ = align(graph(["up.a", "up.b"], [1, 2]), graph(["up_a", "up_b"], [1, 2], order=(1, 0)))
    assert [p.torch.name for p in pairs][:2] == ["up_a", "up_b"]


def test_differences_are_all_named():
    first, second = graph(["a", "b"], [1, 2]), graph(["a", "b"], [1, 2.5], epsilon=1e-5)
    second.parameters["a"].trainable = False
    pairs, _ = align(first, second)
    text = "\n".join(differences(pairs, first, second))
    assert "b.kernel: the weights differ by up to 5.0e-01" in text
    assert "a.kernel: trained in Keras, frozen in torch" in text
    assert "sum: epsilon is 0.001 in Keras and 1e-05 in torch" in text


def test_what_has_no_counterpart_is_named_once():
    first, second = graph(["a", "b"], [1, 2]), graph(["a", "b"], [1, 2])
    second.nodes = second.nodes[1:]
    _, sentences = align(first, second)
    assert sentences == ["a (dense) has no counterpart in the torch module"]  # the sum follows from it


def test_other_outputs_are_seen():
    first, second = graph(["a", "b"], [1, 2]), graph(["a", "b"], [1, 2])
    second.outputs = second.nodes[0].outputs[0]
    assert "the outputs are not the same tensors" in align(first, second)[1][0]


def test_the_order_of_a_sum_does_not_matter():
    first, second = graph(["a", "b"], [1, 2]), graph(["a", "b"], [1, 2])
    for g in (first, second):
        g.nodes[-1].operator = "add"
    second.nodes[-1].inputs.reverse()
    assert not align(first, second)[1]
    first.nodes[-1].operator = second.nodes[-1].operator = "subtract"
    assert align(first, second)[1]


def test_branches_with_other_names_are_told_apart_by_their_weights():
    first, second = graph(["a", "b"], [1, 2]), graph(["left", "right"], [1, 2], order=(1, 0))
    pairs, sentences = align(first, second)
    assert not sentences and [p.torch.name for p in pairs] == ["left", "right", "sum"]


def test_other_keys_of_the_outputs():
    first, second = graph(["a", "b"], [1, 2]), graph(["a", "b"], [1, 2])
    first.outputs, second.outputs = {"y": first.outputs}, {"z": second.outputs}
    assert align(first, second)[1] == ["the outputs have other keys: ['y'] in Keras, ['z'] in torch"]


def test_other_sharing():
    first, second = graph(["a", "b"], [1, 1]), graph(["a", "b"], [1, 1])
    first.nodes[1].parameters = {"kernel": "a"}
    pairs, _ = align(first, second)
    assert differences(pairs, first, second) == ["the sharing differs: a is one weight in Keras, 2 in torch: a, b"]


def test_sizes_may_be_taken_from_other_tensors(check):
    """A causal mask of an open length has it twice in Keras, from the words' mask too, and once in torch."""
    words = keras.Input((None,), dtype="int32", name="words")
    x = keras.layers.Embedding(20, 6, mask_zero=True, name="table")(words)
    y = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x, use_causal_mask=True)
    model = check.randomise(keras.Model(words, y))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_what_is_made_of_sizes_twice(check):
    """Keras makes each causal mask of its own tensor, torch both of one size."""
    words = keras.Input((None,), dtype="int32", name="words")
    x = keras.layers.Embedding(9, 6, mask_zero=True, name="e")(words)
    for i in range(2):
        y = keras.layers.MultiHeadAttention(2, 3, name=f"a{i}")(x, x, use_causal_mask=True)
        x = keras.layers.LayerNormalization(name=f"n{i}")(x + y)
    model = check.randomise(keras.Model(words, x))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_sizes_of_another_tensor_are_another_thing():
    """One reshape is no counterpart of two that take their sizes from two tensors."""

    def graph(second: str) -> Graph:
        x, y, z = (Value(n, (None, None, 3)) for n in "xyz")
        likes = {"y": y, "z": z}
        outs = [Value(f"o{i}", (None, None, None)) for i in range(2)]
        nodes = [
            Node("reshape", {"blocks": ((3, (1, 2, 3)),)}, inputs=[x, likes[n]], outputs=[o])
            for n, o in zip(("y", second), outs, strict=True)
        ]
        return Graph("g", [x, y, z], outs, nodes, {}, "last")

    assert align(graph("z"), graph("z"))[1] == []
    assert align(graph("z"), graph("y"))[1] and align(graph("y"), graph("z"))[1]
