"""Weights into the user's own model of the other framework: trained on either side, whatever the layers are called."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import model_weights, weights

nn = torch.nn
layers = keras.layers
X = torch.randn(2, 3, 8, 8)


class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        self.short = nn.Conv2d(a, b, 1)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)) + self.short(x))


class Net(nn.Module):
    """Blocks, attention whose weights are parts of one, a token, and a scale."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 4), nn.MaxPool2d(2), Block(4, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.token, self.head = nn.Parameter(torch.randn(1, 1, 6)), nn.Linear(6, 5)

    def forward(self, x):
        x = self.blocks(x).flatten(2).mT
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.head(self.attention(x, x, x, need_weights=False)[0][:, 0])


def trained(module):
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module.train()(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return module.eval()


def same(model, module):
    have = np.asarray(model(X.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(have, module(X).detach(), rtol=1e-4, atol=1e-5)


def test_trained_in_torch():
    model, module = bridge.to_keras(Net().eval(), (X,)), trained(Net())
    assert bridge.load_weights(model, module) is model
    same(model, module)
    assert bridge.verify(model, module).passed


def test_trained_in_keras():
    module = Net().eval()
    model = bridge.to_keras(module, (X,))
    model.compile("sgd", "mse")
    model.fit(np.random.rand(4, 8, 8, 3), np.random.rand(4, 5), epochs=2, verbose=0)
    other = Net().eval()
    bridge.load_weights(other, model)
    same(model, other)
    assert bridge.verify(model, other).passed


def test_the_names_come_back_so_that_a_state_dict_loads():
    module = nn.Sequential(Block(3, 4), nn.Sequential(Block(4, 2), nn.Flatten(), nn.Linear(128, 3))).eval()
    model = bridge.to_keras(module, (X,))
    model.compile("sgd", "mse")
    model.fit(np.random.rand(4, 8, 8, 3), np.random.rand(4, 3), epochs=1, verbose=0)
    back = bridge.to_torch(model)
    assert back.state_dict().keys() == module.state_dict().keys()
    module.load_state_dict(back.state_dict(), strict=True)
    same(model, module)


def test_other_names():
    x = keras.Input((8, 8, 3), name="picture")
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="a")(x)
    y = layers.Add()([layers.BatchNormalization(epsilon=1e-5, name="n")(y), layers.Conv2D(4, 1, name="z")(x)])
    model, module = keras.Model(x, layers.ReLU()(y)), Block(3, 4).eval()
    bridge.load_weights(model, module)
    have = np.asarray(model(X.permute(0, 2, 3, 1).numpy())).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(have, module(X).detach(), rtol=1e-3, atol=1e-4)


def test_the_map_of_names():
    module = Net().eval()
    model = bridge.to_keras(module, (X,))
    names = model_weights.names(model, module)
    assert names["blocks.0.conv.kernel"] == "blocks.0.conv.weight" and names["token.kernel"] == "token"
    assert names["blocks.0.norm.moving_variance"] == "blocks.0.norm.running_var"
    assert set(names.values()) >= {n for n, _ in module.named_parameters()}
    assert bridge.verify(model, module).names == names


@pytest.mark.parametrize(
    "target, text",
    [
        (lambda: nn.Sequential(Block(3, 4), Block(4, 2)), "have no place in Sequential, which computes something else"),
        (lambda: nn.Sequential(Block(3, 5)), "do not fit into Sequential: 0.conv.weight has the shape .5, 3, 3, 3."),
    ],
)
def test_all_or_nothing(target, text):
    model, module = bridge.to_keras(nn.Sequential(Block(3, 4)).eval(), (X,)), target().eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.load_weights(module, model)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_one_framework():
    with pytest.raises(bridge.BridgeError, match="a file for a torch module. Received: Block. Give its state_dict"):
        bridge.load_weights(Block(3, 4), Block(3, 4))


def test_files_of_keras(tmp_path):
    source = bridge.to_keras(trained(Net()), (X,))
    source.save(tmp_path / "a.keras")
    source.save_weights(tmp_path / "a.weights.h5")
    model = keras.models.clone_model(source)
    for name in ("a.keras", "a.weights.h5"):
        for weight in model.weights:
            weight.assign(0 * weight)
        bridge.load_weights(model, tmp_path / name)
        for a, b in zip(model.weights, source.weights, strict=True):
            np.testing.assert_array_equal(a, b)
    module = Net().eval()
    bridge.load_weights(module, tmp_path / "a.keras")
    same(source, module)
    with pytest.raises(bridge.BridgeError, match=r"has weights alone, .*: give the .keras file"):
        bridge.load_weights(module, tmp_path / "a.weights.h5")


class Renamed(nn.Module):
    """`Block` by other names."""

    def __init__(self):
        super().__init__()
        self.main, self.beside = (
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)),
            nn.Conv2d(3, 4, 1),
        )

    def forward(self, x):
        return torch.relu(self.main(x) + self.beside(x))


