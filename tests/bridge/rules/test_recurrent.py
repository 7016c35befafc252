"""Recurrent layers, both ways: cells, masks, states, directions, dropout, and torch's own modules."""

import json
import warnings

import keras
import numpy as np
import pytest
import torch
from torch import nn

import bridge
from bridge import lockstep
from bridge.rules import recurrent, to_keras_axes, to_torch_axes

layers = keras.layers
KINDS = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


@pytest.fixture(autouse=True, scope="module")
def three_steps():
    """One step of training shows that both sides move alike; TensorFlow takes long for each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockstep, "STEPS", 1)
        yield


def model_of(layer, *states, steps=None, masked=False):
    """A model of one layer, of inputs of three features, with states of these sizes and a mask of its first feature."""
    x = keras.Input((steps, 3), name="x")
    given = [keras.Input((n,), name=f"state{i}") for i, n in enumerate(states)]
    keywords = {"initial_state": given} if given else {}
    keywords |= {"mask": x[:, :, 0] > -0.5} if masked else {}
    return keras.Model([x, *given] if given else x, layer(x, **keywords))


def proved(model, module, *arrays):
    """Verify at few steps, which TensorFlow takes one by one."""
    rng = np.random.default_rng(3)
    inputs = arrays or [rng.normal(size=(2, *[n or 3 for n in t.shape[1:]])).astype("float32") for t in model.inputs]
    report = bridge.verify(model, module, list(inputs))
    assert report.passed, str(report)
    return report


def both(check, model, proof=True, **options):
    """Carry a model both ways at few steps, and verify it, unless another test does so with the same gradients."""
    made = check.both_ways(model, size=3, **options)
    if proof:
        proved(model, made.module)
    return made


def names(module):
    """The classes of the parts of a module."""
    return [type(m).__name__ for m in module.children()]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {}),
        ("lstm", {"return_sequences": True, "use_bias": False}),
        ("gru", {"return_sequences": True}),
        ("gru", {"use_bias": False}),
        ("rnn", {"return_sequences": True}),
        ("rnn", {"activation": "relu", "unroll": True}),
    ],
    ids=str,
)
def test_torch_has_it(check, kind, options):
    model = model_of(KINDS[kind](4, name="r", **options), steps=4 if "unroll" in options else None)
    module, again = both(check, model)
    assert type(module.r) is TORCH[kind]
    assert type(again.get_layer("r")) is KINDS[kind]


@pytest.mark.parametrize(("kind", "sequences"), [("lstm", True), ("gru", False), ("rnn", True)])
def test_states(check, kind, sequences):
    """They go in and come out."""
    count = 2 if kind == "lstm" else 1
    layer = KINDS[kind](4, return_sequences=sequences, return_state=True, name="r")
    module, again = both(check, model_of(layer, *[4] * count))
    assert names(module) == [f"Keras{TORCH[kind].__name__}"] and len(again.outputs) == 1 + count


def test_a_state_alone(check):
    """What nothing reads is not asked for: the model that comes back is smaller."""
    x = keras.Input((None, 3))
    _, h, c = layers.LSTM(4, return_sequences=True, return_state=True, name="r")(x)
    for outputs in (c, h):
        module, again = check.both_ways(keras.Model(x, outputs))
        assert again.get_layer("r").return_sequences is False
    assert type(module.r) is nn.LSTM


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"activation": "softsign", "recurrent_activation": "hard_sigmoid", "use_bias": False}),
        ("gru", {"reset_after": False, "activation": "elu"}),
        ("gru", {"activation": "linear", "recurrent_activation": "hard_sigmoid"}),
        ("rnn", {"activation": "sigmoid"}),
    ],
    ids=str,
)
def test_functions(check, kind, options):
    module = both(check, model_of(KINDS[kind](3, return_sequences=True, name="r", **options))).module
    assert names(module) == ["Recurrent"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"return_sequences": True}),
        ("lstm", {"return_state": True, "zero_output_for_mask": True}),
        ("gru", {"return_sequences": True, "zero_output_for_mask": True}),
        ("gru", {"return_state": True, "go_backwards": True}),
        ("rnn", {"return_sequences": True, "return_state": True, "go_backwards": True, "activation": "relu"}),
    ],
    ids=str,
)
def test_mask(check, kind, options):
    """A masked step keeps the state, and repeats the output or has 0 for it; backwards, Keras leaves time as it ran."""
    both(check, model_of(KINDS[kind](4, name="r", **options), masked=True), proof="return_sequences" in options)


@pytest.mark.parametrize(("kind", "sequences"), [("lstm", True), ("gru", True), ("rnn", False)])
def test_backwards(check, kind, sequences):
    layer = KINDS[kind](4, return_sequences=sequences, go_backwards=True, name="r")
    module = both(check, model_of(layer), proof=kind == "lstm").module
    assert type(module.r) is TORCH[kind]


@pytest.mark.parametrize(
    ("kind", "merge", "options"),
    [
        ("lstm", "concat", {"return_sequences": True}),
        ("lstm", "concat", {}),
        ("gru", "sum", {"return_sequences": True, "return_state": True}),
        ("gru", "mul", {"reset_after": False}),
        ("rnn", "ave", {"return_sequences": True}),
        ("rnn", None, {"return_sequences": True}),
    ],
    ids=str,
)
def test_bidirectional(check, kind, merge, options):
    model = model_of(layers.Bidirectional(KINDS[kind](4, **options), merge_mode=merge, name="b"))
    module = both(check, model, proof=merge in ("concat", "ave"), same_layers=merge is not None).module
    if merge == "concat" and options:
        assert type(module.b) is TORCH[kind]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"return_state": True, "return_sequences": True}),
        ("gru", {"return_state": True}),
        ("rnn", {"activation": "relu", "return_sequences": True}),
    ],
    ids=str,
)
def test_bidirectional_with_a_mask(check, kind, options):
    both(check, model_of(layers.Bidirectional(KINDS[kind](4, **options), name="b"), masked=True), kind == "lstm")


def test_one_direction_is_frozen(check):
    layer = layers.Bidirectional(layers.GRU(4), name="b")
    model = model_of(layer)
    layer.backward_layer.trainable = False
    module = bridge.to_torch(check.randomise(model))
    proved(model, module)
    assert [p.requires_grad for p in module.parameters()] == [True] * 4 + [False] * 4
    with pytest.raises(bridge.BridgeError, match="trains a layer as a whole"):
        bridge.to_keras(module, (torch.randn(2, 3, 3),))


def test_bidirectional_states(check):
    """Those of the forward layer come first."""
    layer = layers.Bidirectional(layers.LSTM(4, return_state=True, return_sequences=True), name="b")
    module = both(check, model_of(layer, 4, 4, 4, 4), proof=False).module
    assert names(module) == ["KerasLSTM"]


@pytest.mark.parametrize(("merge", "first", "masked"), [("concat", True, True), (None, False, False)])
def test_two_kinds_of_layers(check, merge, first, masked):
    """The backward layer is another one than the forward layer, which may itself be the one that goes backwards."""
    ways = [layers.GRU(4, return_sequences=True, go_backwards=first)]
    ways.append(layers.SimpleRNN(4, return_sequences=True, go_backwards=not first))
    model = model_of(layers.Bidirectional(ways[0], merge, backward_layer=ways[1], name="b"), masked=masked)
    both(check, model, proof=False, same_layers=False)


def test_states_of_two_kinds_of_layers(check):
    """What each direction makes is not taken for a state."""
    ways = [layers.GRU(4, return_state=True), layers.SimpleRNN(4, return_state=True, go_backwards=True)]
    model = model_of(layers.Bidirectional(ways[0], "sum", backward_layer=ways[1], name="b"))
    both(check, model, proof=False, same_layers=False)


@pytest.mark.parametrize(
    "cells", [[layers.LSTMCell(4), layers.GRUCell(3)], layers.SimpleRNNCell(4)], ids=["several", "one"]
)
def test_cells(check, cells):
    """RNN of one cell, and of several, one on the other."""
    model = model_of(layers.RNN(cells, return_sequences=True, return_state=True, name="r"), masked=True)
    both(check, model, proof=False, same_layers=False)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"dropout": 0.3}),
        ("gru", {"recurrent_dropout": 0.3}),
        ("rnn", {"dropout": 0.2, "recurrent_dropout": 0.3}),
    ],
    ids=str,
)
def test_dropout(check, kind, options):
    """One mask for a whole sequence; the numbers that it draws are others."""
    model = model_of(KINDS[kind](4, name="r", **options))
    module, again = both(check, model)
    x = torch.ones(2000, 3, 3)
    want = np.asarray(model(x.numpy(), training=True))
    for have in (module.train()(x).detach().numpy(), np.asarray(again(x.numpy().astype("float32"), training=True))):
        assert np.abs(have.mean(0) - want.mean(0)).max() < 0.05
        assert np.abs(have.std(0) - want.std(0)).max() < 0.05 and have.std(0).max() > 0.01


def test_dropout_of_two_directions(check):
    """Each has a mask of its own."""
    module = both(check, model_of(layers.Bidirectional(layers.GRU(4, dropout=0.5), name="b"))).module
    assert names(module) == ["Recurrent"] and module.b.dropout == 0.5


def test_masks_that_hang_on_tensors(check):
    """Embedding and Masking make them, recurrent layers take them and hand them on."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(9, 4, mask_zero=True, name="e")(ids)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="b")(x)
    x = layers.GRU(4, return_sequences=True, name="g")(x)
    x = layers.SimpleRNN(3, name="s")(x)
    model = check.randomise(keras.Model(ids, layers.Dense(2, name="d")(x)))
    module = bridge.to_torch(model)
    given = np.array([[3, 0, 4, 1, 0], [0, 2, 0, 0, 0], [1, 2, 3, 4, 5]])
    assert check.relative(module(torch.tensor(given)).detach(), model(given)) < 1e-6
    proved(model, module, given[:, :3])
    again = bridge.to_keras(module, (torch.tensor(given),))
    assert check.relative(again(given), model(given)) < 1e-6

    x = keras.Input((6, 3), name="x")
    y = layers.LSTM(4, return_sequences=True, name="r")(layers.Masking(0.0, name="m")(x))
    model = check.randomise(keras.Model(x, layers.GlobalAveragePooling1D(name="p")(y)))
    module = bridge.to_torch(model)
    given = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    given[0, 2:4], given[1, :2] = 0, 0
    assert check.relative(module(torch.tensor(given)).detach(), model(given)) < 1e-6


