"""Scaled dot-product attention: heads, masks, biases and Dropout, both ways."""

import inspect

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bridge

layers, ops = keras.layers, keras.ops
RANDOM = torch.Generator().manual_seed(0)
CAUSAL = torch.ones(5, 5, dtype=torch.bool).tril()


def normal(*shape):
    return torch.randn(shape, generator=RANDOM)


X = normal(2, 5, 12)


class Block(nn.Module):
    """Self-attention as it is written by hand; a mask is a buffer, a parameter or an argument."""

    def __init__(self, mask=None, size=4, **options):
        super().__init__()
        self.qkv = nn.ModuleList([nn.Linear(12, 3 * size) for _ in range(3)])
        self.out = nn.Linear(3 * size, 12)
        self.mask = mask
        self.options = options

    def forward(self, x, mask=None):
        (b, t, _), mask = x.shape, self.mask if mask is None else mask
        q, k, v = (layer(x).view(b, t, 3, -1).transpose(1, 2) for layer in self.qkv)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.options)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


class Function(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, query, key, value, mask=None):
        return F.scaled_dot_product_attention(query, key, value, mask, **self.options)


def kinds(model):
    return [type(o).__name__ for o in model.operations]


@pytest.mark.parametrize(
    "block",
    [
        lambda: Block(),
        lambda: Block(size=3),
        lambda: Block(is_causal=True),
        lambda: Block(scale=0.3),
        lambda: Block(nn.Buffer(CAUSAL)),
        lambda: Block(nn.Buffer(CAUSAL[None, None])),
        lambda: Block(nn.Buffer(CAUSAL[:, :1].t())),
        lambda: Block(nn.Buffer(normal(3, 5, 5))),
        lambda: Block(nn.Buffer(normal(1, 1, 5))),
        lambda: Block(nn.Buffer(torch.zeros(5, 5).masked_fill(~CAUSAL, -torch.inf))),
        lambda: Block(nn.Parameter(normal(1, 3, 5, 5))),
    ],
)
def test_blocks(check, block):
    """Heads move at no cost in Keras."""
    module = block()
    model = check.from_torch(module, X)
    assert "DotProductAttention" in kinds(model)
    if not isinstance(module.mask, nn.Parameter):  # which may be an image
        assert not {"Permute", "Transpose"} & set(kinds(model))
    again = bridge.to_torch(model)
    assert inspect.getsource(type(again)).count("scaled_dot_product_attention(") == 1
    assert len(list(again.parameters())) == len(list(module.parameters()))


def test_training():
    module = Block(nn.Parameter(normal(5, 5))).eval()
    model = bridge.to_keras(module, (X,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
    assert bridge.verify(model, bridge.to_torch(model)).passed


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 5, 3), (2, 7, 3), (2, 7, 3)],
        [(2, 7, 3), (2, 5, 3), (2, 5, 3)],
        [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)],
        [(2, 3, 7, 4), (2, 3, 5, 4), (2, 3, 5, 4)],
        [(2, 3, 2, 5, 4), (2, 3, 2, 7, 4), (2, 3, 2, 7, 4)],
        [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)],
    ],
)
def test_ranks_and_sizes(check, shapes, causal):
    model = check.from_torch(Function(is_causal=causal), *(normal(*s) for s in shapes))
    written_out = len(shapes[0]) == 5 or shapes[2][-1] == 6
    assert ("DotProductAttention" in kinds(model)) != written_out


@pytest.mark.parametrize("shapes", [((2, 5, 4), (2, 7, 4), (2, 5, 7)), ((2, 3, 5, 4), (2, 3, 7, 4), (2, 1, 5, 7))])
def test_a_bias_that_flows(check, shapes):
    query, key, bias = shapes
    check.from_torch(Function(), normal(*query), normal(*key), normal(*key), normal(*bias))


@pytest.mark.parametrize("heads", [2, 3])
def test_heads_of_the_key_that_serve_several(check, heads):
    tensors = normal(2, 6, 5, 4), normal(2, heads, 7, 4), normal(2, heads, 7, 4)
    model = check.from_torch(Function(enable_gqa=True), *tensors)
    assert "enable_gqa=True" in inspect.getsource(type(bridge.to_torch(model)))


def keras_block(size=4, **options):
    x = keras.Input((5, 12), name="x")
    q, k, v = (layers.Reshape((5, 3, size))(layers.Dense(3 * size, name=n)(x)) for n in "qkv")
    y = ops.dot_product_attention(q, k, v, **{n: o(x) if callable(o) else o for n, o in options.items()})
    return keras.Model(x, layers.Dense(12, name="out")(layers.Reshape((5, 3 * size))(y)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True, "flash_attention": False},
        {"scale": 0.25},
        {"scale": np.asarray([0.3])},
        {"mask": CAUSAL.numpy()},
        {"bias": normal(3, 5, 5).numpy()},
        {"bias": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1)))[:, None]},
        {"bias": lambda x: ops.sum(x, (0, 2))},
    ],
)
def test_of_keras(check, options):
    module, again = check.both_ways(keras_block(**options), back="float32")
    check.same_graph(again, module, (X,))
    assert inspect.getsource(type(module)).count("scaled_dot_product_attention(") == 1


