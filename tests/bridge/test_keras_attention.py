"""Keras' attention over its options, both ways: traced in the words of `bridge.keras_attention`."""

import inspect

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import keras_reader
from bridge.keras_attention import followed, kept_sizes

layers = keras.layers
RANDOM = np.random.default_rng(0)
X, MEMORY = (RANDOM.normal(size=s).astype("float32") for s in [(3, 7, 6), (3, 5, 6)])
WORDS, OTHERS = (RANDOM.integers(1, 11, (3, n)).astype("int32") for n in (7, 5))
WORDS[:, 5:], OTHERS[:, 3:], OTHERS[0] = 0, 0, 0  # the last lets nothing through for any word of the first text


def multi_head(**options):
    return layers.MultiHeadAttention(2, 3, name="m", **options)


def grouped(**options):
    return layers.GroupQueryAttention(3, 4, options.pop("heads", 2), name="m", **options)


def itself(make, shape=(7, 6), **call):
    x = keras.Input(shape, name="x")
    return keras.Model(x, make(x, x, **call)), [
        X if shape[-2:] == (7, 6) or None in shape else RANDOM.normal(size=(2, *shape))
    ]


def across(make, mask=None, dtype="bool", **call):
    """Of 7 steps to 5 others, with a mask of this shape for each example."""
    x, memory = keras.Input((7, 6), name="x"), keras.Input((5, 6), name="memory")
    if mask is None:
        return keras.Model([x, memory], make(x, memory, **call)), [X, MEMORY]
    given = keras.Input(mask, name="mask", dtype=dtype)
    array = RANDOM.uniform(size=(3, *mask)) > 0.4
    array[0, ..., 0, :] = False
    made = make(x, memory, attention_mask=given, **call)
    return keras.Model([x, memory, given], made), [X, MEMORY, array.astype(dtype)]


def texts(make, as_list=False, **call):
    """Of words to other words, with the masks of both."""
    words, others = keras.Input((7,), dtype="int32", name="words"), keras.Input((5,), dtype="int32", name="others")
    h, g = (layers.Embedding(11, 6, mask_zero=True)(x) for x in (words, others))
    made = make([h, g], **call) if as_list else make(h, g, **call)
    return keras.Model([words, others], made), [WORDS, OTHERS]


