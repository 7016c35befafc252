"""Tensors of other names: by the order of whole networks, or alone of their kind; nothing else is guessed."""

from bridge.matching import ALONE, ORDER, Pair, match

CONV = {"weight": (4, 3, 3, 3), "bias": (4,)}
NORM = {"weight": (4,), "bias": (4,), "running_mean": (4,)}
SAME = {"weight": (4, 4, 3, 3), "bias": (4,)}
HEAD = {"weight": (10, 4), "bias": (10,)}


def network(**layers):
    return {f"{layer}.{end}": shape for layer, kind in layers.items() for end, shape in kind.items()}


def test_the_same_layers_in_the_same_order():
    theirs = network(stem=CONV, bn=NORM, one=SAME, two=SAME, fc=HEAD)
    ours = network(a=CONV, b=NORM, c=SAME, d=SAME, e=HEAD)
    pairs, left, missing = match(theirs, ours)
    assert not left and not missing and len(pairs) == len(ours)
    assert Pair("stem.weight", "a.weight", ALONE) in pairs and Pair("bn.running_mean", "b.running_mean", ALONE) in pairs
    assert Pair("one.bias", "c.bias", ORDER) in pairs and Pair("two.bias", "d.bias", ORDER) in pairs


def test_in_another_order_only_what_is_alone_of_its_kind():
    pairs, left, missing = match(
        network(fc=HEAD, one=SAME, two=SAME, stem=CONV), network(a=CONV, c=SAME, d=SAME, e=HEAD)
    )
    assert {(p.source, p.target, p.how) for p in pairs} == {
        ("fc.weight", "e.weight", ALONE),
        ("fc.bias", "e.bias", ALONE),
        ("stem.weight", "a.weight", ALONE),
        ("stem.bias", "a.bias", ALONE),
    }
    assert left == ["one.weight (4, 4, 3, 3)", "one.bias (4,)", "two.weight (4, 4, 3, 3)", "two.bias (4,)"]
    assert missing == ["c.weight (4, 4, 3, 3)", "c.bias (4,)", "d.weight (4, 4, 3, 3)", "d.bias (4,)"]


def test_other_shapes_and_missing_parts_are_other_kinds():
    pairs, left, missing = match(
        network(one=CONV, two=HEAD), network(a={"weight": (4, 3, 3, 3)}, b={**HEAD, "bias": (9,)})
    )
    assert not pairs and len(left) == 4 and len(missing) == 3


def test_names_without_a_layer_and_with_slashes():
    pairs, left, missing = match({"scale": (3,), "a/b/0": (2, 2)}, {"scale": (3,), "x/0": (2, 2)})
    assert [(p.source, p.target) for p in pairs] == [("scale", "scale"), ("a/b/0", "x/0")] and not left and not missing