def test_language_model(check):
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(11, 4, name="e")(ids)
    x = layers.LSTM(5, return_sequences=True, name="l")(x)
    x = layers.GRU(4, name="g")(layers.Dropout(0.2, name="o")(x))
    model = check.randomise(keras.Model(ids, layers.Dense(11, activation="softmax", name="d")(x)))
    module = bridge.to_torch(model)
    assert names(module) == ["Embedding", "LSTM", "Dropout", "GRU", "Linear"]
    given = torch.randint(11, (2, 5))
    again = bridge.to_keras(module, (given,), [{0, 1}])
    assert [x.name for x in again.layers] == [x.name for x in model.layers]
    proved(model, module, given.numpy()[:, :3])
    assert check.relative(again(given.numpy()[:, :4]), model(given.numpy()[:, :4])) < 1e-6


@pytest.mark.parametrize("kind", TORCH)
def test_weights_into_your_own_module(check, kind):
    """Both biases are given values, though Keras has one weight of them."""
    model = check.randomise(model_of(KINDS[kind](4, return_sequences=True)))
    module, x = Net(TORCH[kind](3, 4, batch_first=True)), torch.randn(2, 3, 3)
    bridge.load_weights(module, model)
    assert check.relative(module(x).detach(), model(x.numpy())) < 1e-6
    other = model_of(KINDS[kind](4, return_sequences=True))
    bridge.load_weights(other, module)
    assert check.relative(other(x.numpy()), model(x.numpy())) < 1e-6


