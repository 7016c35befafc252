"""A training that goes on in the other framework comes to the same weights as one that has stayed."""

import warnings

import keras
import numpy as np
import pytest
import torch
from keras import layers

import bridge
from bridge import optimizers
from tests.bridge._steps import (
    NETWORKS,
    SETTINGS,
    STEPS,
    batches,
    in_float64,
    made,
    network,
    same,
    train_keras,
    train_torch,
)


@pytest.mark.parametrize("kind", ["convolutional", "transformer"])
@pytest.mark.parametrize("name", SETTINGS)
def test_from_keras_to_torch(name, kind):
    if (name, kind) == ("SGD, scaled", "transformer"):
        with pytest.raises(TypeError):  # Keras does not divide an embedding's gradient
            train_keras(model := network(kind), made(name, model), batches(model, 1))
        return
    with in_float64():
        model = network(kind)
        optimizer, data = made(name, model), batches(model, 2 * STEPS)
        train_keras(model, optimizer, data[:STEPS])
        module = bridge.to_torch(model, exact_training=True)
        begin = {k: v.clone() for k, v in module.state_dict().items()}
        other = bridge.optimizer_to_torch(optimizer, model, module)
        assert isinstance(other, getattr(optimizers, name.partition(",")[0]))
        theirs = train_torch(module, other, data[STEPS:], SETTINGS[name].get("loss_scale_factor", 1.0))
        mine = train_keras(model, optimizer, data[STEPS:])
        np.testing.assert_allclose(theirs, mine, rtol=1e-9)
        same(model, module, 1e-9, 1e-9)
        moved = [name for name, p in module.named_parameters() if not torch.equal(p, begin[name])]
        assert set(moved) == {name for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["Adam", "SGD, Nesterov, decay"])
def test_recurrent_networks(name):
    with in_float64():
        model = network("recurrent")
        optimizer, data = made(name, model), batches(model, 2 * STEPS)
        train_keras(model, optimizer, data[:STEPS])
        module = bridge.to_torch(model, exact_training=True)
        other = bridge.optimizer_to_torch(optimizer, model, module)
        theirs = train_torch(module, other, data[STEPS:])
        np.testing.assert_allclose(theirs, train_keras(model, optimizer, data[STEPS:]), rtol=1e-9)
        same(model, module, 1e-9, 1e-9)


def tied():
    """An embedding that is the output layer, too: its gradient is no longer that of single rows."""
    tokens, embedding = keras.Input((6,), dtype="int32"), layers.ReversibleEmbedding(11, 8)
    x = layers.LayerNormalization()(embedding(tokens))
    return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(embedding(x, reverse=True))))


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Nadam"])
def test_an_embedding_that_is_the_output_too(name, monkeypatch):
    monkeypatch.setitem(NETWORKS, "tied", tied)
    with in_float64():
        model = network("tied")
        optimizer, data = made(name, model), batches(model, 2 * STEPS)
        train_keras(model, optimizer, data[:STEPS])
        module = bridge.to_torch(model, exact_training=True)
        other = bridge.optimizer_to_torch(optimizer, model, module)
        theirs = train_torch(module, other, data[STEPS:])
        np.testing.assert_allclose(theirs, train_keras(model, optimizer, data[STEPS:]), rtol=1e-9)
        same(model, module, 1e-9, 1e-9)


class Tied(torch.nn.Module):
    """The same in torch: one tensor in two modules."""

    def __init__(self):
        super().__init__()
        self.tokens, self.norm = torch.nn.Embedding(11, 8), torch.nn.LayerNorm(8)
        self.out, self.head = torch.nn.Linear(8, 11, bias=False), torch.nn.Linear(11, 3)
        self.out.weight = self.tokens.weight

    def forward(self, x):
        return self.head(self.out(self.norm(self.tokens(x))).mean(1))