def test_a_state_dict_into_a_module_of_other_names(tmp_path):
    source, module = trained(Block(3, 4)), Renamed().eval()
    torch.save(source.state_dict(), tmp_path / "a.pt")
    for given in (source.state_dict(), tmp_path / "a.pt"):
        module.load_state_dict(Renamed().state_dict())
        assert bridge.load_weights(module, given) is module
        assert torch.equal(module(X), source(X)) and source(X).std() > 0.01
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = source.state_dict() | {"more.weight": torch.ones(3)}
    with pytest.raises(bridge.BridgeError, match=r"without a place: more.weight \(3,\)"):
        bridge.load_weights(module, state)
    with pytest.raises(bridge.BridgeError, match="1 of another shape: beside.bias"):
        bridge.load_weights(module, module.state_dict() | {"beside.bias": torch.ones(9)})
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def two(swapped=False):
    """Two equal layers that follow one another, as Keras has them; or the second first."""
    x = keras.Input((4,), name="x")
    first, second = (layers.Dense(4, activation="tanh", name=name) for name in ("p", "q"))
    return keras.Model(x, first(second(x)) if swapped else second(first(x)), name="two")


class Two(nn.Module):
    """The same with other names, the second layer made first."""

    def __init__(self):
        super().__init__()
        self.b, self.a = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.b(torch.tanh(self.a(x))))


def test_equal_layers_of_a_source_that_runs_are_told_apart():
    model, module = two(), Two().eval()
    plan = weights.plan(model, module)
    assert {(r.source, r.target, r.transform) for r in plan.rows()} == {
        ("a.weight", "p.kernel", "axes 1, 0"),
        ("a.bias", "p.bias", "as it is"),
        ("b.weight", "q.kernel", "axes 1, 0"),
        ("b.bias", "q.bias", "as it is"),
    }
    before = model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True)) and not plan.notes
    plan.fill()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(model(x), module(torch.from_numpy(x)).detach(), rtol=1e-5, atol=1e-6)


def test_of_a_state_dict_alone_they_are_not_and_that_is_said():
    plan = weights.plan(two(), Two().state_dict())
    assert {row.how for row in plan.rows()} == {"by order"}
    (note,) = plan.notes
    assert note.startswith("of 2 layers (b, a) the order alone says which is which")
    assert "that two of one shape are swapped could only be seen by running the source" in note
    with pytest.warns(UserWarning, match="the order alone says which is which"):
        bridge.load_weights(two(), Two().state_dict())