def test_one_layer_called_twice(check):
    layer = layers.LSTM(3, return_sequences=True, name="r")
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, layer(layer(x)))
    module, again = both(check, model)
    assert names(module) == ["LSTM"] and len(again.layers) == 2


def swap_gates(m):
    """The input and the forget gate."""
    rows = m.weight_ih_l0.unflatten(0, (4, -1))
    m.weight_ih_l0.copy_(rows[[1, 0, 2, 3]].flatten(0, 1))


def invert_mask(m):
    m.forward = lambda x, states=(), mask=None, whole=m.forward: whole(x, states, ~mask)


FAULTS = {
    "gates swapped": swap_gates,
    "bias doubled": lambda m: m.bias_ih_l0.mul_(2),
    "mask inverted": invert_mask,
    "zeros for what is masked": lambda m: setattr(m, "zero_masked", True),
    "another activation": lambda m: setattr(m, "recurrent_activation", "Hardsigmoid"),
    "states mirrored": lambda m: m.weight_hh_l0.copy_(m.weight_hh_l0.flip(1)),
}


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_fault_is_seen(check, fault):
    model = check.randomise(model_of(layers.LSTM(4, return_sequences=True, name="r"), masked=True))
    module = bridge.to_torch(model)
    with torch.no_grad():
        FAULTS.get(fault, lambda m: None)(module.r)
    x = np.random.default_rng(3).normal(size=(2, 4, 3)).astype("float32")
    assert bridge.verify(model, module, x).passed == (fault is None)