@pytest.mark.parametrize("name", ["Adam", "Nadam"])
def test_tied_in_torch(name):
    torch.manual_seed(3)
    module = Tied().double()
    data = batches(keras.Model(x := keras.Input((6,), dtype="int32"), x), 2 * STEPS)
    theirs = {"Adam": torch.optim.Adam, "Nadam": torch.optim.NAdam}[name](module.parameters(), 2.0**-7)
    train_torch(module, theirs, data[:STEPS])
    with in_float64():
        model = bridge.to_keras(module.eval(), (torch.zeros(2, 6, dtype=torch.int64),))
        mine = bridge.optimizer_to_keras(theirs, module, model)
        have = train_keras(model, mine, data[STEPS:])
        np.testing.assert_allclose(have, train_torch(module, theirs, data[STEPS:]), rtol=1e-9)
        want = module.tokens.weight.detach().numpy()
        tables = [w for w in model.trainable_variables if tuple(w.shape) in ((11, 8), (8, 11))]
        assert len(tables) == 1
        have = np.asarray(tables[0])
        np.testing.assert_allclose(have if have.shape == want.shape else have.T, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", NETWORKS)
def test_float32(kind):
    model = network(kind)
    optimizer, data = made("Adam", model), batches(model, 2 * STEPS)
    train_keras(model, optimizer, data[:STEPS])
    module = bridge.to_torch(model, exact_training=True)
    other = bridge.optimizer_to_torch(optimizer, model, module)
    theirs = train_torch(module, other, data[STEPS:])
    np.testing.assert_allclose(theirs, train_keras(model, optimizer, data[STEPS:]), rtol=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_from_torch_to_keras_and_back(name):
    with in_float64():
        model = network("convolutional")
        optimizer, data = made(name, model), batches(model, 3 * STEPS)
        scale = SETTINGS[name].get("loss_scale_factor", 1.0)
        module = bridge.to_torch(model, exact_training=True)
        there = bridge.optimizer_to_torch(optimizer, model, module)
        train_torch(module, there, data[:STEPS], scale)
        bridge.load_weights(model, module.state_dict())
        back = bridge.optimizer_to_keras(there, module, model)
        assert type(back) is type(optimizer)
        mine = train_keras(model, back, data[STEPS : 2 * STEPS])
        np.testing.assert_allclose(mine, train_torch(module, there, data[STEPS : 2 * STEPS], scale), rtol=1e-9)
        same(model, module, 1e-9, 1e-9)


class Steep(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1.0 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {}


def test_a_schedule_of_ones_own_is_written_down():
    model = network("recurrent")
    optimizer = keras.optimizers.SGD(Steep())
    optimizer.build(model.trainable_variables)
    module = bridge.to_torch(model)
    with pytest.raises(bridge.BridgeError, match="the schedule Steep is a program: give steps="):
        bridge.optimizer_to_torch(optimizer, model, module)
    other = bridge.optimizer_to_torch(optimizer, model, module, steps=4)
    have = [optimizers.rate(other.param_groups[0]["schedule"], step) for step in range(6)]
    np.testing.assert_allclose(have, [0.1, 0.05, 0.1 / 3, 0.025, 0.025, 0.025], rtol=1e-6)
    back = bridge.optimizer_to_keras(other, module, model)
    np.testing.assert_allclose([float(back._learning_rate(step)) for step in range(6)], have, rtol=1e-6)


class Twice(keras.optimizers.SGD):
    pass


def test_what_is_refused():
    model = network("recurrent")
    module = bridge.to_torch(model)
    for optimizer, text in [
        (keras.optimizers.Ftrl(), "the rule of keras.*Ftrl is not known. Accepted: Keras' own SGD, Adam"),
        (Twice(), "the rule of .*Twice is not known"),
        ("adam", "optimizer must be one of Keras. Received: str"),
        (keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "give its inner_optimizer, .*init_scale=32768"),
        (keras.optimizers.SGD(lambda: 0.1), "the learning rate is a function"),
    ]:
        with pytest.raises(bridge.BridgeError, match=text):
            bridge.optimizer_to_torch(optimizer, model, module)
    module.dense.weight.requires_grad_(False)
    module.lstm.bias_hh_l0.requires_grad_(True)
    with pytest.raises(bridge.BridgeError) as error:
        bridge.optimizer_to_torch(keras.optimizers.SGD(), model, module)
    assert "dense.weight is trained in Keras, not in torch" in str(error.value)
    assert "lstm.bias_hh_l0 is trained in torch, and is no weight of Keras" in str(error.value)
    module = bridge.to_torch(model)
    for optimizer, text in [
        (torch.optim.SGD(module.parameters(), 0.1, maximize=True), "maximize=True, which Keras has none of"),
        (
            torch.optim.Rprop(module.parameters()),
            "the rule of torch.optim.rprop.Rprop is not known. Accepted: torch's own",
        ),
        (torch.optim.SGD([module.dense.bias], 0.1), "the optimizer does not train .*dense.weight"),
        (
            torch.optim.SGD([{"params": [p], "lr": 0.1 * i} for i, p in enumerate(module.parameters(), 1)]),
            "the groups of parameters have their own lr",
        ),
    ]:
        with pytest.raises(bridge.BridgeError, match=text):
            bridge.optimizer_to_keras(optimizer, module, model)


def test_constraints():
    image = keras.Input((3,))
    model = keras.Model(image, layers.Dense(2, kernel_constraint="non_neg")(image))
    module = bridge.to_torch(model)
    with pytest.raises(bridge.BridgeError, match="torch has no constraints on weights: dense.*/kernel"):
        bridge.optimizer_to_torch(keras.optimizers.SGD(), model, module)
    with pytest.warns(UserWarning, match="torch has no constraints on weights"):
        bridge.optimizer_to_torch(keras.optimizers.SGD(), model, module, exact=False)


def test_an_embedding_that_torch_reads_otherwise_is_refused():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.last = torch.nn.Parameter(torch.randn(11, 4)), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.last(torch.nn.functional.embedding(x, self.table).mean(1))

    tokens = keras.Input((6,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(11, 4)(tokens))
    model, module = keras.Model(tokens, layers.Dense(3)(x)), Own()
    bridge.load_weights(module, model)
    with pytest.raises(bridge.BridgeError, match="table: Keras squares the gradient .*: make it an nn.Embedding"):
        bridge.optimizer_to_torch(keras.optimizers.Adam(), model, module)
    assert bridge.optimizer_to_torch(keras.optimizers.SGD(), model, module)


class Taken(layers.Layer):
    """Rows of a weight, by keras.ops."""

    def build(self, shape):
        self.table = self.add_weight(shape=(11, 4), name="table")

    def call(self, x):
        return keras.ops.take(self.table, x, axis=0)


@pytest.mark.parametrize("kind", ["twice", "taken"])
def test_parts_of_a_gradient_that_torch_adds_up(kind):
    tokens = [keras.Input((6,), dtype="int32"), keras.Input((6,), dtype="int32")]
    table = layers.Embedding(11, 4, name="e") if kind == "twice" else Taken(name="e")
    rows = [table(one) for one in (tokens if kind == "twice" else tokens[:1])]
    x = layers.GlobalAveragePooling1D()(rows[0] + rows[1] if kind == "twice" else rows[0])
    model = keras.Model(tokens if kind == "twice" else tokens[0], layers.Dense(3)(x))
    module = bridge.to_torch(model)
    why = "it is read in 2 places" if kind == "twice" else "make it an nn.Embedding"
    for optimizer in (keras.optimizers.Adam(), keras.optimizers.SGD(clipnorm=0.1)):
        with pytest.raises(bridge.BridgeError, match=f"Keras squares the gradient of each time .*: {why}"):
            bridge.optimizer_to_torch(optimizer, model, module)
    assert not any(getattr(part, "sparse", False) for part in module.modules())
    assert bridge.optimizer_to_torch(keras.optimizers.SGD(), model, module)
    with pytest.warns(UserWarning, match="is not Keras' Adam"):
        bridge.optimizer_to_torch(keras.optimizers.Adam(), model, module, exact=False)


def test_a_gradient_that_depends_on_the_loss():
    tokens, table = keras.Input((6,), dtype="int32"), layers.ReversibleEmbedding(11, 4, name="e")
    x = layers.GlobalAveragePooling1D()(table(tokens))
    model = keras.Model(tokens, [layers.Dense(3)(x), table(layers.Dense(4)(x), reverse=True)])
    with pytest.raises(bridge.BridgeError, match="it depends on which outputs are trained how Keras has its gradient"):
        bridge.optimizer_to_torch(keras.optimizers.Adam(), model, bridge.to_torch(model))


def test_mixed_precision_has_no_gradient_in_parts():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(11, 4, name="e", dtype="mixed_bfloat16")(tokens))
    model = keras.Model(tokens, layers.Dense(3, dtype="mixed_bfloat16")(x))
    with pytest.raises(bridge.BridgeError, match="e.weight is of mixed precision, in which torch has no gradient in"):
        bridge.optimizer_to_torch(keras.optimizers.Adam(), model, bridge.to_torch(model))


class Scaled(torch.nn.Module):
    """A weight without axes."""

    def __init__(self):
        super().__init__()
        self.scale, self.d = torch.nn.Parameter(torch.tensor(1.5)), torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.d(x) * self.scale


def test_a_weight_without_axes():
    module = Scaled().double()
    data = [(a, b) for a, b in zip(np.random.default_rng(0).normal(size=(6, 5, 4)), np.ones((6, 5, 3)), strict=True)]
    theirs = torch.optim.Adam(module.parameters(), 2.0**-7)
    train_torch(module, theirs, data[:STEPS])
    with in_float64():
        model = bridge.to_keras(module.eval(), (torch.zeros(2, 4, dtype=torch.float64),))
        mine = bridge.optimizer_to_keras(theirs, module, model)
        have = train_keras(model, mine, data[STEPS:])
        np.testing.assert_allclose(have, train_torch(module, theirs, data[STEPS:]), rtol=1e-9)
        other = Scaled().double()
        bridge.load_weights(other, model)
        np.testing.assert_allclose(other.scale.item(), module.scale.item(), rtol=1e-9)
        assert bridge.optimizer_to_torch(mine, model, other).state[other.scale]["exp_avg"].numel() == 1


def test_outputs_that_no_loss_is_of():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(11, 4)(tokens))
    model = keras.Model(tokens, keras.ops.argmax(layers.Dense(3)(x), -1))
    assert bridge.optimizer_to_torch(keras.optimizers.Adam(), model, bridge.to_torch(model))


def test_a_row_that_torch_leaves_as_it_is():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(11, 4, name="e")(tokens))
    model = keras.Model(tokens, layers.Dense(3, name="d")(x))

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.d = torch.nn.Embedding(11, 4, padding_idx=0), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.d(self.e(x).mean(1))

    module = Own()
    bridge.load_weights(module, model)
    with pytest.raises(bridge.BridgeError, match="e.weight has padding_idx=0, a row that torch leaves as it is"):
        bridge.optimizer_to_torch(keras.optimizers.SGD(), model, module)
    carried = bridge.to_keras(module.eval(), (torch.zeros(2, 6, dtype=torch.int64),))
    assert bridge.optimizer_to_torch(keras.optimizers.SGD(), carried, module)


def test_a_bias_that_is_decayed_in_part():
    module = torch.nn.Sequential(torch.nn.RNN(4, 6, batch_first=True))
    module[0].bias_hh_l0.requires_grad_(False)

    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.l = module[0]

        def forward(self, x):
            return self.l(x)[0]

    own = Last().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bridge.to_keras(own, (torch.randn(2, 5, 4),))
    held = [p for p in own.parameters() if p.requires_grad]
    with pytest.raises(bridge.BridgeError, match="l.bias_ih_l0 is decayed without l.bias_hh_l0, which is frozen and"):
        bridge.optimizer_to_keras(torch.optim.AdamW(held), own, model)
    assert bridge.optimizer_to_keras(torch.optim.Adam(held), own, model)
    with torch.no_grad():
        own.l.bias_ih_l0 += own.l.bias_hh_l0
        own.l.bias_hh_l0.zero_()
    assert bridge.optimizer_to_keras(torch.optim.AdamW(held), own, model)


def test_a_module_with_such_a_gradient_goes_back():
    model = network("transformer")
    module = bridge.to_torch(model)
    bridge.optimizer_to_torch(keras.optimizers.Adam(), model, module)
    assert (
        module.embedding.sparse
        if hasattr(module, "embedding")
        else any(getattr(part, "sparse", False) for part in module.modules())
    )
    bridge.load_weights(model, module)
    assert bridge.verify(model, module).passed


def test_both_biases_of_torchs_lstm():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.l, self.d = torch.nn.LSTM(4, 6, batch_first=True), torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.d(self.l(x)[0][:, -1])

    module = Own()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = bridge.to_keras(module.eval(), (torch.randn(2, 5, 4),))
    optimizer = torch.optim.Adam(module.parameters())
    with pytest.raises(
        bridge.BridgeError, match="l.bias_hh_l0 is trained in torch, and is no weight of Keras: freeze it"
    ):
        bridge.optimizer_to_keras(optimizer, module, model)
    module.l.bias_hh_l0.requires_grad_(False)
    assert float(module.l.bias_hh_l0.abs().min()) > 0
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 2.0**-8)
    data = batches(model, 2 * STEPS)
    train_torch(module, optimizer, data[:STEPS])
    bridge.load_weights(model, module)
    other = bridge.optimizer_to_keras(optimizer, module, model)
    theirs = train_torch(module, optimizer, data[STEPS:])
    np.testing.assert_allclose(train_keras(model, other, data[STEPS:]), theirs, rtol=1e-4)


