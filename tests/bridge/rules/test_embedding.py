"""Embedding with indices of any dtype, both ways."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import keras_reader, torch_reader
from bridge.samples import sample

layers = keras.layers


def network(dtype="int32", size=11, length=5, **options):
    x = keras.Input((length,), dtype=dtype, name="tokens")
    y = layers.Embedding(size, 4, name="e", **options)(x)
    return keras.Model(x, layers.Dense(3, name="d")(y))


def compare(check, model, module, shape=(2, 5), size=11):
    dtype = model.inputs[0].dtype
    tokens = np.random.default_rng(0).integers(0, size, shape).astype(dtype)
    have = module(torch.from_numpy(tokens)).detach()
    assert check.relative(have, model(tokens)) < 1e-6
    return torch.from_numpy(tokens)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "uint8", "int8"])
@pytest.mark.parametrize("length", [5, None])
def test_both_ways(check, dtype, length):
    model = check.randomise(network(dtype, length=length))
    module = bridge.to_torch(model)
    tokens = compare(check, model, module)
    assert type(module.e) is torch.nn.Embedding and module.e.padding_idx is None
    np.testing.assert_array_equal(module.e.weight.detach(), model.get_layer("e").embeddings)
    again = bridge.to_keras(module, (tokens,), [{0} if length else {0, 1}])
    assert again.inputs[0].dtype == dtype and isinstance(again.get_layer("e"), layers.Embedding)
    np.testing.assert_array_equal(again(tokens.numpy()), model(tokens.numpy()))
    for a, b in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    if length is None:
        assert bridge.verify(model, module).passed and bridge.verify(again, module).passed


def test_fractions_are_cut(check):
    model = check.randomise(network("float32"))
    tokens = np.array([[0.9, 1.5, 2.99, 3.0, 10.4]], "float32")
    have = bridge.to_torch(model)(torch.from_numpy(tokens)).detach()
    assert check.relative(have, model(tokens)) < 1e-6


@pytest.mark.parametrize("shape, rank", [((), 2), ((5,), 3), ((3, 5), 4), ((2, 3, 5), 5)])
def test_ranks(check, shape, rank):
    """The tensor that comes out has its new axis last, wherever its layout puts the channels from there on."""
    x = keras.Input(shape, dtype="int32", name="tokens")
    y = layers.Embedding(11, 4, name="e")(x)
    if rank > 3:
        y = getattr(layers, f"Conv{rank - 2}D")(2, 2, name="c")(y)
    model = check.randomise(keras.Model(x, y))
    module = bridge.to_torch(model)
    tokens = np.random.default_rng(0).integers(0, 11, (2, *shape)).astype("int32")
    # an integer tensor of rank 4 follows the rule for images, too
    have = module(torch.from_numpy(check.to_first(tokens))).detach().numpy()
    assert check.relative(check.to_last(have), model(tokens)) < 1e-6
    assert bridge.verify(model, module).passed


class Text(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.e, self.fc = torch.nn.Embedding(7, 4, **options), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.e(x))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_from_torch(check, dtype):
    module, x = Text().eval(), torch.randint(0, 7, (2, 5), dtype=dtype)
    model = bridge.to_keras(module, (x,))
    assert f"torch.{model.inputs[0].dtype}" == str(dtype)
    compare(check, model, module, size=7)
    assert bridge.verify(model, module).passed


def test_the_function(check):
    class Module(Text):
        def forward(self, x):
            return self.fc(torch.nn.functional.embedding(x, self.e.weight)) + self.fc(self.e(x.long()))

    module, x = Module(), torch.randint(0, 7, (2, 5))
    model = bridge.to_keras(module, (x,))
    compare(check, model, module, size=7)
    assert sum(isinstance(x, layers.Embedding) for x in model.layers) == 1
    assert bridge.verify(model, module).passed


@pytest.mark.parametrize("frozen", [False, True])
def test_padding_gets_no_gradient(check, frozen, tmp_path):
    module, x = Text(padding_idx=-3), torch.randint(0, 7, (2, 5), generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(module.e.weight)
    module.e.requires_grad_(not frozen)
    model = bridge.to_keras(module, (x,))
    compare(check, model, module, size=7)
    report = bridge.verify(model, module, [np.array([[4, 1, 4, 0, 2], [6, 4, 5, 5, 3]])])
    assert report.passed, str(report)
    model.save(tmp_path / "model.keras")
    again = bridge.to_torch(keras.models.load_model(tmp_path / "model.keras", safe_mode=True))
    assert again.e.padding_idx == 4 and again.e.weight.requires_grad != frozen
    plain = Text()
    plain.load_state_dict(module.state_dict())
    report = bridge.verify(model, plain)
    assert not report.passed and "e: padding is 4 in Keras and None in torch" in str(report)


def test_small_tables_get_small_indices():
    """Token types are 0 and 1: the samples of a comparison must not leave the smallest table."""
    x, types = keras.Input((5,), dtype="int32", name="tokens"), keras.Input((5,), name="types")
    y = layers.Add()([layers.Embedding(300, 4, name="e")(x), layers.Embedding(2, 4, name="t")(types)])
    model = keras.Model([x, types], [y, layers.Embedding(20, 4, name="f")(x)])
    tokens, kinds = sample(keras_reader.read(model), 5, batch=64)
    assert tokens.max() == 19 and set(np.unique(kinds)) == {0, 1} and kinds.dtype == "float32"
    assert bridge.verify(model, bridge.to_torch(model)).passed


def test_shared_and_frozen(check):
    a, b = keras.Input((5,), dtype="int32", name="a"), keras.Input((6,), dtype="int32", name="b")
    shared = layers.Embedding(11, 4, name="e", trainable=False)
    model = check.randomise(keras.Model([a, b], [shared(a), shared(b)]))
    module = bridge.to_torch(model)
    assert list(module.state_dict()) == ["e.weight"] and not module.e.weight.requires_grad
    assert bridge.verify(model, module).passed


def test_a_mask_that_nothing_reads(check):
    model = check.randomise(network(mask_zero=True))
    module = bridge.to_torch(model)
    compare(check, model, module)
    assert [n.operator for n in keras_reader.read(model).nodes] == [
        n.operator for n in keras_reader.read(network()).nodes
    ]


def test_the_module_compiles(check):
    module, tokens = bridge.to_torch(network("float32")), torch.randint(0, 11, (2, 5)).float()
    torch.testing.assert_close(torch.compile(module, backend="eager", fullgraph=True)(tokens), module(tokens))


def test_refusals_from_keras():
    x = keras.Input((5,), dtype="int32", name="tokens")
    lora = layers.Embedding(11, 4, lora_rank=2, name="e")
    with pytest.raises(bridge.BridgeError, match="it is quantised, or has LoRA weights; carry the model before that"):
        bridge.to_torch(keras.Model(x, lora(x)))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"max_norm": 1.0}, "e (Embedding): embedding_renorm_ changes a weight or buffer in place"),
        ({"scale_grad_by_freq": True}, "scale_grad_by_freq=True, which changes the gradient; leave it out"),
    ],
)
def test_refusals_from_torch(options, text):
    with pytest.raises(bridge.BridgeError) as e:
        bridge.to_keras(Text(**options), (torch.randint(0, 7, (2, 5)),))
    assert text in str(e.value)


def test_a_table_tied_to_a_dense_layer():
    """Keras shares whole layers only: the table flows."""
    module = Text().eval()
    module.fc = torch.nn.Linear(4, 7, bias=False)
    module.fc.weight = module.e.weight
    model = bridge.to_keras(module, (torch.randint(0, 7, (2, 5)),))
    assert sum(w.name == "kernel" for w in model.trainable_weights) == 1
    assert bridge.verify(model, module).passed


def test_both_readers_say_the_same(check):
    model = network()
    nodes = [
        keras_reader.read(model).nodes[0],
        torch_reader.read(bridge.to_torch(model), (torch.zeros(2, 5, dtype=torch.int32),)).nodes[0],
    ]
    assert nodes[0].attributes == nodes[1].attributes == {"size": 11, "units": 4}
