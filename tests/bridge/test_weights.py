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
    with pytest.raises(bridge.BridgeError, match=r"has weights alone, .*example_inputs, --input"):
        bridge.load_weights(module, tmp_path / "a.weights.h5")
    for target, given in ((model, tmp_path / "a.weights.h5"), (module, tmp_path / "a.keras"), (module, source)):
        with pytest.raises(bridge.BridgeError, match="example inputs are for a torch module and Keras' weights alone"):
            bridge.load_weights(target, given, example_inputs=(X,))


class Pooled(nn.Module):
    """What `pooled` is in Keras, by other names and with other layers between."""

    def __init__(self, turn=False):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, eps=1e-3)
        self.body, self.head, self.turn = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(64, 5), turn

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.norm(self.stem(x))), 2)
        x = torch.relu(self.body(x))
        return self.head((x.permute(0, 2, 3, 1) if self.turn else x).flatten(1))


@pytest.fixture(scope="module")
def pooled(check, tmp_path_factory):
    """A Keras model, and its weights alone as Keras and as TensorFlow write them."""
    import tensorflow as tf

    x = y = keras.Input((8, 8, 3))
    y = layers.BatchNormalization(name="statistics")(layers.Conv2D(4, 3, padding="same", name="first")(y))
    y = layers.MaxPooling2D()(layers.Dropout(0.3)(layers.ReLU()(y)))
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(y)
    model = check.randomise(keras.Model(x, layers.Dense(5, name="out")(layers.Flatten()(y))))
    folder = tmp_path_factory.mktemp("pooled")
    model.save_weights(folder / "w.weights.h5")
    return model, [str(folder / "w.weights.h5"), tf.train.Checkpoint(net=model).save(str(folder / "k"))]


@pytest.mark.parametrize("kind", ["keras", "tensorflow"])
def test_weights_alone_into_a_module(pooled, kind):
    model, files = pooled
    path = files[kind == "tensorflow"]
    module = Pooled().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    plan = weights.plan(module, path, example_inputs=(X,))
    rows = {row.target: row for row in plan.rows()}
    assert len(rows) == 10 and rows["head.weight"].transform == "rows in torch's order"
    last = {"keras": "out/0", "tensorflow": "net/_operations/8/_kernel"}
    assert rows["head.weight"].source == last[kind] and rows["head.weight"].how == weights.BY_CLASS
    assert "cannot be tried" in plan.notes[-1]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.warns(UserWarning, match="cannot be tried"):
        bridge.load_weights(module, path, example_inputs=(X,))
    same(model, module)


def test_weights_alone_do_not_say_the_order_of_turned_rows(pooled):
    module = Pooled(turn=True).eval()
    with pytest.raises(bridge.BridgeError, match=r"flattens a picture \(.*flatten\) so that weights alone"):
        bridge.load_weights(module, pooled[1][0], example_inputs=(X,))


def test_the_names_of_a_recurrent_layer_are_the_files(check, tmp_path):
    import tensorflow as tf

    x = keras.Input((5, 4))
    model = check.randomise(keras.Model(x, layers.Dense(3, name="z")(layers.LSTM(6, name="memory")(x))))
    model.save_weights(tmp_path / "w.weights.h5")

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.l, self.d = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)
            self.l.bias_hh_l0.data.zero_().requires_grad_(False)

        def forward(self, x):
            return self.d(self.l(x)[0][:, -1])

    module, x = Own().eval(), torch.randn(2, 5, 4)
    prefix = tf.train.Checkpoint(net=model).save(str(tmp_path / "k"))
    for path, start in ((str(tmp_path / "w.weights.h5"), "memory"), (prefix, "net/_operations/1")):
        rows = weights.plan(module, path, example_inputs=(x,)).rows()
        assert {row.how for row in rows} == {weights.BY_CLASS}
        found = [row.source for row in rows if row.target.startswith("l.weight")]
        assert len(found) == 2 and all(name.startswith(start) for name in found)


@pytest.mark.parametrize(
    "state, text",
    [
        ({1: torch.ones(1)}, "the names in a state dict are texts. Received: 1"),
        ({"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "1.ids": torch.tensor([0.5, 1.7])}, "1.ids in int64"),
        (
            {
                "0.weight": torch.ones(3, 2),
                "0.bias": torch.ones(3),
                "1.ids": torch.ones(2),
                "2.num_batches_tracked": torch.ones(5, dtype=torch.int64),
            },
            "1 that should be one whole number: 2.num_batches_tracked .5,.",
        ),
    ],
)
def test_what_no_tensor_can_hold(state, text):
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("ids", torch.arange(2))

        def forward(self, x):
            return x

    module = nn.Sequential(nn.Linear(2, 3), Buffered(), nn.BatchNorm1d(3, affine=False))
    statistics = {"2.running_mean": torch.zeros(3), "2.running_var": torch.ones(3)}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(bridge.BridgeError, match=text):
        bridge.load_weights(module, {**state, **statistics})
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("names", [{"a": 5}, [1]])
def test_a_table_that_is_none(names):
    model = bridge.to_keras(Net().eval(), (X,))
    with pytest.raises(bridge.BridgeError, match="names is a dictionary from patterns to names. Received:"):
        bridge.load_weights(model, Net().state_dict(), names)


def test_a_number_too_large_for_the_file(tmp_path):
    x = keras.Input((3,))
    large = keras.Model(x, layers.Dense(2, name="d")(x))
    large.get_layer("d").bias.assign([1e30, 0])
    large.save_weights(tmp_path / "w.weights.h5")
    small = keras.Model(x := keras.Input((3,)), layers.Dense(2, name="d", dtype="float16")(x))
    with pytest.raises(bridge.BridgeError, match="1 with numbers that the dtype does not have: d/bias in float16"):
        bridge.load_weights(small, tmp_path / "w.weights.h5")