def test_slots_that_are_no_numbers():
    model = network("recurrent")
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    optimizer._momentums[0].assign(np.full(optimizer._momentums[0].shape, np.nan))
    with pytest.raises(bridge.BridgeError, match="lstm.weight_ih_l0: its momentum has NaN or infinite numbers"):
        bridge.optimizer_to_torch(optimizer, model, bridge.to_torch(model))


def test_groups_of_torch_with_rules_of_their_own():
    model = network("recurrent")
    module = bridge.to_torch(model)
    held = [p for p in module.parameters() if p.requires_grad]
    for cls, more, text in [
        (torch.optim.SGD, {"maximize": True}, "maximize=True, which Keras has none of"),
        (torch.optim.SGD, {"dampening": 0.5, "momentum": 0.9}, "dampening=0.5, which Keras has none of"),
        (torch.optim.NAdam, {"momentum_decay": 0.1}, "groups of parameters with their own momentum_decay"),
        (torch.optim.Adam, {"decoupled_weight_decay": True}, "groups of parameters with their own decoupled_weight"),
    ]:
        optimizer = cls([{"params": held[:2]}, {"params": held[2:], **more}], lr=0.1)
        with pytest.raises(bridge.BridgeError, match=text):
            bridge.optimizer_to_keras(optimizer, module, model)


