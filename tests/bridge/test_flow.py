"""Networks that compute the same and are written otherwise: their weights are found by what flows into what."""

import keras
import numpy as np
import pytest
import torch

import bridge
from bridge import weights

layers, nn = keras.layers, torch.nn


class Block(nn.Module):
    """A residual block whose last convolution and the one beside it are of one kind; made in another order."""

    def __init__(self):
        super().__init__()
        self.beside, self.last, self.first = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.classes = nn.Linear(4, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 3, 2, 1)
        return self.classes((self.last(torch.relu(self.beside(x))) + x).amax((2, 3)))


class Parallel(Block):
    """The same layers side by side, which is another network."""

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 3, 2, 1)
        return self.classes((self.last(x) + self.beside(x)).amax((2, 3)))


def written_otherwise():
    """`Block` with the padding beside the pooling: zeros behind a ReLU are no larger than anything."""
    image = keras.Input((9, 9, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(image)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    y = layers.Conv2D(4, 1, name="c")(layers.Conv2D(4, 1, activation="relu", name="b")(x))
    return keras.Model(image, layers.Dense(5, name="d")(layers.GlobalMaxPooling2D()(x + y)), name="own")


def test_written_otherwise(check):
    model, module = check.randomise(written_otherwise()), Block().eval()
    plan = weights.plan(model, module)
    assert {(r.source, r.target) for r in plan.rows() if "weight" in r.source} == {
        ("first.weight", "a.kernel"),
        ("beside.weight", "b.kernel"),
        ("last.weight", "c.kernel"),
        ("classes.weight", "d.kernel"),
    }
    assert {r.how for r in plan.rows()} == {"by what flows into it"}
    plan.fill()
    x = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype("float32")
    with torch.no_grad():
        expected = module(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    other = Block().eval()
    bridge.load_weights(other, model)
    for a, b in zip(other.state_dict().values(), module.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_layers_of_the_same_kinds_in_another_network_are_not_taken_for_it(check):
    model = check.randomise(written_otherwise())
    before = model.get_weights()
    with pytest.raises(bridge.BridgeError, match="on a random input output 0 differs by .* Nothing has been changed"):
        bridge.load_weights(model, Parallel().eval())
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_layers_are_listed(check):
    class More(Block):
        def __init__(self):
            super().__init__()
            self.classes = nn.Linear(4, 6)

    with pytest.raises(bridge.BridgeError, match="with weights, too, are not the same: d here, nothing there; nothing"):
        bridge.load_weights(written_otherwise(), More().eval())


def test_an_optimizer_goes_over_to_such_a_module(check):
    model, module = check.randomise(written_otherwise()), Block().eval()
    bridge.load_weights(module, model)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    for i, v in enumerate(optimizer._momentums):
        v.assign(np.arange(v.numpy().size).reshape(v.shape) + 1000.0 * i)
    state = bridge.optimizer_to_torch(optimizer, model, module).state
    found = {name: state[p]["momentum"].numpy() for name, p in module.named_parameters()}
    wanted = {
        v.path.rpartition("own/")[2]: m.numpy()
        for v, m in zip(model.trainable_variables, optimizer._momentums, strict=True)
    }
    np.testing.assert_array_equal(found["last.weight"], wanted["c/kernel"].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(found["classes.weight"], wanted["d/kernel"].T)
    np.testing.assert_array_equal(found["beside.bias"], wanted["b/bias"])


def test_what_no_output_depends_on_would_not_be_filled(check):
    class Unread(Block):
        def __init__(self):
            super().__init__()
            self.auxiliary = nn.Linear(4, 2)

    with pytest.raises(
        bridge.BridgeError, match="2 weight.s. of Unread would not be filled, .*: auxiliary.weight, aux"
    ):
        bridge.load_weights(Unread().eval(), written_otherwise())


class Attention(nn.Module):
    """Self-attention as torch has it: one tensor for what are three layers in Keras."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(8, 1e-3), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        y = self.norm(x)
        return self.out(self.attention(y, y, y, need_weights=False)[0] + x)


def attention():
    x = keras.Input((6, 8))
    y = layers.LayerNormalization(name="n")(x)
    return keras.Model(x, layers.Dense(5, name="o")(layers.MultiHeadAttention(2, 4, name="mha")(y, y) + x), name="att")


def test_query_key_and_value_in_one_tensor(check):
    model, module = check.randomise(attention()), Attention().eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    plan = weights.plan(model, module)
    found = {r.source: r.target for r in plan.rows()}
    assert found["attention.in_proj_weight[8:16]"] == "mha.key.kernel"
    plan.fill()
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    other = Attention().eval()
    bridge.load_weights(other, model)
    for a, b in zip(other.state_dict().values(), module.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    optimizer = keras.optimizers.SGD(momentum=0.5)
    optimizer.build(model.trainable_variables)
    for i, v in enumerate(optimizer.momentums):
        v.assign(np.full(v.shape, i))
    state = bridge.optimizer_to_torch(optimizer, model, other).state[other.attention.in_proj_weight]["momentum"]
    places = {v.path.rpartition("mha/")[2]: i for i, v in enumerate(model.trainable_variables)}
    for i, part in enumerate(("query", "key", "value")):
        assert (state[8 * i : 8 * i + 8] == places[f"{part}/kernel"]).all()
    back = bridge.optimizer_to_keras(bridge.optimizer_to_torch(optimizer, model, other), other, model)
    for a, b in zip(back.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_keras_model_with_one_layer_for_three(check):
    """What the bridge makes of torch's attention has one Dense layer, into which a model with three goes by columns."""
    module = Attention().eval()
    one = bridge.to_keras(module, (torch.randn(2, 6, 8),))
    model = check.randomise(attention())
    bridge.load_weights(one, model)
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")
    np.testing.assert_allclose(one(x), model(x), rtol=1e-4, atol=1e-5)
    other = check.randomise(attention(), 3)
    bridge.load_weights(other, one)
    for a, b in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


class ByHand(nn.Module):
    """Attention written by hand, its layers made and called in another order than Keras'."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.LayerNorm(8, 1e-3), nn.Linear(8, 5)
        self.k, self.v, self.q, self.last = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        y = self.norm(x)
        k, v, q = (f(y).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.k, self.v, self.q))
        made = torch.softmax(q @ k.mT / 2, -1) @ v
        return self.out(self.last(made.transpose(1, 2).flatten(2)) + x)


def test_layers_that_are_alike_are_tried_in_other_orders(check):
    model, module = check.randomise(attention()), ByHand().eval()
    bridge.load_weights(module, model)
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)), model(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(module.q.bias.detach(), np.asarray(model.get_layer("mha").query_dense.bias).ravel())
    other = check.randomise(attention(), 5)
    plan = weights.plan(other, module)
    assert {r.source: r.target for r in plan.rows()}["k.weight"] == "mha.key.kernel"
    plan.fill()
    for a, b in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [0.005, 0.02, 1.0])
def test_queries_and_keys_that_hardly_matter_are_told_apart(size):
    """Of so small weights the output is the same with either in the other's place, to the last of float32."""
    rng = np.random.default_rng(0)
    x = keras.Input((5, 8))
    q, k, v = (layers.Dense(8, name=name)(x) for name in ("q", "k", "v"))
    y = keras.ops.matmul(keras.ops.softmax(keras.ops.matmul(q, keras.ops.transpose(k, (0, 2, 1)))), v)
    model = keras.Model(x, layers.Dense(8, name="o")(y))
    for weight in model.weights:
        weight.assign(rng.normal(0, size, weight.shape))

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            x = nn.functional.pad(x, (0, 0, 1, 0))[:, 1:]  # so that the graphs are not the same
            k, q = self.k(x), self.q(x)
            return self.o(torch.softmax(q @ k.mT, -1) @ self.v(x))

    module, before = Own().eval(), model.get_weights()
    plan = weights.plan(module, model)
    assert {row.how for row in plan.rows()} == {"by what flows into it"}
    plan.fill()
    for name in "qkvo":
        np.testing.assert_array_equal(model.get_layer(name).kernel, getattr(module, name).weight.detach().T)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    back = Own().eval()
    bridge.load_weights(model, back)
    np.testing.assert_array_equal(model.get_layer("q").kernel, back.q.weight.detach().T)


@pytest.mark.parametrize("tail", ["root", "dead"])
def test_random_weights_of_which_nothing_comes(tail):
    """Then weights about the trained ones are tried, and what still says nothing confirms nothing."""
    x = keras.Input((5, 8))
    q, k, v = (layers.Dense(8, name=name)(x) for name in ("q", "k", "v"))
    y = keras.ops.matmul(keras.ops.softmax(keras.ops.matmul(q, keras.ops.transpose(k, (0, 2, 1)))), v)
    o = layers.Dense(8, name="o")
    y = o(y) * keras.ops.sqrt(layers.Dense(1, name="g")(x) - 50) if tail == "root" else keras.ops.relu(o(y) - 1e6)
    model = keras.Model(x, y)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    if tail == "root":
        model.get_layer("g").bias.assign([90.0])

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
            self.g = nn.Linear(8, 1) if tail == "root" else None

        def forward(self, x):
            x = nn.functional.pad(x, (0, 0, 1, 0))[:, 1:]
            k, q = self.k(x), self.q(x)
            y = self.o(torch.softmax(q @ k.mT, -1) @ self.v(x))
            return y * torch.sqrt(self.g(x) - 50) if tail == "root" else torch.relu(y - 1e6)

    module = Own().eval()
    if tail == "dead":
        with pytest.raises(bridge.BridgeError, match="no output says anything"):
            bridge.load_weights(module, model)
        return
    bridge.load_weights(module, model)
    np.testing.assert_array_equal(model.get_layer("q").kernel, module.q.weight.detach().T)