class Net(nn.Module):
    """A recurrent module and what is made of its outputs."""

    def __init__(self, inner, result=lambda y, last: y, states=None):
        super().__init__()
        self.r, self.result, self.states = inner, result, states

    def forward(self, x, *given):
        if not given:
            return self.result(*self.r(x))
        return self.result(*self.r(x, given if len(given) > 1 else given[0]))


@pytest.fixture(autouse=True)
def said_of_biases():
    """Two biases that torch trains are said; tests look for it where it matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch trains two biases")
        yield


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("lstm", {"bidirectional": True}),
        ("lstm", {"bias": False, "batch_first": False}),
        ("gru", {"num_layers": 2, "dropout": 0.3}),
        ("gru", {"num_layers": 2, "bidirectional": True, "batch_first": False}),
        ("rnn", {"num_layers": 2, "bidirectional": True}),
        ("rnn", {"nonlinearity": "relu"}),
    ],
    ids=str,
)
def test_modules(check, kind, options):
    module = Net(TORCH[kind](3, 4, **{"batch_first": True} | options))
    model = check.from_torch(module, torch.randn(2, 3, 3))
    proved(model, module)
    again = bridge.to_torch(model)
    assert {type(m) for m in again.modules() if isinstance(m, nn.RNNBase)} == {TORCH[kind]}


@pytest.mark.parametrize(
    ("kind", "many", "given"),
    [
        ("lstm", {"num_layers": 2, "bidirectional": True}, True),
        ("lstm", {}, False),
        ("gru", {}, True),
        ("rnn", {"bidirectional": True}, True),
    ],
    ids=str,
)
def test_states_of_modules(check, kind, many, given):
    count = many.get("num_layers", 1) * (1 + many.get("bidirectional", False))
    module = Net(TORCH[kind](3, 4, batch_first=True, **many), lambda y, last: (y, last))
    states = [torch.randn(count, 2, 4) for _ in range(given * (1 + (kind == "lstm")))]
    given = (torch.randn(2, 3, 3), *states)
    model = check.to_keras(module, given, [{0, 1}, *[{1}] * len(states)])
    proved(model, module, *[t.numpy() for t in given])


@pytest.mark.parametrize(
    "result",
    [
        lambda y, last: last[1],
        lambda y, last: torch.cat([last[0][-2], last[0][-1]], 1),
    ],
)
def test_subsets_of_outputs(check, result):
    module = Net(nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), result)
    proved(check.from_torch(module, torch.randn(2, 3, 3)), module)


class Conditioned(nn.Module):
    """The states are made of another input, which has its batch elsewhere."""

    def __init__(self, **options):
        super().__init__()
        self.r = nn.GRU(4, 6, **options)
        self.h = nn.Linear(3, 6 * self.r.num_layers * (1 + self.r.bidirectional))

    def forward(self, x, c):
        return self.r(x, self.h(c).reshape(c.shape[0], -1, 6).transpose(0, 1).contiguous())[0]


@pytest.mark.parametrize("options", [{"num_layers": 2, "bidirectional": True, "batch_first": True}, {}], ids=str)
def test_states_that_are_made(check, options):
    module = Conditioned(**options)
    first = options.get("batch_first", False)
    x = torch.randn(2, 5, 4) if first else torch.randn(5, 2, 4)
    given = x, torch.randn(2, 3)
    model = check.to_keras(module, given, [{0} if first else {1}, {0}])
    proved(model, module, *[t.numpy() for t in given])


class Cell(nn.Module):
    """Two steps of a cell."""

    def __init__(self, cell):
        super().__init__()
        self.c = cell

    def forward(self, x, *states):
        for t in range(2):
            made = self.c(x[:, t], states if len(states) > 1 else states[0])
            states = made if isinstance(made, tuple) else (made,)
        return states


@pytest.mark.parametrize(
    "cell", [nn.LSTMCell(3, 4), nn.GRUCell(3, 4, bias=False), nn.RNNCell(3, 4, nonlinearity="relu")], ids=repr
)
def test_cells_of_torch(check, cell):
    states = [torch.randn(2, 4) for _ in range(1 + isinstance(cell, nn.LSTMCell))]
    module, given = Cell(cell), (torch.randn(2, 2, 3), *states)
    model = check.from_torch(module, *given)
    proved(model, module, *[t.numpy() for t in given])
    assert sum(type(x) in KINDS.values() for x in model.layers) == 1


@pytest.mark.parametrize("frozen", [True, False])
def test_two_biases(frozen):
    """Their sum is Keras' one bias; it is said where both are trained, and one is then held still."""
    module = Net(nn.LSTM(3, 4, batch_first=True))
    if frozen:
        module.r.bias_hh_l0.requires_grad_(False).zero_()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = bridge.to_keras(module, (torch.randn(2, 5, 3),))
    said = [str(w.message) for w in said if "two biases" in str(w.message)]
    assert bool(said) != frozen and all("r.bias_hh_l0" in text for text in said)
    report = proved(model, module)
    assert ("held still" in str(report) + json.dumps(report.to_json())) != frozen
    assert module.r.bias_hh_l0.requires_grad != frozen