def test_a_learning_rate_of_nothing():
    model = network("recurrent")
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 2), momentum=0.9)
    train_keras(model, optimizer, batches(model, 2))
    with pytest.warns(UserWarning, match="the velocity is lost, as it cannot be told from a learning rate of 0"):
        other = bridge.optimizer_to_torch(optimizer, model, module := bridge.to_torch(model), exact=False)
    train_torch(module, other, batches(model, 1))
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("name", ["CosineDecay", "PolynomialDecay"])
def test_schedules_in_float64(name):
    """Keras computes them in float32, whatever floatx is."""
    with in_float64():
        model = network("convolutional")
        schedule = getattr(keras.optimizers.schedules, name)(0.03, 7)
        optimizer, data = keras.optimizers.SGD(schedule, momentum=0.9), batches(model, 2 * STEPS)
        train_keras(model, optimizer, data[:STEPS])
        module = bridge.to_torch(model, exact_training=True)
        other = bridge.optimizer_to_torch(optimizer, model, module)
        train_torch(module, other, data[STEPS:])
        train_keras(model, optimizer, data[STEPS:])
        same(model, module, 2e-8, 2e-8)  # the last bit of float32, in a rate


def test_bfloat16():
    x = keras.Input((4,), dtype="bfloat16")
    model = keras.Model(x, layers.Dense(3, dtype="bfloat16")(x))
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    optimizer._momentums[0].assign(np.ones((4, 3)))
    module = bridge.to_torch(model)
    state = bridge.optimizer_to_torch(optimizer, model, module).state
    assert any((s["momentum"] == 1).all() and s["momentum"].dtype == torch.bfloat16 for s in state.values())