def test_the_scale_of_keras(check):
    """It is rounded to float32, whatever the model's dtype; that of torch's float64 is not."""
    model = check.randomise(keras_block(size=3))
    module = bridge.to_torch(model)
    assert "scale=" not in inspect.getsource(type(module))
    assert bridge.verify(model, module).passed
    x = X.double().numpy()
    exact, rounded = (ops.dot_product_attention(*[x[:, :, None]] * 3, scale=s) for s in (np.asarray([0.1]), 0.1))
    assert 1e-10 < check.relative(rounded, exact) < 1e-6


MASK = torch.rand((2, 1, 5, 5), generator=RANDOM) > 0.5
MASK[0, 0, 2] = False


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_mask_that_flows(check, dropout):
    """A row that lets nothing through is 0 in torch, also when the module has been to Keras and back."""
    module = Block().double()
    tensors = X.double(), MASK
    want = module(*tensors).detach()
    module.options = {"dropout_p": dropout}  # as the reader gives it: what applies in training
    model = bridge.to_keras(module, tensors)
    have = np.asarray(model([tensors[0].numpy(), check.to_last(MASK.numpy())]))
    assert check.relative(have, want) < 1e-9
    again = bridge.to_torch(model)
    assert check.relative(again(*tensors).detach(), want) < 1e-9
    check.same_graph(model, again, tensors)
    if not dropout:
        report = bridge.verify(model, module)
        assert report.passed, str(report)


@pytest.mark.parametrize("one", [False, True])
def test_a_mask_of_keras(check, one):
    """A row that lets nothing through is the mean of the values, with their gradients alone; one tensor may be all."""
    x, mask = keras.Input((5, 12), name="x"), keras.Input((5, 5), name="mask", dtype="bool")
    q, k, v = (layers.Reshape((5, 3, 4))(layers.Dense(12, name=n)(x)) for n in "qkv")
    q, k, v = (q, q, q) if one else (q, k, v)
    y = ops.dot_product_attention(q, k, v, mask=ops.expand_dims(mask, 1))
    model = check.randomise(keras.Model([x, mask], layers.Reshape((5, 12))(y)))
    module = bridge.to_torch(model)
    want = np.asarray(model([X.numpy(), MASK[:, 0].numpy()]))
    assert check.relative(module(X, MASK[:, 0]).detach(), want) < 1e-5
    assert check.relative(want[0, 2].reshape(3, 4), np.asarray(keras.Model(x, v)(X.numpy()))[0].mean(0)) < 1e-5
    check.same_graph(model, module, (X, MASK[:, 0]))
    report = bridge.verify(model, module, inputs=[X.numpy(), MASK[:, 0].numpy()])
    assert report.passed, str(report)


def test_dropout(check):
    """It becomes a layer of Keras, between the softmax and the values."""
    module = Block(dropout_p=0.2).eval()
    model = bridge.to_keras(module, (X,))
    assert [o.rate for o in model.layers if isinstance(o, layers.Dropout)] == [0.2]
    module.options = {}
    assert check.relative(model(X.numpy()), module(X).detach()) < 1e-5
    again = bridge.to_torch(model)
    assert [m.p for m in again.modules() if isinstance(m, nn.Dropout)] == [0.2]
    module.options = {"dropout_p": 0.2, "is_causal": True}
    causal = bridge.to_keras(module, (X,))
    module.options = {"is_causal": True}
    assert check.relative(causal(X.numpy()), module(X).detach()) < 1e-5
    check.same_graph(causal, bridge.to_torch(causal), (X,))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision(dtype):
    module, x = Block(nn.Buffer(CAUSAL)).eval().to(getattr(torch, dtype)), X.to(getattr(torch, dtype))
    model = bridge.to_keras(module, (x,))
    report = bridge.verify(model, module)
    assert report.passed, str(report)


def test_a_saved_model(check, tmp_path):
    """With its mask and all digits of its scale."""
    module = Block(nn.Buffer(CAUSAL), scale=0.1).double().eval()
    model = bridge.to_keras(module, (X.double(),))
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert check.relative(again(X.double().numpy()), module(X.double()).detach()) < 1e-12


def test_a_fault_is_seen():
    """Of the scale alone, and of one place of the mask."""
    module = Block(nn.Buffer(CAUSAL.clone())).eval()
    model = bridge.to_keras(module, (X,))
    module.options = {"scale": 0.51}
    assert not bridge.verify(model, module).passed
    module.options = {}
    module.mask[0, 1] = True
    report = bridge.verify(model, module)
    assert not report.passed and "mask" in str(report)


def test_heads_that_are_broadcast_are_refused():
    tensors = normal(2, 6, 5, 4), normal(2, 1, 7, 4), normal(2, 1, 7, 4)
    with pytest.raises(bridge.BridgeError, match="1 head.s. of the key for 6 of the query; repeat them before"):
        bridge.to_keras(Function(enable_gqa=True), tensors)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"bias": np.zeros((5, 5)), "mask": CAUSAL.numpy()}, "it has a bias and a mask"),
        ({"mask": CAUSAL.numpy(), "is_causal": True}, "it is causal and has a mask"),
        ({"mask": np.zeros((5, 5), bool)}, "a row of its mask lets nothing through"),
        ({"bias": lambda x: ops.cast(x[:, None, :, :5], "float16")}, "its bias is float16, its query float32"),
    ],
)
def test_what_is_refused_of_keras(options, text):
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.to_torch(keras_block(**options))