def stateful():
    x = keras.Input(batch_shape=(2, 4, 3))
    return keras.Model(x, layers.LSTM(3, stateful=True)(x))


def unrolled():
    x = keras.Input((4, 3))
    layer = layers.LSTM(3, return_sequences=True, unroll=True)
    return keras.Model(x, layers.Bidirectional(layer)(x, mask=x[:, :, 0] > 0))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (stateful, "stateful"),
        (lambda: model_of(layers.LSTM(3, activation=lambda x: x * 2)), "activation"),
        (lambda: model_of(layers.LSTM(3, activation="softmax")), "activation"),
        (unrolled, "unroll=True"),
    ],
)
def test_refused(make, reason):
    with pytest.raises(bridge.BridgeError, match=reason):
        bridge.to_torch(make())


def test_always_random():
    x = keras.Input((None, 3))
    y = layers.LSTM(3, dropout=0.2)(x, training=True)
    with pytest.raises(bridge.BridgeError, match="training=True"):
        bridge.to_torch(keras.Model(x, y))


@pytest.mark.parametrize(
    ("module", "given", "reason"),
    [
        (Net(nn.LSTM(3, 4, proj_size=2, batch_first=True)), torch.randn(2, 5, 3), "proj_size"),
        (Net(nn.GRU(3, 4, batch_first=True)), torch.randn(5, 3), "rank 2"),
    ],
)
def test_refused_of_torch(module, given, reason):
    with pytest.raises(bridge.BridgeError, match=reason):
        bridge.to_keras(module, (given,))


def test_packed_sequences():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = nn.GRU(3, 4, batch_first=True)

        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]), batch_first=True)
            return self.r(packed)[1]

    with pytest.raises(bridge.BridgeError, match="packed"):
        bridge.to_keras(Packed(), (torch.randn(2, 5, 3),))


def test_gates():
    """The gates of a GRU change places, those of an LSTM do not."""
    pattern = recurrent._pattern("gru", "i o -> o i")
    array = np.arange(12.0).reshape(2, 6)
    assert to_torch_axes(array, pattern)[:, 0].tolist() == [2, 3, 0, 1, 4, 5]
    np.testing.assert_array_equal(to_keras_axes(to_torch_axes(array, pattern), pattern), array)


@pytest.mark.parametrize("kind", ["LSTM", "RNN", "GRU"])
def test_biases_that_are_live_on_both_sides(kind):
    """Their sum is rounded in float32, and not in float64."""

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = getattr(torch.nn, kind)(8, 5, batch_first=True)

        def forward(self, x):
            return self.inner(x)[0]

    torch.manual_seed(0)
    module = Wrapped().eval()
    with warnings.catch_warnings(action="ignore"):
        model = bridge.to_keras(module, (torch.randn(2, 4, 8),))
    report = bridge.verify(model, module)
    assert report.passed, str(report)