NETWORKS = {
    "values of another size": lambda: itself(multi_head(value_dim=5)),
    "the same, causal": lambda: itself(multi_head(value_dim=2, use_gate=True), use_causal_mask=True),
    "the same, masked": lambda: across(multi_head(value_dim=5), (7, 5)),
    "of another shape": lambda: itself(multi_head(output_shape=(3, 4), use_bias=False)),
    "over several axes": lambda: itself(multi_head(), (4, 5, 6)),
    "over one of several": lambda: itself(multi_head(attention_axes=(2,)), (4, 5, 6)),
    "causal scores": lambda: itself(multi_head(), use_causal_mask=True, return_attention_scores=True),
    "causal, dropped": lambda: itself(multi_head(dropout=0.2), use_causal_mask=True),
    "a window of scores": lambda: itself(multi_head(sliding_window=2), return_attention_scores=True),
    "any length": lambda: itself(multi_head(), (None, 6), use_causal_mask=True),
    "masked": lambda: across(multi_head(), (7, 5)),
    "masked by head": lambda: across(multi_head(), (2, 7, 5), dtype="int32"),
    "masked scores": lambda: across(multi_head(), (7, 5), return_attention_scores=True),
    "masked, dropped": lambda: across(multi_head(dropout=0.2), (1, 5), dtype="float32"),
    "of texts": lambda: texts(multi_head(value_dim=4), use_causal_mask=True),
    "scores of texts": lambda: texts(multi_head(), return_attention_scores=True),
    "grouped": lambda: itself(grouped(heads=1)),
    "grouped, of texts": lambda: texts(grouped(dropout=0.1)),
    "dot": lambda: texts(layers.Attention(use_scale=True, dropout=0.2), True, return_attention_scores=True),
    "concat": lambda: texts(layers.Attention(score_mode="concat", use_scale=True), True, use_causal_mask=True),
    "additive": lambda: texts(layers.AdditiveAttention(dropout=0.2), True, use_causal_mask=True),
    "additive, no scale": lambda: texts(layers.AdditiveAttention(use_scale=False), True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_both_ways(check, name):
    model, arrays = NETWORKS[name]()
    check.randomise(model)
    module = bridge.to_torch(model)
    report = bridge.verify(model, module, arrays)
    assert report.passed, str(report)
    rates = [m.p for m in module.modules() if isinstance(m, nn.Dropout)]
    assert rates == {"causal, dropped": [0.2], "masked, dropped": [0.2], "grouped, of texts": [0.1]}.get(
        name, [0.2] if name in ("dot", "additive") else []
    )
    tensors = tuple(
        torch.from_numpy(check.to_first(np.asarray(a, "float32" if a.dtype == float else None))) for a in arrays
    )
    again = bridge.to_keras(module, tensors, [{0, 1}] if name == "any length" else None)
    for have, want in zip(*(keras.tree.flatten(m(arrays)) for m in (again, model)), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["the same, masked", "masked scores"])
def test_lower_precision(check, name, policy):
    """The scores of values of another size are float32, as inside Keras' function."""
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(policy)
        options = {"value_dim": 5} if name == "the same, masked" else {}
        call = {} if options else {"return_attention_scores": True}
        model, arrays = across(multi_head(**options), (7, 5), **call)
    finally:
        keras.config.set_dtype_policy(before)
    report = bridge.verify(check.randomise(model), bridge.to_torch(model), arrays)
    assert report.passed, str(report)


def test_fused_where_it_can_be(check):
    """torch's own function, also with a mask; scores that are returned or dropped are written out."""
    for make, fused in ((multi_head(), True), (multi_head(dropout=0.1), False), (grouped(), True)):
        text = inspect.getsource(inspect.getmodule(type(bridge.to_torch(itself(make, use_causal_mask=True)[0]))))
        assert ("scaled_dot_product_attention(" in text) == fused and ("is_causal=True" in text) == fused


def test_a_row_that_lets_nothing_through(check):
    """The mean of the values from keras.ops.dot_product_attention, 0 where the scores are written out."""
    for options, made in (({}, "mean"), ({"dropout": 0.2}, "zero")):
        model, arrays = across(multi_head(use_bias=False, **options), (7, 5))
        check.randomise(model)
        have = bridge.to_torch(model)(*map(torch.from_numpy, arrays)).detach()
        assert check.relative(have, model(arrays)) < 1e-5
        assert (have[0, 0].abs().max() < 1e-7) == (made == "zero")


@pytest.mark.parametrize("fault", ["mask", "query and key", "rate"])
def test_a_fault_is_seen(check, fault):
    model, arrays = across(multi_head(dropout=0.2), (7, 5))
    module = bridge.to_torch(check.randomise(model))
    attention = module.m
    if fault == "mask":
        forward = module.forward
        module.forward = lambda x, memory, mask: forward(x, memory, ~mask)
    elif fault == "query and key":
        attention.query, attention.key = attention.key, attention.query
    else:
        next(m for m in module.modules() if isinstance(m, nn.Dropout)).p = 0.3
    assert not bridge.verify(model, module, arrays).passed


def test_shapes_are_said_whole():
    assert kept_sizes("abc,cde->abde", (None, 7, 6), (None, None, 2, 3)) == (None, 7, 2, 3)
    query, value = keras.KerasTensor((2, 7, 2, 3)), keras.KerasTensor((2, 5, 2, 4))
    with followed():
        made = keras.ops.dot_product_attention(query, keras.KerasTensor((2, 5, 2, 3)), value)
    assert made.shape == (2, 7, 2, 4)
    assert keras.ops.dot_product_attention(query, query, value).shape == (2, 7, 2, 3)  # as Keras says it else


def test_values_of_another_size_by_hand_are_refused():
    """Keras' own function says a wrong shape, of which all that follows is made."""
    q, v = keras.Input((7, 2, 3)), keras.Input((7, 2, 4))
    model = keras.Model([q, v], keras.ops.dot_product_attention(q, q, v))
    with pytest.raises(bridge.BridgeError, match="Keras says .None, 7, 2, 3. of the result; pad them"):
        bridge.to_torch(model)


def test_a_dropout_has_its_name_in_the_layer():
    model, _ = texts(layers.Attention(dropout=0.2, name="a"), True)
    assert "a.dropout" in [n.name for n in keras_reader.read(model).nodes]


def test_one_layer_called_twice(check):
    """Its kernels have been given other axes when the second call is read."""
    x = keras.Input((5, 8), name="x")
    attention = layers.MultiHeadAttention(2, 4, name="a")
    model = check.randomise(keras.Model(x, attention(y := attention(x, x), y)))
    module = bridge.to_torch(model)
    report = bridge.verify(model, module)
    assert report.passed, str(report)