def test_a_swapped_pair_is_caught_by_running_and_everything_is_put_back(monkeypatch):
    """Should the alignment ever be wrong, the outputs say so."""
    model, module = two(), Two().eval()
    before = model.get_weights()
    honest = model_weights.pairs_of

    def swapped(*given):
        other = {"p": "q", "q": "p"}
        return [(f"{other[a[0]]}{a[1:]}", b) for a, b in honest(*given)]

    monkeypatch.setattr(model_weights, "pairs_of", swapped)
    with pytest.raises(bridge.BridgeError, match="on a random input output 0 differs by .* Nothing has been changed"):
        bridge.load_weights(model, module)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_keras_model_of_other_names(tmp_path):
    model, other = two(), two(swapped=True)
    bridge.load_weights(other, model)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(other(x), model(x))
    np.testing.assert_array_equal(other.get_layer("q").kernel, model.get_layer("p").kernel)
    renamed = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "name": f"my_{layer.name}"})
    )
    for weight in renamed.weights:
        weight.assign(0 * weight)
    model.save(tmp_path / "a.keras")
    model.save_weights(tmp_path / "a.weights.h5")
    for name in ("a.keras", "a.weights.h5"):
        plan = weights.plan(renamed, tmp_path / name)
        assert {row.how for row in plan.rows()} == {
            "by what is computed" if name == "a.keras" else "by class and order"
        }
        assert bool(plan.notes) == (name != "a.keras")
        assert not np.asarray(renamed(x)).any()
        plan.fill()
        np.testing.assert_array_equal(renamed(x), model(x))
        for weight in renamed.weights:
            weight.assign(0 * weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(tmp_path, value):
    model, module = two(), Two().eval()
    module.a.bias.data[1] = value
    with pytest.raises(bridge.BridgeError, match="1 with NaN or infinite numbers: a.bias"):
        bridge.load_weights(Two(), module.state_dict())
    state = {name.replace("a.", "p.").replace("b.", "q."): value for name, value in module.state_dict().items()}
    with pytest.raises(bridge.BridgeError, match=r"1 with NaN or infinite numbers: p.bias"):
        bridge.load_weights(model, state)
    before = model.get_weights()
    with pytest.raises(bridge.BridgeError, match="a.bias has NaN or infinite numbers"):
        bridge.load_weights(model, module)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    broken = two()
    broken.get_layer("p").bias.assign([0, value, 0, 0])
    broken.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(bridge.BridgeError, match="1 with NaN or infinite numbers: p/bias"):
        bridge.load_weights(model, tmp_path / "a.weights.h5")


def test_a_plan_of_a_state_dict_says_how_it_is_rearranged():
    model = bridge.to_keras(Net().eval(), (X,))
    plan = weights.plan(model, bridge.to_torch(model).state_dict())
    rows = {row.source: row for row in plan.rows()}
    conv = rows["blocks.0.conv.weight"]
    assert (
        conv.transform == "axes 3, 2, 0, 1" and conv.source_shape == (4, 3, 3, 3) and conv.target_shape == (3, 3, 3, 4)
    )
    assert conv.how == "by name" and not plan.notes


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.words(x))


def test_a_state_dict_that_contradicts_itself():
    state = {name: value.clone() for name, value in Tied().state_dict().items()}
    state["head.weight"] += 1
    target = Tied()
    before = target.words.weight.detach().clone()
    with pytest.raises(
        bridge.BridgeError, match="head.weight differs from words.weight, which is the same tensor in T"
    ):
        bridge.load_weights(target, state)
    assert torch.equal(target.words.weight, before)


def test_numbers_too_large_for_the_dtype():
    state = {name: value * 1e6 + 1e6 for name, value in Two().state_dict().items()}
    with pytest.raises(bridge.BridgeError, match="4 with numbers too large for the dtype: b.weight in float16"):
        bridge.load_weights(Two().half(), state)
    x = keras.Input((4,), dtype="float16")
    model = keras.Model(x, layers.Dense(4, name="a", dtype="float16")(x))
    source = nn.Sequential(nn.Linear(4, 4))
    source[0].weight.data[0, 0] = 1e6
    with pytest.raises(bridge.BridgeError, match="too large for the dtype"):
        bridge.load_weights(model, {"a.weight": source[0].weight, "a.bias": source[0].bias})


@pytest.mark.parametrize(
    ("target", "source", "names", "text"),
    [
        (5, {}, None, "load_weights takes a keras.Model or a torch.nn.Module, and a model.* Received: int and dict"),
        (two, 5, None, "Received: Functional and int"),
        (two, Two, {"a": "b"}, "a table of names is for a state dict: leave it out"),
        (two, lambda: {"a.weight": "text"}, None, "a state dict has tensors or arrays. In it is str"),
        (two, lambda: {}, {"(": "b"}, "the table of names has '.' -> 'b', which is no pattern"),
    ],
)
def test_what_is_no_source_or_target(target, source, names, text):
    given = [x() if callable(x) else x for x in (target, source)]
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.load_weights(*given, names)
